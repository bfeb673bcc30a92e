// Child processes that are always ended, by their own handle.
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { EventLog } from './events.mjs';

const GRACE_MS = 5_000;
const running = new Set();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

export class Process {
  constructor(name, command, args, { env = {}, onLine = () => {} } = {}) {
    this.name = name;
    this.lines = new EventLog(name);
    this.stderr = '';
    this.stopping = false;
    this.child = spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'], env: { ...process.env, ...env } });
    running.add(this.child);
    this.child.stdin.on('error', () => {}); // the exit is reported below, with its reason
    this.child.stderr.on('data', (chunk) => { this.stderr = (this.stderr + chunk).slice(-8_000); });
    const reader = createInterface({ input: this.child.stdout });
    reader.on('line', (line) => {
      this.lines.push({ line });
      onLine(line);
    });
    this.exited = new Promise((resolve) => {
      const ended = (how) => {
        running.delete(this.child);
        this.exit = how;
        this.lines.end(this.describeExit());
        resolve(how);
      };
      this.child.once('error', (error) => ended({ error }));
      this.child.once('close', (code, signal) => ended({ code, signal }));
    });
  }

  describeExit() {
    const { error, code, signal } = this.exit;
    const how = error ? `did not start (${error.message})` : `ended with ${signal ?? `code ${code}`}`;
    return this.stderr.trim() ? `${how}; its last words: ${this.stderr.trim()}` : how;
  }

  write(line) {
    this.child.stdin.write(`${line}\n`);
  }

  /** Ends the process. Resolves with how it ended, and whether it had to be killed. */
  async stop(ask = () => this.child.kill('SIGTERM')) {
    this.stopping = true;
    if (this.exit) return { ...this.exit, killed: false };
    ask();
    let killed = false;
    const timer = setTimeout(() => {
      killed = true;
      this.child.kill('SIGKILL');
    }, GRACE_MS);
    const how = await this.exited;
    clearTimeout(timer);
    return { ...how, killed };
  }
}

/** Runs a command to its end, with this input. */
export async function run(name, command, args, input = '') {
  const child = new Process(name, command, args);
  child.child.stdin.end(input);
  await child.exited;
  if (child.exit.code !== 0) throw new Error(`${name} ${child.describeExit()}`);
}
