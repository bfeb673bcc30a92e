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
