// Offers that are refused. The original says nothing when it refuses, so the dialling side has to give up by itself.
import assert from 'node:assert/strict';
import { labTest, sideBySide } from './lib/lab.mjs';
import { link, meet, talk } from './lib/scenarios.mjs';

const GIVES_UP_MS = 75_000;

sideBySide('firewalls', () => {
  labTest("a page's firewall refuses a native peer, whose connect then fails by itself", async (lab) => {
    const onramp = await lab.onramp();
    const page = await lab.page('page', { onramp, requireOfferData: 'secret' });
    const native = await lab.native('native', { onramp });
    const [pageAddress] = await meet(page, native);
    await native.connect(pageAddress, { offerData: 'wrong' });
    assert.deepEqual(await page.next({ event: 'offer' }), { event: 'offer', offerData: 'wrong', accepted: false });
    await native.next(({ event, node }) => (event === 'error' || event === 'close') && node === pageAddress, GIVES_UP_MS);
    assert.equal(native.events.count({ event: 'open', node: pageAddress }), 0);
    assert.equal(page.events.count({ event: 'connection' }), 0);
    assert.deepEqual((await native.peers()).filter(({ node, open }) => open && node === pageAddress), []);
  }, { timeout: GIVES_UP_MS + 15_000 });

  labTest("a page's firewall lets a native peer in that has the right offer data", async (lab) => {
    const onramp = await lab.onramp();
    const page = await lab.page('page', { onramp, requireOfferData: ['secret', { n: 1 }] });
    const native = await lab.native('native', { onramp });
    const addresses = await meet(page, native);
    await link(native, page, [...addresses].reverse(), { offerData: ['secret', { n: 1 }] });
    await talk(page, native, addresses);
  });

  for (const [what, offerData] of [['wrong', 'guess'], ['no', undefined]]) {
    labTest(`a native peer that demands offer data never answers a page with ${what} data, and goes on serving others`, async (lab) => {
      const onramp = await lab.onramp();
      const tap = await lab.tap(onramp);
      const nativeTap = await lab.tap(onramp);
      const refused = await lab.page('refused', { onramp: tap });
      const native = await lab.native('native', { onramp: nativeTap, args: ['--require-offer-data', '"secret"'] });
      const accepted = await lab.page('accepted', { onramp });
      const [refusedAddress, nativeAddress, acceptedAddress] = await meet(refused, native, accepted);
      await refused.connect(nativeAddress, { offerData });
      // The refused offer is at the native peer before the other page dials: what that one gets, this one could have had.
      await nativeTap.frames.seen({ dir: 'down', kind: 'offer' });
      await link(accepted, native, [acceptedAddress, nativeAddress], { offerData: 'secret' });
      await talk(accepted, native, [acceptedAddress, nativeAddress]);
      assert.equal(refused.events.count({ event: 'open', node: nativeAddress }), 0);
      assert.equal(tap.frames.count({ dir: 'down', kind: 'answer' }), 0);
      assert.equal(native.events.count({ event: 'open', node: refusedAddress }), 0);
      assert.equal(native.events.count({ event: 'connection', node: refusedAddress }), 0);
    });
  }
});
