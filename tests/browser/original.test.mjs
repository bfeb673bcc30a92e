// The harness itself, with nothing of ours in it: original pages through the original onramp.
import assert from 'node:assert/strict';
import { labTest } from './lib/lab.mjs';
import { exchangeAll, goTransitive, link, meet } from './lib/scenarios.mjs';

labTest('original pages, original onramp: two exchange strings, JSON and array buffers', async (lab) => {
  const onramp = await lab.originalOnramp();
  const tap = await lab.tap(onramp);
  const alice = await lab.page('alice', { onramp: tap });
  const bob = await lab.page('bob', { onramp });
  const addresses = await meet(alice, bob);
  await link(alice, bob, addresses);
  await exchangeAll(alice, bob, addresses);
  const candidate = await tap.frames.seen({ dir: 'up', kind: 'candidate' });
  assert.match(candidate.json[2][1].candidate, /\.local /, 'the browser hides its addresses behind mDNS names');
});

labTest('original pages, original onramp: a third introduces two, after the onramp has stopped', async (lab) => {
  const onramp = await lab.originalOnramp();
  const pages = [await lab.page('alice', { onramp }), await lab.page('bob', { onramp }), await lab.page('carol', { onramp })];
  await goTransitive(onramp, pages, await meet(...pages));
});
