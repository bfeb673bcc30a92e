// Things that peers do, whatever they are made of.
import assert from 'node:assert/strict';

const isAddress = (value) => typeof value === 'string';

/**
 * Peers join their onramp one after the other; resolves with their addresses, as its announcements tell them.
 * A member is a peer, or `{ peer, url }` for a peer that joins a further onramp.
 */
export async function meet(...members) {
  const joined = members.map((member) => (member.peer ? member : { peer: member, url: member.url }));
  const nodes = [];
  const addresses = [];
  for (const [index, { peer, url }] of joined.entries()) {
    nodes.push(await peer.join(url));
    if (index === 0) continue;
    const announced = (i) => joined[i].peer.next({ event: 'message', node: nodes[i], json: isAddress });
    addresses[index] = (await announced(0)).json;
    if (index === 1) addresses[0] = (await announced(1)).json;
  }
  assert.equal(new Set(addresses).size, members.length);
  return addresses;
}

/** `a` dials `b`; resolves when both ends are open. */
export async function link(a, b, [addressA, addressB], options = {}) {
  await a.connect(addressB, options);
  await Promise.all([
    a.next({ event: 'connection', node: addressB }),
    b.next({ event: 'connection', node: addressA }),
    a.next({ event: 'open', node: addressB, kind: 'webrtc' }),
    b.next({ event: 'open', node: addressA, kind: 'webrtc' }),
  ]);
}

export const VALUES = [
  'hello', '', 'Grüße, 世界, 🌍, \u0000\u2028"\\', null, true, false, 0, -1, 1.5, 1e21, 9007199254740991, [], {}, [null, [[]], {}],
  { nested: { list: [1, 'two', null, { three: [true] }], '': 'empty key', __proto: 'name' }, '🌍': 'key' },
  'x'.repeat(50_000),
];
export const SIZES = [0, 1, 16_384, 65_536, 262_144];

export function bytes(size, seed = size) {
  const buffer = Buffer.alloc(size);
  let state = seed + 1;
  for (let i = 0; i < size; i++) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    buffer[i] = state >>> 16;
  }
  return buffer;
}

/** `a` sends every kind of message to `b`, which must get exactly those, in order. */
export async function sendAll(a, b, [addressA, addressB], { sizes = SIZES, values = VALUES } = {}) {
  for (const json of values) await a.sendJson(addressB, json);
  for (const json of values) assert.deepEqual((await b.next({ event: 'message', node: addressA })).json, json);
  const limit = await a.maxMessageSize(addressB);
  const fitting = sizes.filter((size) => size <= limit);
  for (const size of fitting) await a.sendBinary(addressB, bytes(size));
  for (const size of fitting) {
    const got = Buffer.from((await b.next({ event: 'binary', node: addressA })).base64, 'base64');
    assert.ok(got.equals(bytes(size)), `${size} bytes from ${a.name} to ${b.name} arrived as ${got.length} bytes, or changed`);
  }
}

export async function exchangeAll(a, b, addresses, options) {
  await sendAll(a, b, addresses, options);
  await sendAll(b, a, [...addresses].reverse(), options);
}

/** One short message each way. */
export async function talk(a, b, [addressA, addressB], words = 'still here?') {
  await a.sendJson(addressB, { from: a.name, words });
  await b.next({ event: 'message', node: addressA, json: { from: a.name, words } });
  await b.sendJson(addressA, { from: b.name, words });
  await a.next({ event: 'message', node: addressB, json: { from: b.name, words } });
}

/** The onramp stops, and each peer has noticed. */
export async function stopOnramp(onramp, ...peers) {
  const { killed } = await onramp.stop();
  assert.equal(killed, false, `${onramp.name} did not stop when asked to`);
  await Promise.all(peers.map((peer) => peer.next({ event: 'close', node: peer.onramp })));
}

/**
 * Three peers that have met: `middle` is linked to the other two, then the onramp stops, and `left` dials `right`
 * through `middle`, whose node relays everything. Ends with all three talking.
 */
export async function goTransitive(onramp, [left, middle, right], [leftAddress, middleAddress, rightAddress]) {
  await link(left, middle, [leftAddress, middleAddress]);
  await link(right, middle, [rightAddress, middleAddress]);
  await stopOnramp(onramp, left, middle, right);
  await left.connect(rightAddress, { via: middleAddress });
  await Promise.all([
    left.next({ event: 'connection', node: rightAddress, via: middleAddress }),
    right.next({ event: 'connection', node: leftAddress, via: middleAddress }),
    left.next({ event: 'open', node: rightAddress, kind: 'webrtc' }),
    right.next({ event: 'open', node: leftAddress, kind: 'webrtc' }),
  ]);
  await exchangeAll(left, right, [leftAddress, rightAddress]);
  await talk(left, middle, [leftAddress, middleAddress]);
  await talk(right, middle, [rightAddress, middleAddress]);
}

/** The middle one of three goes; the two it introduced go on talking. */
export async function loseIntroducer([left, middle, right], [leftAddress, , rightAddress]) {
  if (middle.leave) await middle.leave();
  else await middle.quit();
  await talk(left, right, [leftAddress, rightAddress], 'without an introducer');
}
