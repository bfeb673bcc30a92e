// An event log that can be waited on. Every wait has a deadline and, when it is missed, says what did arrive.
import { isDeepStrictEqual, inspect } from 'node:util';

export const WAIT_MS = 20_000;

/** True when `event` has every key of `pattern`; a function as value is a predicate of that key. */
function matches(event, pattern) {
  if (typeof pattern === 'function') return pattern(event);
  return Object.entries(pattern).every(([key, wanted]) =>
    typeof wanted === 'function' ? wanted(event[key], event) : isDeepStrictEqual(event[key], wanted));
}

function shorten(value) {
  const text = inspect(value, { depth: 6, breakLength: Infinity, maxStringLength: 120 });
  return text.length > 300 ? `${text.slice(0, 300)}…` : text;
}

export class EventLog {
  #waiters = new Set();
  #ended = null;

  constructor(owner) {
    this.owner = owner;
    this.all = [];
    this.untaken = [];
  }

  push(event) {
    this.all.push(event);
    this.untaken.push(event);
    for (const waiter of [...this.#waiters]) waiter.look();
  }

  /** No further event will come: every wait that is not satisfied fails now, with this reason. */
  end(reason) {
    if (this.#ended) return;
    this.#ended = reason;
    for (const waiter of [...this.#waiters]) waiter.fail(reason);
  }

  /** How many events so far match. */
  count(pattern) {
    return this.all.filter((event) => matches(event, pattern)).length;
  }

  /** The first event that matches and was not taken before; takes it. */
  next(pattern, timeout = WAIT_MS) {
    return this.#wait(timeout, pattern, () => {
      const index = this.untaken.findIndex((event) => matches(event, pattern));
      return index < 0 ? undefined : this.untaken.splice(index, 1)[0];
    });
  }

  /** The first event ever that matches; takes nothing. */
  seen(pattern, timeout = WAIT_MS) {
    return this.#wait(timeout, pattern, () => this.all.find((event) => matches(event, pattern)));
  }

  #wait(timeout, pattern, pick) {
    const stack = new Error().stack.split('\n').slice(3).join('\n');
    return new Promise((resolve, reject) => {
      const waiter = {
        look: () => {
          const found = pick();
          if (found === undefined) return false;
          done();
          resolve(found);
          return true;
        },
        fail: (reason) => {
          done();
          const tail = this.all.slice(-25).map((event) => `    ${shorten(event)}`).join('\n');
          const error = new Error(`${this.owner}: ${reason}, while waiting for ${shorten(pattern)}; it saw\n${tail || '    nothing'}`);
          error.stack = `${error.message}\n${stack}`;
          reject(error);
        },
      };
      const timer = setTimeout(() => waiter.fail(`nothing within ${timeout} ms`), timeout);
      const done = () => {
        clearTimeout(timer);
        this.#waiters.delete(waiter);
      };
      this.#waiters.add(waiter);
      if (!waiter.look() && this.#ended) waiter.fail(this.#ended);
    });
  }
}
