// Peers of the original peer-relay: pages in the browser, and relays in node.js.
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { PagePeer } from './browser.mjs';
import { Process } from './process.mjs';

const program = join(dirname(fileURLToPath(import.meta.url)), '../../originals/original.mjs');

/** A page of the original. It joins the relays at these URLs when it starts. */
export class RelayPage extends PagePeer {
  async start(urls) {
    await super.start('/peer-relay');
    this.id = await this.#call('create', urls);
    return this;
  }

  #call(method, ...values) {
    return this.page.evaluate(([name, given]) => window.relay[name](...given), [method, values]);
  }

  connect(to) { return this.#call('connect', to); }
  send(to, data) { return this.#call('send', to, data); }
  disconnect(id) { return this.#call('disconnect', id); }
  table() { return this.#call('table'); }
}

/** An original in node.js, without WebRTC. It joins the relays at these URLs when it starts. */
export async function startOriginalRelay(bootstrap = []) {
  const relay = new Process('original peer-relay', process.execPath, [program]);
  relay.write(JSON.stringify({ do: 'create', name: 'it', port: 0, bootstrap }));
  const event = async (name) => {
    const { line } = await relay.lines.next({ line: (line) => JSON.parse(line).event === name });
    return JSON.parse(line);
  };
  relay.id = (await event('created')).id;
  relay.url = (await event('listening')).url;
  return relay;
}
