// Preloaded into the original onramp, which can listen on port 0 but never says which port it got.
const { Server } = require('node:net');
const listen = Server.prototype.listen;
Server.prototype.listen = function (...args) {
  this.once('listening', () => console.log(`port ${this.address().port}`));
  return listen.apply(this, args);
};
