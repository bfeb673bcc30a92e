// Native peers prove who they are to each other, though a page of the original introduces them and does what it likes.
import assert from 'node:assert/strict';
import { labTest } from './lib/lab.mjs';
import { link, meet, talk } from './lib/scenarios.mjs';

/** Alice and Bob, each connected to the page and not to each other, and Bob's peer id. */
async function introduced(lab, args = []) {
  const onramp = await lab.onramp();
  const page = await lab.page('page', { onramp });
  const alice = await lab.native('alice', { onramp, args });
  const bob = await lab.native('bob', { onramp });
  const [ofPage, ofAlice, ofBob] = await meet(page, alice, bob);
  if (args.length === 0) await link(alice, page, [ofAlice, ofPage]);
  await link(bob, page, [ofBob, ofPage]);
  return { page, alice, bob, ofPage, ofAlice, ofBob, bobsId: await bob.peerId() };
}

labTest('native peers that a page introduces know who the other is; a page has no identity', async (lab) => {
  const { page, alice, bob, ofPage, ofAlice, ofBob, bobsId } = await introduced(lab);
  await alice.connect(ofBob, { via: ofPage, expect: bobsId });
  const open = await alice.next({ event: 'open', node: ofBob, kind: 'webrtc' });
  assert.equal(open.peerId, bobsId);
  const other = await bob.next({ event: 'open', node: ofAlice, kind: 'webrtc' });
  assert.equal(other.peerId, await alice.peerId());
  const listed = (await alice.peers()).find((peer) => peer.node === ofPage);
  assert.equal(listed.peerId, null);
  await page.leave();
  await talk(alice, bob, [ofAlice, ofBob], 'without the page');
});

/** The peer id of nobody here. */
const MALLORY = '25njqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhkena';

labTest('a page that alters what it relays is found out, whatever it does', async (lab) => {
  const { page, alice, bob, ofPage, ofAlice, ofBob, bobsId } = await introduced(lab);
  for (const part of [3, 4]) {
    for (const deed of ['swapFingerprint', 'swapKey', 'swapBoth', 'alterWindow']) {
      await page.misbehave({ deed, parts: [part], key: MALLORY });
      await alice.connect(ofBob, { via: ofPage });
      await page.next({ event: 'misbehaved', deed });
      const error = await alice.next({ event: 'error', node: ofBob });
      assert.equal(error.reason, 'unverified', `${deed} ${part}`);
      assert.equal((await bob.peers()).some((peer) => peer.node === ofAlice && peer.open), false);
    }
  }
  await page.misbehave({ deed: 'strip', parts: [] });
  await alice.connect(ofBob, { via: ofPage, expect: bobsId });
  await alice.next({ event: 'open', node: ofBob, kind: 'webrtc' });
});

labTest('without the proofs that the page takes away nobody is who is expected', async (lab) => {
  const { page, alice, ofPage, ofBob, bobsId } = await introduced(lab);
  await page.misbehave({ deed: 'strip', parts: [3, 4] });
  await alice.connect(ofBob, { via: ofPage, expect: bobsId });
  await page.next({ event: 'misbehaved' });
  const error = await alice.next({ event: 'error', node: ofBob });
  assert.equal(error.reason, 'unexpectedPeer');
});

labTest('who requires identities does not talk to a page', async (lab) => {
  const { alice, ofPage } = await introduced(lab, ['--require-identity']);
  await alice.connect(ofPage);
  assert.equal((await alice.next({ event: 'error', node: ofPage })).reason, 'noIdentity');
});
