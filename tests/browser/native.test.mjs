// Native peers and original pages, through our onramp.
import assert from 'node:assert/strict';
import { labTest } from './lib/lab.mjs';
import { SIZES, VALUES, bytes, exchangeAll, link, meet, stopOnramp, talk } from './lib/scenarios.mjs';

async function pair(lab, options = {}) {
  const onramp = await lab.onramp();
  const page = await lab.page('page', { onramp, ...options.page });
  const native = await lab.native('native', { onramp, ...options.native });
  return { onramp, page, native, addresses: await meet(page, native) };
}

labTest('a native peer dials a page: offer data arrives, every kind of message both ways, on when the onramp stops', async (lab) => {
  const { onramp, page, native, addresses } = await pair(lab);
  const offerData = { secret: 'ü 🌍', list: [1, null, {}] };
  await link(native, page, [...addresses].reverse(), { offerData });
  assert.deepEqual((await page.next({ event: 'offer' })).offerData, offerData);
  assert.equal(await page.maxMessageSize(addresses[1]) >= 65_536, true);
  await exchangeAll(page, native, addresses);
  await stopOnramp(onramp, page, native);
  await talk(page, native, addresses);
});

labTest('a page dials a native peer: every kind of message both ways, on when the onramp stops', async (lab) => {
  const { onramp, page, native, addresses } = await pair(lab);
  await link(page, native, addresses);
  await exchangeAll(page, native, addresses);
  await stopOnramp(onramp, page, native);
  await talk(page, native, addresses);
});

labTest('a native peer that demands offer data lets a page in that has it', async (lab) => {
  const secret = { secret: 'open sesame', n: [1, 2] };
  const { page, native, addresses } = await pair(lab, { native: { args: ['--require-offer-data', JSON.stringify(secret)] } });
  await link(page, native, addresses, { offerData: secret });
  await talk(page, native, addresses);
});

labTest('a page dials an echoing native peer: messages and array buffers come back', async (lab) => {
  const { page, native, addresses } = await pair(lab, { native: { args: ['--echo'] } });
  await link(page, native, addresses);
  for (const json of VALUES) {
    await page.sendJson(addresses[1], json);
    assert.deepEqual((await page.next({ event: 'message', node: addresses[1] })).json, json);
  }
  const limit = await page.maxMessageSize(addresses[1]);
  for (const size of SIZES.filter((fitting) => fitting <= limit)) {
    await page.sendBinary(addresses[1], bytes(size));
    const { base64 } = await page.next({ event: 'binary', node: addresses[1] });
    assert.ok(Buffer.from(base64, 'base64').equals(bytes(size)), `${size} bytes come back as they were`);
  }
});

labTest('a native peer that dials whom it hears of, and echoes, serves a page that only listens', async (lab) => {
  const onramp = await lab.onramp();
  const page = await lab.page('page', { onramp });
  const native = await lab.native('native', { onramp, args: ['--auto-connect', '--echo'] });
  const [, nativeAddress] = await meet(page, native);
  await page.next({ event: 'open', node: nativeAddress });
  await page.sendJson(nativeAddress, { hello: 'echo' });
  await page.next({ event: 'message', node: nativeAddress, json: { hello: 'echo' } });
  await page.sendBinary(nativeAddress, bytes(5_000));
  const { base64 } = await page.next({ event: 'binary', node: nativeAddress });
  assert.ok(Buffer.from(base64, 'base64').equals(bytes(5_000)));
});

labTest('a native peer dials the pages that are already there, and those that come later', async (lab) => {
  const onramp = await lab.onramp();
  const early = await lab.page('early', { onramp });
  const native = await lab.native('native', { onramp, args: ['--auto-connect'] });
  const late = await lab.page('late', { onramp });
  const [earlyAddress, nativeAddress, lateAddress] = await meet(early, native, late);
  await Promise.all([early, late].map((page) => page.next({ event: 'open', node: nativeAddress })));
  await Promise.all([earlyAddress, lateAddress].map((node) => native.next({ event: 'open', node, kind: 'webrtc' })));
  await talk(early, native, [earlyAddress, nativeAddress]);
  await talk(late, native, [lateAddress, nativeAddress]);
});

labTest('a thousand messages each way at once arrive in order', async (lab) => {
  const { page, native, addresses: [pageAddress, nativeAddress] } = await pair(lab);
  await link(page, native, [pageAddress, nativeAddress]);
  const count = 1_000;
  await Promise.all([page.sendCount(nativeAddress, 0, count), native.sendCount(pageAddress, 0, count)]);
  for (const [peer, node] of [[page, nativeAddress], [native, pageAddress]]) {
    await peer.seen({ event: 'message', node, json: count - 1 });
    const numbers = peer.events.all.filter((event) => event.event === 'message' && event.node === node).map(({ json }) => json);
    assert.deepEqual(numbers, Array.from({ length: count }, (_, i) => i), `${peer.name} got every number once, in order`);
  }
});

labTest('half a surrogate pair from a page, which is no valid Unicode, does not end the link', async (lab) => {
  const { page, native, addresses } = await pair(lab);
  await link(page, native, addresses);
  await page.sendLoneSurrogate(addresses[1]);
  await talk(page, native, addresses);
});

labTest('a native peer answers bad commands with an error and goes on', async (lab) => {
  const { page, native, addresses } = await pair(lab);
  await link(page, native, addresses);
  const bad = ['not json', '{}', '[]', 'null', '{"cmd":"dance"}', '{"cmd":"send","to":"nobody","json":1}',
    `{"cmd":"send","to":"${addresses[0]}","base64":"***"}`, '{"cmd":"connect"}', '{"cmd":"close","node":"nobody"}'];
  for (const line of bad) {
    native.writeLine(line);
    await native.next({ event: 'error', message: (text) => typeof text === 'string' && text.length > 0 });
  }
  await talk(page, native, addresses);
  const { code, killed } = await native.quit();
  assert.deepEqual({ code, killed }, { code: 0, killed: false });
});

labTest('a native peer lists its peers', async (lab) => {
  const { page, native, addresses } = await pair(lab);
  await link(native, page, [...addresses].reverse());
  const peers = await native.peers();
  assert.deepEqual(peers.map(({ node, kind, open }) => ({ node, kind, open })).sort((a, b) => (a.kind < b.kind ? 1 : -1)), [
    { node: native.onramp, kind: 'websocket', open: true },
    { node: addresses[0], kind: 'webrtc', open: true },
  ]);
});
