// One browser, many pages: how it is started, and a peer that is a page of the original P.
import { existsSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';
import { EventLog, WAIT_MS } from './events.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const require = createRequire(import.meta.url);
const original = dirname(require.resolve('internet/package.json'));
const peerRelay = dirname(require.resolve('peer-relay/package.json'));

function executable() {
  const known = [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];
  const found = known.find((path) => path && existsSync(path));
  if (!found) throw new Error('no Chromium found: install the package `chromium`, or set CHROMIUM to its path');
  return found;
}

/** For playwright's `launch` and `launchServer`. Nothing may leave this machine; `*.local` carries mDNS candidates. */
export function launchOptions() {
  return {
    executablePath: executable(),
    headless: true,
    args: [
      '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync',
      '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1, EXCLUDE *.local',
    ],
  };
}

const HEAD = '<!doctype html><meta charset="utf-8"><title>peer</title><link rel="icon" href="data:,">';
const EMPTY = `${HEAD}<script src="/p.js"></script><script src="/page.js"></script>`;
const PEER_RELAY = `${HEAD}<script src="/peer-relay-page.js"></script><script src="/peer-relay.js"></script>`;

/** Serves P, our driver for it, and the original's examples with their fixed onramp address replaced. */
function startFiles() {
  const server = createServer((request, response) => {
    const url = new URL(request.url, 'http://localhost');
    const send = (type, body) => response.writeHead(200, { 'content-type': type }).end(body);
    if (url.pathname === '/') return send('text/html', EMPTY);
    if (url.pathname === '/p.js') return send('text/javascript', readFileSync(join(original, 'dist/p.js')));
    if (url.pathname === '/page.js') return send('text/javascript', readFileSync(join(here, 'page.js')));
    if (url.pathname === '/peer-relay') return send('text/html', PEER_RELAY);
    if (url.pathname === '/peer-relay.js') return send('text/javascript', readFileSync(join(peerRelay, 'bundle.js')));
    if (url.pathname === '/peer-relay-page.js') return send('text/javascript', readFileSync(join(here, 'peer-relay-page.js')));
    const example = /^\/examples\/([\w-]+\/\w+\.html)$/.exec(url.pathname);
    if (example) {
      const html = readFileSync(join(original, 'examples', example[1]), 'utf8');
      return send('text/html', html.replace(/'ws:\/\/' \+ location\.hostname \+ ':\d+\/'/, JSON.stringify(url.searchParams.get('onramp'))));
    }
    return response.writeHead(404).end();
  });
  return new Promise((resolve) => server.listen(0, '127.0.0.1', () => {
    server.unref();
    resolve(`http://127.0.0.1:${server.address().port}`);
  }));
}

let shared;
/** The browser that run.mjs started, or one of this file's own; and the address of the files. */
export function browser() {
  shared ??= (async () => {
    const endpoint = process.env.PMESH_BROWSER_ENDPOINT;
    const [files, opened] = await Promise.all([startFiles(), endpoint ? chromium.connect(endpoint) : chromium.launch(launchOptions())]);
    return { files, opened };
  })();
  return shared;
}

export async function closeBrowser() {
  if (shared) await (await shared).opened.close();
}

export class PagePeer {
  constructor(name, { onramp, requireOfferData, dialAnnounced } = {}) {
    this.name = name;
    this.url = onramp;
    this.settings = { requireOfferData, dialAnnounced };
    this.events = new EventLog(name);
    this.uncaught = [];
  }

  async start(path = '/') {
    const { files, opened } = await browser();
    this.context = await opened.newContext();
    this.page = await this.context.newPage();
    this.page.on('pageerror', (error) => this.uncaught.push(`${error.name}: ${error.message}`));
    this.page.on('console', (message) => this.events.push({ event: 'console', text: message.text() }));
    await this.page.exposeBinding('pmeshReport', (_, events) => events.forEach((event) => this.events.push(event)));
    await this.page.goto(files + path);
    if (path === '/') await this.#call('settings', this.settings);
    return this;
  }

  /** Does this to what the page relays from now on, see page.js. */
  misbehave(how) { return this.#call('misbehave', how); }

  #call(method, argument) {
    return this.page.evaluate(([name, value]) => window.pmesh[name](value), [method, argument]);
  }

  /** Joins an onramp; resolves with the node of the onramp once it is open. */
  async join(url = this.url) {
    const n = await this.#call('join', url);
    await this.events.next({ event: 'open', n });
    this.onramp ??= url;
    return url;
  }

  next(pattern, timeout) { return this.events.next(pattern, timeout); }
  seen(pattern, timeout) { return this.events.seen(pattern, timeout); }

  connect(to, { via = this.onramp, offerData } = {}) { return this.#call('connect', { to, via, offerData }); }
  sendJson(to, json, n) { return this.#call('send', { to, n, json }); }
  sendBinary(to, bytes, n) { return this.#call('send', { to, n, base64: Buffer.from(bytes).toString('base64') }); }
  sendLoneSurrogate(to) { return this.#call('send', { to, lone: 0xd800 }); }
  sendCount(to, from, upto) { return this.#call('count', { to, from, upto }); }
  close(to, n) { return this.#call('close', { to, n }); }
  peers() { return this.#call('peers'); }
  maxMessageSize(to, n) { return this.#call('maxMessageSize', { to, n }); }

  /** Resolves with the one open node of this address, once there is exactly one. */
  async onlyOpen(address) {
    const handle = await this.page.waitForFunction((wanted) => {
      const open = window.pmesh.peers().filter(({ node, open }) => open && node === wanted);
      return open.length === 1 && open[0];
    }, address, { timeout: WAIT_MS });
    return handle.jsonValue();
  }

  /** The page ends as when its user closes the tab. */
  async leave() {
    this.gone = true;
    this.events.end('its page was closed');
    await this.context.close();
  }

  /** The page's process dies: nobody says goodbye. */
  async crash() {
    this.gone = true;
    const crashed = new Promise((resolve) => this.page.once('crash', resolve));
    const session = await this.context.newCDPSession(this.page);
    session.send('Page.crash').catch(() => {});
    await crashed;
    this.events.end('its page crashed');
  }

  /** What must hold at the end of a test. */
  problems() {
    return this.uncaught.map((error) => `${this.name}: uncaught in the page: ${error}`);
  }

  async stop() {
    this.events.end('the test is over');
    await this.context?.close();
  }
}
