// Who introduces whom: native peers relay for pages, pages relay for native peers.
import assert from 'node:assert/strict';
import { labTest } from './lib/lab.mjs';
import { exchangeAll, goTransitive, link, loseIntroducer, meet, stopOnramp, talk } from './lib/scenarios.mjs';

async function trio(lab, kinds) {
  const onramp = await lab.onramp();
  const peers = [];
  for (const [index, kind] of kinds.entries()) peers.push(await lab[kind](`${kind} ${index + 1}`, { onramp }));
  return { onramp, peers, addresses: await meet(...peers) };
}

labTest('a native peer introduces two pages after the onramp has stopped, and then quits', async (lab) => {
  const { onramp, peers, addresses } = await trio(lab, ['page', 'native', 'page']);
  await goTransitive(onramp, peers, addresses);
  await loseIntroducer(peers, addresses);
});

labTest('a page introduces a page to a native peer: the page dials', async (lab) => {
  const { onramp, peers, addresses } = await trio(lab, ['page', 'page', 'native']);
  await goTransitive(onramp, peers, addresses);
});

labTest('a page introduces a native peer to a page: the native peer dials', async (lab) => {
  const { onramp, peers, addresses } = await trio(lab, ['native', 'page', 'page']);
  await goTransitive(onramp, peers, addresses);
  await loseIntroducer(peers, addresses);
});

labTest('a native peer introduces a native peer to a page', async (lab) => {
  const { onramp, peers, addresses } = await trio(lab, ['native', 'native', 'page']);
  await goTransitive(onramp, peers, addresses);
});

labTest('a page that is on two onramps introduces the native peer of one to the native peer of the other', async (lab) => {
  const west = await lab.onramp();
  const east = await lab.onramp();
  const page = await lab.page('page', { onramp: west });
  const walter = await lab.native('walter', { onramp: west });
  const edith = await lab.native('edith', { onramp: east });
  const [pageInWest, walterAddress] = await meet(page, walter);
  const [pageInEast, edithAddress] = await meet({ peer: page, url: east.url }, edith);
  await link(walter, page, [walterAddress, pageInWest]);
  await link(edith, page, [edithAddress, pageInEast]);
  await walter.connect(edithAddress, { via: pageInWest, offerData: { from: 'the west' } });
  await Promise.all([
    edith.next({ event: 'connection', node: walterAddress, via: pageInEast }),
    walter.next({ event: 'open', node: edithAddress, kind: 'webrtc' }),
    edith.next({ event: 'open', node: walterAddress, kind: 'webrtc' }),
  ]);
  await exchangeAll(walter, edith, [walterAddress, edithAddress]);
  await page.leave();
  await talk(walter, edith, [walterAddress, edithAddress], 'without the page');
});

labTest('four in a chain: page, native, page, native; the first reaches the last, hop by hop', async (lab) => {
  const onramp = await lab.onramp();
  const peers = [await lab.page('one', { onramp }), await lab.native('two', { onramp }), await lab.page('three', { onramp }), await lab.native('four', { onramp })];
  const addresses = await meet(...peers);
  const between = (i, j) => [addresses[i], addresses[j]];
  for (const i of [0, 1, 2]) await link(peers[i], peers[i + 1], between(i, i + 1));
  await stopOnramp(onramp, ...peers);
  await link(peers[0], peers[2], between(0, 2), { via: addresses[1] });
  await link(peers[0], peers[3], between(0, 3), { via: addresses[2] });
  await talk(peers[0], peers[3], between(0, 3));
});

labTest('a native peer asked to relay to nobody stays up, and so does the link', async (lab) => {
  const onramp = await lab.onramp();
  const page = await lab.page('page', { onramp });
  const native = await lab.native('native', { onramp });
  const addresses = await meet(page, native);
  await link(page, native, addresses);
  for (const to of ['nobody', '__proto__', 'constructor', '']) await page.connect(to, { via: addresses[1] });
  await talk(page, native, addresses);
  assert.deepEqual((await page.onlyOpen(addresses[1])).listed, true);
});
