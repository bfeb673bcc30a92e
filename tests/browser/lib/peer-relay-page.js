// Runs inside a page, before the bundle of the original peer-relay, which is of 2016: makes the browser as it was then. Later
// `window.relay` drives a peer as an application would, and reports its events.
(function () {
  'use strict';
  const Connection = window.RTCPeerConnection;

  /** The bundle has a public STUN server built in, and asks for statistics in a way that browsers have given up. */
  class Then extends Connection {
    constructor(configuration, ...rest) { super({ ...configuration, iceServers: [] }, ...rest); }
    getStats(callback) { return typeof callback === 'function' ? callback({ result: () => [] }) : super.getStats(callback); }
  }
  window.RTCPeerConnection = window.webkitRTCPeerConnection = Then;

  let peer;
  const hex = (id) => id.toString('hex');
  const report = (event) => window.pmeshReport([event]);

  window.relay = {
    create(bootstrap) {
      peer = new window.PeerRelay({ bootstrap });
      peer.on('peer', (id) => report({ event: 'peer', id: hex(id) }));
      peer.on('message', (data, from) => report({ event: 'message', from: hex(from), data }));
      peer.peers.on('removed', ({ id }) => report({ event: 'gone', id: hex(id) }));
      return hex(peer.id);
    },
    /** The ids of others are made by the bundle's own Buffer. */
    id(text) {
      const Buffer = peer.id.constructor;
      return Buffer.from ? Buffer.from(text, 'hex') : new Buffer(text, 'hex');
    },
    connect(to) { peer.connect(this.id(to)); },
    send(to, data) { peer.send(this.id(to), data); },
    disconnect(id) { peer.disconnect(this.id(id)); },
    /** Each neighbour and what the connection to it is. */
    table() {
      return Object.fromEntries(peer.peers.toArray().map((channel) => [hex(channel.id), channel.ws ? 'websocket' : 'webrtc']));
    },
  };
}());
