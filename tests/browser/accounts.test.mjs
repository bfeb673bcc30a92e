// Original pages at our onramp with accounts: they log in by a token, and meet whom they trust.
import assert from 'node:assert/strict';
import { labTest } from './lib/lab.mjs';
import { exchangeAll, link, meet } from './lib/scenarios.mjs';

labTest('a page logs in by a token and meets the native peer of a user that it trusts, and nobody else', async (lab) => {
  const accounts = await lab.accounts('alice', 'bob', 'carol');
  await accounts.trust('alice', 'bob');
  const [page, stranger] = [await lab.page('page'), await lab.page('stranger')];
  const native = await lab.native('native', { onramp: accounts, args: await accounts.login('bob') });
  const carol = await accounts.urlOf(stranger, 'carol');
  assert.ok(carol.status === 200 && carol.expiresIn > 0);
  await stranger.join(carol.url);
  page.url = (await accounts.urlOf(page, 'alice')).url;
  const addresses = await meet(page, native);
  await link(page, native, addresses);
  await exchangeAll(page, native, addresses);
  // Carol is not trusted: she hears of nobody but herself, and reaches nobody whose address she knows.
  await stranger.connect(addresses[1]);
  const other = await lab.page('other');
  await other.join((await accounts.urlOf(other, 'carol')).url);
  const own = [(await other.next({ event: 'message' })).json, (await stranger.next({ event: 'message' })).json];
  await link(stranger, other, own);
  assert.equal(new Set([...own, ...addresses]).size, 4);
  assert.deepEqual([stranger.events.count({ event: 'message' }), native.events.count({ event: 'connection' })], [1, 1]);
  const refused = await accounts.urlOf(stranger, 'alice', 'wrong');
  assert.deepEqual([refused.status, refused.token], [403, undefined]);
});

labTest('a page without a token, or with a wrong one, does not get in', async (lab) => {
  const accounts = await lab.accounts('alice');
  const page = await lab.page('page');
  for (const url of [accounts.url, `${accounts.url}/?token=wrong`]) {
    page.join(url).catch(() => {});
    await page.next({ event: 'error', node: url });
    await page.next({ event: 'close', node: url });
    assert.equal(page.events.count({ event: 'open' }), 0);
  }
});
