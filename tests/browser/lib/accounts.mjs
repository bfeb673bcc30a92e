// An onramp with accounts, and what its users do to log in.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { browser } from './browser.mjs';
import { binary, startOnramp } from './onramps.mjs';
import { run } from './process.mjs';

export const PASSWORD = 'correct horse';
const CHEAP = ['--argon2-memory-kib', '64', '--argon2-iterations', '1'];

/** An onramp with these accounts, where pages of the suite may log in, and the folder of its database. */
export class Accounts {
  static async start(names) {
    const made = new Accounts();
    made.folder = mkdtempSync(join(tmpdir(), 'pmesh-accounts-'));
    made.store = ['--accounts', `sqlite:${join(made.folder, 'accounts.db')}`];
    for (const name of names) await made.user(['add', name, '--password-stdin', ...CHEAP], `${PASSWORD}\n`);
    const { files } = await browser();
    made.onramp = await startOnramp([...made.store, '--allow-origin', files]);
    made.url = made.onramp.url;
    return made;
  }

  user([what, ...args], input) {
    return run('onramp-server user', binary('onramp-server'), ['user', what, ...args, ...this.store], input);
  }

  trust(name, other) { return this.user(['trust', name, other]); }

  /** A page asks for a token, and has the URL by which it joins. */
  async urlOf(page, name, password = PASSWORD) {
    const answer = await page.page.evaluate(async ([url, body]) => {
      const headers = { 'content-type': 'application/json' };
      const response = await fetch(url, { method: 'POST', headers, body: JSON.stringify(body) });
      return { status: response.status, ...await response.json() };
    }, [`${this.url.replace('ws:', 'http:')}/login`, { name, password }]);
    return { ...answer, url: `${this.url}/?token=${answer.token}` };
  }

  /** The arguments by which `pmesh peer` logs in. */
  async login(name) {
    const file = join(this.folder, `${name}.json`);
    await run('pmesh login', binary('pmesh'), ['login', this.url, name, '--password-stdin', '--login', file], `${PASSWORD}\n`);
    return ['--login', file];
  }

  async stop() {
    await this.onramp.stop();
    rmSync(this.folder, { recursive: true, force: true });
  }

  get exit() { return this.onramp.exit; }
  get stopping() { return this.onramp.stopping; }
  get stderr() { return this.onramp.stderr; }
  get name() { return this.onramp.name; }
  describeExit() { return this.onramp.describeExit(); }
}
