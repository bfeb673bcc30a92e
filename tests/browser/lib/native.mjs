// A peer that is the command `pmesh peer`, with the same methods as a page.
import { binary } from './onramps.mjs';
import { EventLog } from './events.mjs';
import { Process } from './process.mjs';

export class NativePeer {
  constructor(name, { onramp, args = [] } = {}) {
    this.name = name;
    this.url = onramp;
    this.args = args;
    this.events = new EventLog(name);
    this.malformed = [];
  }

  async start() {
    return this; // it starts when it joins: the onramp is an argument of the program
  }

  async join(url = this.url) {
    this.process = new Process(this.name, binary('pmesh'), ['peer', '--onramp', url, '--json', ...this.args],
      { onLine: (line) => this.#read(line) });
    this.process.exited.then(() => this.events.end(this.process.describeExit()));
    this.onramp = (await this.events.next({ event: 'open', kind: 'websocket' })).node;
    return this.onramp;
  }

  /** Joins an overlay, and takes peers of the original peer-relay there. Sets `url` and `id`. */
  async relay() {
    this.process = new Process(this.name, binary('pmesh'),
      ['peer', '--listen', '127.0.0.1:0', '--compat', 'peer-relay', '--json', ...this.args],
      { onLine: (line) => this.#read(line) });
    this.process.exited.then(() => this.events.end(this.process.describeExit()));
    const { id, listen } = await this.events.next({ event: 'overlay-ready' });
    this.id = id;
    this.url = `ws://${listen}`;
  }
  async overlaySend(id, json) { this.#command({ cmd: 'overlay-send', id, json }); }

  #read(line) {
    let event;
    try {
      event = JSON.parse(line);
    } catch { /* told below */ }
    if (typeof event?.event === 'string') this.events.push(event);
    else this.malformed.push(line);
  }

  #command(cmd) { this.process.write(JSON.stringify(cmd)); }
  writeLine(line) { this.process.write(line); }

  next(pattern, timeout) { return this.events.next(pattern, timeout); }
  seen(pattern, timeout) { return this.events.seen(pattern, timeout); }

  async connect(to, { via = this.onramp, offerData, expect } = {}) {
    this.#command({ cmd: 'connect', to, via, offerData, expect });
  }
  async sendJson(to, json) { this.#command({ cmd: 'send', to, json }); }
  async sendBinary(to, bytes) { this.#command({ cmd: 'send', to, base64: Buffer.from(bytes).toString('base64') }); }
  async sendCount(to, from, upto) { for (let i = from; i < upto; i++) await this.sendJson(to, i); }
  async close(node) { this.#command({ cmd: 'close', node }); }
  async maxMessageSize() { return 262_144; } // what Chromium announces

  async #askPeers() {
    this.#command({ cmd: 'peers' });
    return this.events.next({ event: 'peers' });
  }

  async peers() { return (await this.#askPeers()).peers; }
  /** Who it is. */
  async peerId() { return (await this.#askPeers()).peerId; }

  /** Asks it to quit, and tells how it ended. */
  quit() { return this.process.stop(() => this.#command({ cmd: 'quit' })); }

  /** It dies without a goodbye. */
  async crash() {
    await this.process.stop(() => this.process.child.kill('SIGKILL'));
  }

  problems() {
    const found = this.malformed.map((line) => `${this.name}: not an event: ${line}`);
    if (!this.process) return found;
    const { exit, stopping, stderr } = this.process;
    if (exit && !stopping) found.push(`${this.name}: ${this.process.describeExit()}`);
    if (stderr.includes('panicked at')) found.push(`${this.name} panicked: ${stderr}`);
    return found;
  }

  async stop() {
    this.events.end('the test is over');
    await this.process?.stop();
  }
}
