// A proxy in front of an onramp that records every WebSocket message of one client, and can hold them back.
import { createServer, connect } from 'node:net';
import { EventLog } from './events.mjs';

/** Splits a byte stream of WebSocket frames; each is handed on as its raw bytes and its unmasked content. */
class FrameReader {
  #buffer = Buffer.alloc(0);
  #greeted = false;

  constructor(onGreeting, onFrame) {
    this.onGreeting = onGreeting;
    this.onFrame = onFrame;
  }

  push(chunk) {
    this.#buffer = Buffer.concat([this.#buffer, chunk]);
    if (!this.#greeted) {
      const end = this.#buffer.indexOf('\r\n\r\n');
      if (end < 0) return;
      this.#greeted = true;
      this.onGreeting(this.#take(end + 4));
    }
    for (let size = this.#frameSize(); size !== undefined; size = this.#frameSize()) this.#frame(this.#take(size));
  }

  #take(size) {
    const taken = this.#buffer.subarray(0, size);
    this.#buffer = this.#buffer.subarray(size);
    return taken;
  }

  #frameSize() {
    const { header, length } = this.#layout(this.#buffer);
    return header !== undefined && this.#buffer.length >= header + length ? header + length : undefined;
  }

  #layout(bytes) {
    if (bytes.length < 2) return {};
    const short = bytes[1] & 0x7f;
    const mask = bytes[1] & 0x80 ? 4 : 0;
    const extended = short === 126 ? 2 : short === 127 ? 8 : 0;
    const header = 2 + extended + mask;
    if (bytes.length < header) return {};
    const length = extended === 0 ? short : extended === 2 ? bytes.readUInt16BE(2) : Number(bytes.readBigUInt64BE(2));
    return { header, length, mask: mask ? bytes.subarray(header - 4, header) : undefined };
  }

  #frame(raw) {
    const { header, mask } = this.#layout(raw);
    const content = Buffer.from(raw.subarray(header));
    if (mask) for (let i = 0; i < content.length; i++) content[i] ^= mask[i & 3];
    this.onFrame(raw, { opcode: raw[0] & 0x0f, final: (raw[0] & 0x80) !== 0, content });
  }
}

const CONTINUATION = 0;
const TEXT = 1;
const BINARY = 2;

/** What a `p` frame is about, in words: `offer`, `answer`, `candidate`, `message`, or `other`. */
function kindOf(json) {
  if (!Array.isArray(json)) return 'other';
  if (json[0] === 0) return 'message';
  if ((json[0] === 6 || json[0] === 7) && Array.isArray(json[2])) return { 3: 'offer', 4: 'answer', 5: 'candidate' }[json[2][0]] ?? 'other';
  return 'other';
}

class Direction {
  #queue = [];
  #held = false;
  #parts = [];
  #opcode = 0;

  constructor(name, log) {
    this.name = name;
    this.log = log;
    this.write = () => {};
  }

  reader() {
    return new FrameReader((bytes) => this.#forward(bytes), (raw, frame) => {
      this.#record(frame);
      this.#forward(raw);
    });
  }

  /** From now on frames are recorded, but stay here until they are released. */
  hold() {
    this.#held = true;
  }

  release() {
    this.#held = false;
    for (const bytes of this.#queue.splice(0)) this.write(bytes);
  }

  #forward(bytes) {
    if (this.#held) this.#queue.push(bytes);
    else this.write(bytes);
  }

  #record({ opcode, final, content }) {
    if (opcode === TEXT || opcode === BINARY) {
      this.#opcode = opcode;
      this.#parts = [];
    } else if (opcode !== CONTINUATION) return;
    this.#parts.push(content);
    if (!final) return;
    const whole = Buffer.concat(this.#parts);
    if (this.#opcode === BINARY) return this.log.push({ dir: this.name, kind: 'binary', content: whole });
    let json;
    try {
      json = JSON.parse(whole.toString());
    } catch { /* recorded as `other` */ }
    this.log.push({ dir: this.name, kind: kindOf(json), json, text: whole.toString(), at: performance.now() });
  }
}

export class Tap {
  static async start(target) {
    const tap = new Tap();
    const { hostname, port } = new URL(target);
    tap.server = createServer((client) => tap.#accept(client, connect(Number(port), hostname)));
    await new Promise((resolve) => tap.server.listen(0, '127.0.0.1', resolve));
    tap.url = `ws://127.0.0.1:${tap.server.address().port}`;
    return tap;
  }

  constructor() {
    this.frames = new EventLog('tap');
    this.up = new Direction('up', this.frames); // client to onramp
    this.down = new Direction('down', this.frames); // onramp to client
    this.sockets = new Set();
  }

  #accept(client, server) {
    this.#pipe(client, server, this.up);
    this.#pipe(server, client, this.down);
  }

  #pipe(from, to, direction) {
    this.sockets.add(from);
    const reader = direction.reader();
    direction.write = (bytes) => to.write(bytes);
    from.setNoDelay(true);
    from.on('data', (chunk) => reader.push(chunk));
    from.on('end', () => to.end());
    from.on('error', () => to.destroy());
    from.on('close', () => {
      this.sockets.delete(from);
      to.destroy();
    });
  }

  async stop() {
    for (const socket of this.sockets) socket.destroy();
    await new Promise((resolve) => this.server.close(resolve));
  }
}
