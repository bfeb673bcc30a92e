// Ends of connections: those that are said, and those that are not.
import assert from 'node:assert/strict';
import { labTest, sideBySide } from './lib/lab.mjs';
import { link, meet, talk } from './lib/scenarios.mjs';

const NOTICES_MS = 60_000;

async function linked(lab, kinds = ['page', 'native']) {
  const onramp = await lab.onramp();
  const peers = [];
  for (const [index, kind] of kinds.entries()) peers.push(await lab[kind](`${kind} ${index + 1}`, { onramp }));
  const addresses = await meet(...peers);
  await link(peers[0], peers[1], addresses);
  await talk(...peers, addresses);
  return { onramp, peers, addresses };
}

/** The native peer tells both: that this node closed, with a reason, and that its parent lost it. */
async function nativeNotices(native, node, timeout) {
  const [{ reason }] = await Promise.all([
    native.next({ event: 'close', node }, timeout),
    native.next({ event: 'disconnection', node, via: native.onramp }, timeout),
  ]);
  assert.equal(typeof reason, 'string');
  assert.deepEqual((await native.peers()).filter((peer) => peer.open && peer.node === node), []);
  assert.equal(native.events.count({ event: 'close', node }), 1, 'it closes once');
}

sideBySide('closing', () => {
  labTest('a page closes: the native peer sees it at once', async (lab) => {
    const { peers: [page, native], addresses } = await linked(lab);
    await page.close(addresses[1]);
    await nativeNotices(native, addresses[0]);
  });

  labTest('a native peer closes: the page gets close, and both can connect anew', async (lab) => {
    const { peers: [page, native], addresses } = await linked(lab);
    await native.close(addresses[0]);
    await page.next({ event: 'close', node: addresses[1] });
    await nativeNotices(native, addresses[0]);
    await link(page, native, addresses);
    await talk(page, native, addresses, 'again');
  });

  labTest('a native peer quits: the page gets close', async (lab) => {
    const { peers: [page, native], addresses } = await linked(lab);
    const { code, killed } = await native.quit();
    assert.deepEqual({ code, killed }, { code: 0, killed: false });
    await page.next({ event: 'close', node: addresses[1] });
  });

  labTest('a native peer is told to end by SIGTERM: the page gets close', async (lab) => {
    const { peers: [page, native], addresses } = await linked(lab);
    const { killed } = await native.process.stop();
    assert.equal(killed, false);
    await page.next({ event: 'close', node: addresses[1] });
  });

  labTest('the tab of a page is closed, which says nothing on the wire: the native peer notices', async (lab) => {
    const { peers: [page, native], addresses } = await linked(lab);
    await page.leave();
    await nativeNotices(native, addresses[0], NOTICES_MS);
  }, { timeout: NOTICES_MS + 30_000 });

  labTest('a page crashes: the native peer notices', async (lab) => {
    const { peers: [page, native], addresses } = await linked(lab);
    await page.crash();
    await nativeNotices(native, addresses[0], NOTICES_MS);
  }, { timeout: NOTICES_MS + 30_000 });

  labTest('a native peer is killed: the other native peer notices', async (lab) => {
    const { peers: [first, second], addresses } = await linked(lab, ['native', 'native']);
    await first.crash();
    await nativeNotices(second, addresses[0], NOTICES_MS);
  }, { timeout: NOTICES_MS + 30_000 });

  labTest('a page leaves and comes back under a new address: the native peer serves it as before', async (lab) => {
    const { onramp, peers: [page, native], addresses } = await linked(lab);
    await page.leave();
    const again = await lab.page('again', { onramp });
    await again.join();
    const { json: newAddress } = await native.next({ event: 'message', node: native.onramp, json: (json) => json !== addresses[0] });
    await link(again, native, [newAddress, addresses[1]]);
    await talk(again, native, [newAddress, addresses[1]]);
  });
});
