// What a test works with: onramps, pages, native peers and taps that are all gone when it ends.
import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { Accounts } from './accounts.mjs';
import { PagePeer, closeBrowser } from './browser.mjs';
import { NativePeer } from './native.mjs';
import { startOnramp, startOriginalOnramp } from './onramps.mjs';
import { RelayPage, startOriginalRelay } from './peer-relay.mjs';
import { Tap } from './tap.mjs';

/** P sends a late candidate through its signalling channel even when that is closed by now, and throws. */
const LATE_CANDIDATE = /Can't send a message while (WebSocket|RTCDataChannel) is closing or closed/;

export class Lab {
  #parts = [];
  #peers = [];
  #allowed = [LATE_CANDIDATE];

  #keep(part) {
    this.#parts.push(part);
    return part;
  }

  async originalOnramp() { return this.#keep(await startOriginalOnramp()); }
  async originalRelay(bootstrap) { return this.#keep(await startOriginalRelay(bootstrap)); }
  async onramp(...args) { return this.#keep(await startOnramp(args)); }
  async accounts(...names) { return this.#keep(await Accounts.start(names)); }
  async tap(onramp) { return this.#keep(await Tap.start(onramp.url)); }

  async #peer(peer, ...how) {
    this.#peers.push(this.#keep(peer));
    return peer.start(...how);
  }

  /** A page of the original P. `onramp` is an onramp or a tap. */
  page(name, { onramp, ...rest } = {}) { return this.#peer(new PagePeer(name, { onramp: onramp?.url, ...rest })); }
  /** One of the original's example pages. */
  example(name, path, onramp) {
    return this.#peer(new PagePeer(name), `/examples/${path}?onramp=${encodeURIComponent(onramp.url)}`);
  }

  /** A page of the original peer-relay that joins the relays at these URLs. */
  relayPage(name, urls) { return this.#peer(new RelayPage(name), urls); }

  /** A `pmesh peer`; it starts when it joins. */
  native(name, { onramp, args } = {}) { return this.#peer(new NativePeer(name, { onramp: onramp?.url, args })); }

  /** Uncaught page errors that the original is known to raise in this situation. */
  allowPageErrors(pattern) { this.#allowed.push(pattern); }

  /** What went wrong unseen: uncaught page errors, panics, processes that ended, lines that are no events. */
  verify() {
    const problems = this.#peers.flatMap((peer) => peer.problems())
      .filter((problem) => !this.#allowed.some((pattern) => pattern.test(problem)));
    for (const part of this.#parts) {
      if (part.exit && !part.stopping) problems.push(`${part.name} ${part.describeExit()}`);
      if (part.stderr?.includes('panicked at')) problems.push(`${part.name} panicked: ${part.stderr}`);
    }
    assert.deepEqual(problems, []);
  }

  async close() {
    const results = await Promise.allSettled(this.#parts.reverse().map((part) => part.stop()));
    for (const result of results) if (result.status === 'rejected') throw result.reason;
  }
}

/** A test with a lab of its own. */
export function labTest(name, body, { timeout = 90_000 } = {}) {
  test(name, { timeout }, async (t) => {
    const lab = new Lab();
    t.after(() => lab.close());
    await body(lab, t);
    lab.verify();
  });
}

/** Tests that mostly wait, and therefore run side by side. */
export function sideBySide(name, body) {
  describe(name, { concurrency: 4 }, body);
}

after(closeBrowser);
