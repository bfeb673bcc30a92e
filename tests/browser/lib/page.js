// Runs inside the page, after the original p.js. It drives P as an application would and reports P's events in the
// shape that `pmesh peer --json` uses, so that pages and native peers can stand in for each other in a test.
(function () {
  'use strict';
  const nodes = []; // every node P ever showed: { n, node, kind, via }
  const waiting = [];
  let telling = false;
  async function tell() { // one call at a time: what happens meanwhile goes with the next
    telling = true;
    while (waiting.length > 0) await window.pmeshReport(waiting.splice(0));
    telling = false;
  }
  function report(event) {
    waiting.push(event);
    if (!telling) tell();
  }
  const settings = { requireOfferData: undefined, dialAnnounced: false };

  function toBase64(buffer) {
    const bytes = new Uint8Array(buffer);
    let text = '';
    for (let i = 0; i < bytes.length; i += 0x8000) text += String.fromCharCode(...bytes.subarray(i, i + 0x8000));
    return btoa(text);
  }

  function fromBase64(text) {
    return Uint8Array.from(atob(text), (char) => char.charCodeAt(0)).buffer;
  }

  const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

  const root = P.create({
    firewall(description, offerData) { // the README says (offerData); this is what P really passes
      const accepted = settings.requireOfferData === undefined || same(settings.requireOfferData, offerData);
      report({ event: 'offer', offerData, accepted });
      return accepted;
    },
  });

  function watch(node, kind, via) {
    const known = nodes.find((entry) => entry.node === node);
    if (known) return known;
    const entry = { n: nodes.length, node, kind, via: via ? via.node.address : null };
    nodes.push(entry);
    const say = (event, more) => report({ event, node: node.address, n: entry.n, ...more });
    node.on('open', () => say('open', { kind }));
    node.on('close', () => say('close', { reason: 'close event' }));
    node.on('error', (error) => say('error', { message: String((error && (error.message || error.error || error.type)) || error) }));
    node.on('message', (json) => {
      say('message', { json });
      if (kind === 'websocket' && settings.dialAnnounced && typeof json === 'string') node.connect(json);
    });
    node.on('arraybuffer', (buffer) => say('binary', { base64: toBase64(buffer) }));
    node.on('connection', (peer) => {
      const made = watch(peer, 'webrtc', entry);
      report({ event: 'connection', node: peer.address, n: made.n, via: node.address });
    });
    node.on('disconnection', (peer) => report({ event: 'disconnection', node: peer.address, via: node.address }));
    return entry;
  }

  /** The node of this address: an open one where there is one, else the latest. `n` picks one by its number. */
  function find({ to, n }) {
    const candidates = nodes.filter((entry) => (n === undefined ? entry.node.address === to : entry.n === n));
    const entry = candidates.find(({ node }) => node.isOpen()) || candidates[candidates.length - 1];
    if (!entry) throw new Error(`no node ${n === undefined ? to : n}`);
    return entry;
  }

  // What a page can do to what it relays. P sends relayed frames as [7, source, payload]; 3 is an offer, 4 an answer.
  const ext = (payload) => payload[payload[0] === 3 ? 3 : 2];
  const deeds = {
    swapFingerprint(payload) {
      payload[1].sdp = payload[1].sdp.replace(/(a=fingerprint:sha-256 )\S+/g, `$1${Array(32).fill('AB').join(':')}`);
    },
    swapKey(payload, key) { ext(payload).identity.key = key; },
    swapBoth(payload, key) { deeds.swapFingerprint(payload); deeds.swapKey(payload, key); },
    alterWindow(payload) { ext(payload).window[0] += 1; },
    strip(payload) { payload.length = payload[0] === 3 ? 3 : 2; },
  };

  const { send } = RTCDataChannel.prototype;

  window.pmesh = {
    /** From now on the page does this to what it relays between others: to offers (3), answers (4) or both. */
    misbehave({ deed, parts, key }) {
      RTCDataChannel.prototype.send = function misbehaving(data) {
        const frame = typeof data === 'string' && data.startsWith('[7,') ? JSON.parse(data) : undefined;
        if (frame && parts.includes(frame[2][0])) {
          deeds[deed](frame[2], key);
          report({ event: 'misbehaved', deed });
          return send.call(this, JSON.stringify(frame));
        }
        return send.call(this, data);
      };
    },
    settings(values) { Object.assign(settings, values); },
    join(url) { return watch(root.connect(url), 'websocket').n; },
    connect({ to, via, offerData }) {
      const parent = find({ to: via });
      return watch(parent.node.connect(offerData === undefined ? to : { address: to, offerData }), 'webrtc', parent).n;
    },
    send({ to, n, json, base64, lone }) {
      const { node } = find({ to, n });
      if (lone) node.send(String.fromCharCode(lone)); // half of a surrogate pair cannot travel from the test to here
      else node.send(base64 === undefined ? json : fromBase64(base64));
    },
    count({ to, from, upto }) { for (let i = from; i < upto; i++) find({ to }).node.send(i); },
    close({ to, n }) { find({ to, n }).node.close(); },
    peers() {
      return nodes.map(({ n, node, kind, via }) =>
        ({ n, node: node.address, kind, via, open: node.isOpen(), listed: root.getPeers().includes(node) }));
    },
    maxMessageSize({ to, n }) { return find({ to, n }).node.rtcConnection.sctp.maxMessageSize; },
  };
})();
