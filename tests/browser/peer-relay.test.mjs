// Pages of the original peer-relay meet over WebRTC, signalled through a relay.
import assert from 'node:assert/strict';
import { labTest } from './lib/lab.mjs';

/** Two pages that know each other only through the relay connect, and go on without it. */
async function meet(lab, relay, stopRelay) {
  const alice = await lab.relayPage('alice', [relay.url]);
  await alice.next({ event: 'peer', id: relay.id });
  const bob = await lab.relayPage('bob', [relay.url]);
  await bob.next({ event: 'peer', id: relay.id });
  // Whoever comes asks the relay whom it knows, and connects to them by itself.
  await alice.next({ event: 'peer', id: bob.id });
  await bob.next({ event: 'peer', id: alice.id });
  assert.deepEqual(await alice.table(), { [relay.id]: 'websocket', [bob.id]: 'webrtc' });
  assert.deepEqual(await bob.table(), { [relay.id]: 'websocket', [alice.id]: 'webrtc' });

  await stopRelay();
  await alice.next({ event: 'gone', id: relay.id });
  await bob.next({ event: 'gone', id: relay.id });
  await alice.send(bob.id, { hello: ['ü', 1.5, null] });
  await bob.next({ event: 'message', from: alice.id, data: { hello: ['ü', 1.5, null] } });
  await bob.send(alice.id, 'hello');
  await alice.next({ event: 'message', from: bob.id, data: 'hello' });
}

labTest('original peer-relay pages connect through an original relay, and talk when it is gone', async (lab) => {
  const relay = await lab.originalRelay();
  await meet(lab, relay, () => relay.stop());
});

labTest('original peer-relay pages connect through an overlay of ours, and talk when it is gone', async (lab) => {
  const relay = await lab.native('relay');
  await relay.relay();
  await meet(lab, relay, () => relay.quit());
});

labTest('a page, an original in node.js and an overlay of ours send to each other', async (lab) => {
  const ours = await lab.native('ours');
  await ours.relay();
  const page = await lab.relayPage('page', [ours.url]);
  await page.next({ event: 'peer', id: ours.id });
  await ours.next({ event: 'overlay-peer', id: page.id });
  await page.send(ours.id, { to: ['ours', 'ü'] });
  await ours.next({ event: 'overlay-message', from: page.id, json: { to: ['ours', 'ü'] }, verified: false });
  await ours.overlaySend(page.id, 'to the page');
  await page.next({ event: 'message', from: ours.id, data: 'to the page' });

  // A second one of ours behind the first, and an original without WebRTC behind that.
  const behind = await lab.native('behind', { args: ['--bootstrap', ours.url] });
  await behind.relay();
  await behind.next({ event: 'overlay-peer', id: ours.id });
  await behind.overlaySend(page.id, [1, null]);
  await page.next({ event: 'message', from: behind.id, data: [1, null] });
  await page.send(behind.id, [2]);
  await behind.next({ event: 'overlay-message', from: page.id, json: [2], verified: false });
  const original = await lab.originalRelay([behind.url]);
  await behind.next({ event: 'overlay-peer', id: original.id });
  await page.send(original.id, 'from a page to node.js');
  await original.lines.next({ line: (line) => {
    const { event, from, data } = JSON.parse(line);
    return event === 'message' && from === page.id && data === 'from a page to node.js';
  } });
});
