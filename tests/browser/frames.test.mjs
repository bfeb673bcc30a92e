// What a native peer says on the wire, as the original has to understand it.
import assert from 'node:assert/strict';
import { labTest } from './lib/lab.mjs';
import { link, meet, talk } from './lib/scenarios.mjs';

/** The frames of one side, checked for what the original needs. */
function checkFrames(frames, dialled) {
  const own = frames.filter(({ dir }) => dir === 'up');
  const kinds = own.map(({ kind }) => kind);
  assert.equal(kinds[0], dialled ? 'offer' : 'answer', 'the description comes first: P cannot hold early candidates');
  assert.equal(kinds.filter((kind) => kind === 'offer' || kind === 'answer').length, 1);
  assert.ok(kinds.slice(1).every((kind) => kind === 'candidate'), `only candidates follow: ${kinds}`);
  const [type, , [, description]] = own[0].json;
  assert.equal(type, 6);
  assert.equal(description.type, dialled ? 'offer' : 'answer');
  assert.match(description.sdp, dialled ? /\r\na=setup:actpass\r\n/ : /\r\na=setup:(active|passive)\r\n/);
  assert.match(description.sdp, /\r\na=max-message-size:\d+\r\n/);
  for (const { json: [, , [, candidate]] } of own.slice(1)) {
    assert.match(candidate.candidate, /^candidate:/, 'no null or empty candidate');
    assert.ok('sdpMid' in candidate || 'sdpMLineIndex' in candidate);
    assert.ok(Object.keys(candidate).every((key) => ['candidate', 'sdpMid', 'sdpMLineIndex', 'usernameFragment'].includes(key)), `${Object.keys(candidate)}`);
  }
}

for (const nativeDials of [true, false]) {
  labTest(`a native peer that ${nativeDials ? 'dials' : 'answers'} sends frames that the original can read`, async (lab) => {
    const onramp = await lab.onramp();
    const tap = await lab.tap(onramp);
    const page = await lab.page('page', { onramp });
    const native = await lab.native('native', { onramp: tap });
    const addresses = await meet(page, native);
    if (nativeDials) await link(native, page, [...addresses].reverse());
    else await link(page, native, addresses);
    await talk(page, native, addresses);
    checkFrames(tap.frames.all, nativeDials);
  });
}
