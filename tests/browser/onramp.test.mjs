// Original pages through our onramp.
import assert from 'node:assert/strict';
import { labTest } from './lib/lab.mjs';
import { exchangeAll, goTransitive, link, loseIntroducer, meet, stopOnramp, talk } from './lib/scenarios.mjs';

labTest('original pages, our onramp: two exchange strings, JSON and array buffers, and go on when it stops', async (lab) => {
  const onramp = await lab.onramp();
  const alice = await lab.page('alice', { onramp });
  const bob = await lab.page('bob', { onramp });
  const addresses = await meet(alice, bob);
  await link(alice, bob, addresses, { offerData: { secret: [1, null, 'ü'] } });
  assert.deepEqual((await bob.next({ event: 'offer' })).offerData, { secret: [1, null, 'ü'] });
  await exchangeAll(alice, bob, addresses);
  await stopOnramp(onramp, alice, bob);
  await talk(alice, bob, addresses);
});

labTest('original pages, our onramp: a third introduces two, after the onramp has stopped, and then leaves', async (lab) => {
  const onramp = await lab.onramp();
  const pages = [await lab.page('alice', { onramp }), await lab.page('bob', { onramp }), await lab.page('carol', { onramp })];
  const addresses = await meet(...pages);
  await goTransitive(onramp, pages, addresses);
  await loseIntroducer(pages, addresses);
});

labTest('our onramp announces as the original does: the newcomer hears of all, oldest first, and each hears of it', async (lab) => {
  const transcript = async (onramp) => {
    const heard = [];
    for (const name of ['first', 'second', 'third']) {
      const tap = await lab.tap(onramp);
      const page = await lab.page(name, { onramp: tap });
      await page.join();
      await Promise.all([...heard, tap.frames].map((frames) => heard.length > 0 && frames.seen(() => frames.all.length === heard.length)));
      heard.push(tap.frames);
    }
    const frames = heard.map(({ all }) => all.map(({ dir, json }) => [dir, ...json]));
    const addresses = [frames[1][0][2], frames[0][0][2], frames[0][1][2]];
    assert.equal(new Set(addresses).size, 3);
    for (const address of addresses) assert.match(address, /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    return frames.map((list) => list.map(([dir, type, address]) => [dir, type, addresses.indexOf(address)]));
  };
  const original = await transcript(await lab.originalOnramp());
  assert.deepEqual(original, [[['down', 0, 1], ['down', 0, 2]], [['down', 0, 0], ['down', 0, 2]], [['down', 0, 0], ['down', 0, 1]]]);
  assert.deepEqual(await transcript(await lab.onramp()), original);
});

labTest("the original's own example pages ping and pong meet through our onramp", async (lab) => {
  const onramp = await lab.onramp();
  const pong = await lab.example('pong', 'ping-pong/pong.html', onramp);
  await pong.next({ event: 'console', text: (text) => text.startsWith('connecting to onramp') });
  const ping = await lab.example('ping', 'ping-pong/ping.html', onramp);
  await pong.next({ event: 'console', text: (text) => text.endsWith(' --> ping?') });
  await pong.next({ event: 'console', text: (text) => text.endsWith(' <-- pong!') });
  await ping.next({ event: 'console', text: (text) => text.includes('connected to peer at') });
});
