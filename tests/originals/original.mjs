// Runs peers of the original peer-relay, driven by JSON lines. It listens on 127.0.0.1 only.
//
//   in   {"do":"create","name":"a","port":0,"bootstrap":["ws://…"],"id":"<hex>"}   port and id may be left out
//        {"do":"send","name":"a","to":"<hex>","data":…}   {"do":"connect","name":"a","to":"<hex>"}   disconnect the same
//        {"do":"dial","name":"a","url":"ws://…"}   {"do":"keepToItself","name":"a"}
//        {"do":"table","name":"a"}   {"do":"destroy","name":"a"}
//   out  {"event":"created","name":"a","id":"<hex>"}   {"event":"listening","name":"a","url":"ws://…"}
//        {"event":"peer","name":"a","id":"<hex>"}   {"event":"gone","name":"a","id":"<hex>"}
//        {"event":"message","name":"a","from":"<hex>","data":…}   {"event":"received","name":"a","from":"<hex>","data":…}
//        {"event":"table","name":"a","peers":[…],"candidates":[…],"pending":n}
//
// An error that the original does not catch ends the process, as it does in a program of its users.
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { Server } from 'node:net';

const require = createRequire(new URL('../browser/package.json', import.meta.url));
const crypto = require('node:crypto');
process.removeAllListeners('warning'); // about `new Buffer`
const PeerRelay = require('peer-relay');

const { listen } = Server.prototype;
Server.prototype.listen = function (port, _host, ...rest) { return listen.call(this, port, '127.0.0.1', ...rest); };

const clients = new Map();
const say = (event) => process.stdout.write(`${JSON.stringify(event)}\n`);
const hex = (id) => id.toString('hex');
const hexes = (bucket) => bucket.toArray().map(({ id }) => hex(id));

/** The original draws its id by `crypto.randomBytes`. */
function withId(id, make) {
  const { randomBytes } = crypto;
  if (id) crypto.randomBytes = () => Buffer.from(id, 'hex');
  try {
    return make();
  } finally {
    crypto.randomBytes = randomBytes;
  }
}

function create({ name, port, bootstrap, id }) {
  const client = withId(id, () => new PeerRelay({ port, bootstrap }));
  clients.set(name, client);
  say({ event: 'created', name, id: hex(client.id) });
  client.wsConnector._wss?.on('listening', () => say({ event: 'listening', name, url: client.wsConnector.url.replace('localhost', '127.0.0.1') }));
  client.on('peer', (peer) => say({ event: 'peer', name, id: hex(peer) }));
  client.peers.on('removed', ({ id: peer }) => say({ event: 'gone', name, id: hex(peer) }));
  client.on('message', (data, from) => say({ event: 'message', name, from: hex(from), data }));
  client.router.on('message', (data, from) => say({ event: 'received', name, from: hex(from), data }));
}

function table(name, client) {
  const pending = Object.keys(client.pending).length;
  say({ event: 'table', name, peers: hexes(client.peers), candidates: hexes(client.canidates), pending });
}

/** As one of which the port is closed. */
function keepToItself(name, client) {
  client.connect = () => {};
  client.wsConnector._wss.close();
  client.wsConnector.url = null;
  say({ event: 'keepsToItself', name });
}

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  const client = clients.get(command.name);
  const to = command.to && Buffer.from(command.to, 'hex');
  switch (command.do) {
    case 'create': create(command); break;
    case 'send': client.send(to, command.data); break;
    case 'connect': client.connect(to); break;
    case 'disconnect': client.disconnect(to); break;
    case 'dial': client.wsConnector.connect(command.url); break;
    case 'keepToItself': keepToItself(command.name, client); break;
    case 'table': table(command.name, client); break;
    case 'destroy': client.destroy(() => say({ event: 'destroyed', name: command.name })); break;
    default: throw new Error(`unknown command ${line}`);
  }
}
process.exit(0);
