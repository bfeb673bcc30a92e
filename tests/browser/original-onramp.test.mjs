// Native peers through the original onramp.
import { labTest } from './lib/lab.mjs';
import { exchangeAll, goTransitive, link, loseIntroducer, meet, stopOnramp, talk } from './lib/scenarios.mjs';

labTest('native peers, original onramp: two exchange every kind of message, and go on when it stops', async (lab) => {
  const onramp = await lab.originalOnramp();
  const anna = await lab.native('anna', { onramp, args: ['--loopback'] });
  const bert = await lab.native('bert', { onramp, args: ['--loopback'] });
  const addresses = await meet(anna, bert);
  await link(anna, bert, addresses);
  await exchangeAll(anna, bert, addresses);
  await stopOnramp(onramp, anna, bert);
  await talk(anna, bert, addresses);
});

labTest('native peers, original onramp: a third introduces two, after it has stopped, and then quits', async (lab) => {
  const onramp = await lab.originalOnramp();
  const peers = [await lab.native('anna', { onramp }), await lab.native('bert', { onramp }), await lab.native('cleo', { onramp })];
  const addresses = await meet(...peers);
  await goTransitive(onramp, peers, addresses);
  await loseIntroducer(peers, addresses);
});

labTest('a native peer and a page meet through the original onramp', async (lab) => {
  const onramp = await lab.originalOnramp();
  const page = await lab.page('page', { onramp });
  const native = await lab.native('native', { onramp });
  const addresses = await meet(page, native);
  await link(native, page, [...addresses].reverse());
  await exchangeAll(page, native, addresses);
});

labTest('native peers that dial whom they hear of find each other through the original onramp', async (lab) => {
  const onramp = await lab.originalOnramp();
  const anna = await lab.native('anna', { onramp, args: ['--auto-connect'] });
  const bert = await lab.native('bert', { onramp, args: ['--auto-connect', '--echo'] });
  const addresses = await meet(anna, bert);
  await anna.next({ event: 'open', node: addresses[1], kind: 'webrtc' });
  await anna.sendJson(addresses[1], 'echo?');
  await anna.next({ event: 'message', node: addresses[1], json: 'echo?' });
});
