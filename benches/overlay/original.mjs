// A peer of the original peer-relay, driven as `peer.rs` is: commands as JSON lines, answers likewise. It listens on 127.0.0.1 only,
// and makes no connections of its own accord, so that the peers stay in a line. Its router is as it was published.
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { Server } from 'node:net';

const require = createRequire(new URL('../../tests/browser/package.json', import.meta.url));
process.removeAllListeners('warning'); // about `new Buffer`
const PeerRelay = require('peer-relay');

const { listen } = Server.prototype;
Server.prototype.listen = function (port, _host, ...rest) { return listen.call(this, port, '127.0.0.1', ...rest); };

const SILENCE = 1000;
const say = (event) => process.stdout.write(`${JSON.stringify(event)}\n`);
const padded = (text, size) => text.padEnd(size - 2, 'x');

let client;
let onAck;
let onPong;
const count = { flood: '', received: 0, last: 0 };

function onMessage(text, from) {
  const ack = () => client.send(from, `a${count.flood},${count.received},${count.last}`);
  switch (text[0]) {
    case 'f': {
      const [flood, number] = text.slice(1).split(',');
      if (flood !== count.flood) Object.assign(count, { flood, received: 0, last: 0 });
      count.received += 1;
      count.last = Math.max(count.last, Number(number));
      if (count.received % 100 === 0) ack();
      break;
    }
    case 'e': ack(); break;
    case 'p': client.send(from, `q${text.slice(1)}`); break;
    case 'a': onAck?.(...text.slice(1).split(',')); break;
    case 'q': onPong?.(); break;
  }
}

function start(bootstrap) {
  client = new PeerRelay({ port: 0, bootstrap });
  client.connect = () => {};
  client.on('message', onMessage);
  client.wsConnector._wss.on('listening', () => {
    say({ event: 'started', id: client.id.toString('hex'), url: client.wsConnector.url.replace('localhost', '127.0.0.1') });
  });
}

async function neighbour(id) {
  while (!client.peers.get(Buffer.from(id, 'hex'))) await new Promise((resolve) => client.once('peer', resolve));
  say({ event: 'neighbour' });
}

/** At most `window` messages are on their way. */
function flood({ to, flood: name, warm, count: total, size, window }) {
  let [sent, base, counted, begin] = [0, 0, 0, undefined];
  let timer;
  const ask = () => { client.send(to, `e${name}`); base = sent; timer = setTimeout(ask, SILENCE); };
  const push = () => {
    while (sent < warm + total && sent - base < window) client.send(to, padded(`f${name},${++sent},`, size));
    clearTimeout(timer);
    timer = sent === warm + total ? setTimeout(ask, 100) : setTimeout(ask, SILENCE);
  };
  let asked = 0;
  onAck = (of, received, last) => {
    if (of !== String(name)) return;
    base = Math.max(base, Number(last));
    if (begin === undefined && Number(received) >= warm) [begin, counted] = [process.hrtime.bigint(), Number(received)];
    asked += sent === warm + total && base === sent ? 1 : 0;
    if (Number(received) === warm + total || asked > 1) {
      clearTimeout(timer);
      onAck = undefined;
      const seconds = Number(process.hrtime.bigint() - begin) / 1e9;
      return say({ event: 'flooded', sent, received: Number(received), counted: Number(received) - counted, seconds });
    }
    push();
  };
  push();
}

async function ping({ to, count: total, size }) {
  const times = [];
  for (let turn = 0; turn < total; turn += 1) {
    const begin = process.hrtime.bigint();
    const pong = new Promise((resolve) => { onPong = resolve; });
    client.send(to, padded(`p${turn},`, size));
    await pong;
    times.push(Number(process.hrtime.bigint() - begin) / 1e3);
  }
  say({ event: 'pinged', micros: times });
}

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  if (command.to) command.to = Buffer.from(command.to, 'hex');
  switch (command.do) {
    case 'start': start(command.bootstrap); break;
    case 'neighbour': neighbour(command.id); break;
    case 'flood': flood(command); break;
    case 'ping': ping(command); break;
    case 'tidy': global.gc(); say({ event: 'tidied' }); break;
    default: throw new Error(`unknown command ${line}`);
  }
}
process.exit(0);
