// Both dial at once. Original pages end up with two connections, of which their peer list knows the one they dialled
// themselves: that is the one that has to live, because a page relays for others only through nodes on its list.
import assert from 'node:assert/strict';
import { labTest } from './lib/lab.mjs';
import { exchangeAll, meet } from './lib/scenarios.mjs';

/** One open connection, the same on both sides, and the page can relay over it. */
async function oneConnection(page, native, [pageAddress, nativeAddress]) {
  await Promise.all([
    page.seen({ event: 'open', node: nativeAddress }),
    native.seen({ event: 'open', node: pageAddress, kind: 'webrtc' }),
  ]);
  const { n, listed } = await page.onlyOpen(nativeAddress);
  assert.equal(listed, true, "the open connection is the one on the page's list of peers");
  await exchangeAll(page, native, [pageAddress, nativeAddress]);
  assert.equal((await page.onlyOpen(nativeAddress)).n, n);
  const strays = page.events.count(({ event, node, n: at }) => (event === 'message' || event === 'binary') && node === nativeAddress && at !== n);
  assert.equal(strays, 0, 'nothing came by another connection');
  assert.equal((await native.peers()).filter(({ node, open }) => open && node === pageAddress).length, 1);
}

/** P hands candidates and answers of both negotiations to the node on its list, which the browser then rejects. */
const ORIGINAL_GLARE = /page: uncaught in the page: \w+: .*(addIceCandidate|ICE candidate|Called in wrong state: stable)/;

async function tapped(lab) {
  lab.allowPageErrors(ORIGINAL_GLARE);
  const onramp = await lab.onramp();
  const pageTap = await lab.tap(onramp);
  const nativeTap = await lab.tap(onramp);
  const page = await lab.page('page', { onramp: pageTap });
  const native = await lab.native('native', { onramp: nativeTap });
  return { page, native, pageTap, nativeTap, addresses: await meet(page, native) };
}

for (const [what, order] of [["the page's offer", ['pageTap', 'nativeTap']], ["the native peer's offer", ['nativeTap', 'pageTap']]]) {
  labTest(`offers of a page and a native peer cross, ${what} is let go first: one connection`, async (lab) => {
    const { page, native, addresses, ...taps } = await tapped(lab);
    for (const name of order) taps[name].up.hold();
    await page.connect(addresses[1]);
    await native.connect(addresses[0]);
    for (const name of order) await taps[name].frames.seen({ dir: 'up', kind: 'offer' });
    for (const name of order) taps[name].up.release();
    await oneConnection(page, native, addresses);
  });
}

labTest('a page answers a native peer and then dials it all the same, before the answer is through: one connection', async (lab) => {
  const { page, native, pageTap, addresses } = await tapped(lab);
  pageTap.up.hold();
  await native.connect(addresses[0]);
  await pageTap.frames.seen({ dir: 'up', kind: 'answer' });
  await page.connect(addresses[1]);
  await pageTap.frames.seen({ dir: 'up', kind: 'offer' });
  pageTap.up.release();
  await oneConnection(page, native, addresses);
});

labTest('a page dials a native peer it is already connected to: the connection stays as it is', async (lab) => {
  const { page, native, nativeTap, addresses } = await tapped(lab);
  await native.connect(addresses[0]);
  await oneConnection(page, native, addresses);
  await page.connect(addresses[1]);
  await nativeTap.frames.seen({ dir: 'down', kind: 'offer' });
  await oneConnection(page, native, addresses);
});

labTest('page and native peer both dial whom they hear of: one connection', async (lab) => {
  lab.allowPageErrors(ORIGINAL_GLARE);
  const onramp = await lab.onramp();
  const page = await lab.page('page', { onramp, dialAnnounced: true });
  const native = await lab.native('native', { onramp, args: ['--auto-connect'] });
  const addresses = await meet(page, native);
  await oneConnection(page, native, addresses);
});

labTest('two native peers both dial whom they hear of: one connection', async (lab) => {
  const onramp = await lab.onramp();
  const first = await lab.native('first', { onramp, args: ['--auto-connect'] });
  const second = await lab.native('second', { onramp, args: ['--auto-connect'] });
  const addresses = await meet(first, second);
  await Promise.all([
    first.seen({ event: 'open', node: addresses[1], kind: 'webrtc' }),
    second.seen({ event: 'open', node: addresses[0], kind: 'webrtc' }),
  ]);
  await exchangeAll(first, second, addresses);
  for (const [peer, node] of [[first, addresses[1]], [second, addresses[0]]]) {
    assert.equal((await peer.peers()).filter((entry) => entry.open && entry.node === node).length, 1);
  }
});
