// The two onramps: the original, and ours.
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Process } from './process.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const require = createRequire(import.meta.url);

/** The path of one of the project's own programs. */
export function binary(name) {
  const dir = resolve(process.env.PMESH_BIN_DIR ?? join(here, '../../../target/debug'));
  const path = join(dir, name);
  if (!existsSync(path)) throw new Error(`${path} is missing: run \`cargo build --workspace\`, or set PMESH_BIN_DIR`);
  return path;
}

export async function startOriginalOnramp() {
  const program = join(dirname(require.resolve('onramp/package.json')), 'bin/onramp');
  const onramp = new Process('original onramp', process.execPath,
    ['-r', join(here, 'report-port.cjs'), program, '--host', '127.0.0.1:0']);
  const { line } = await onramp.lines.next({ line: (line) => line.startsWith('port ') });
  onramp.url = `ws://127.0.0.1:${line.slice(5)}`;
  return onramp;
}

export async function startOnramp(args = []) {
  const onramp = new Process('onramp-server', binary('onramp-server'), ['-h', '127.0.0.1:0', ...args]);
  const { line } = await onramp.lines.next(() => true);
  const found = /^onramp listening on (ws:\/\/127\.0\.0\.1:[1-9]\d*)$/.exec(line);
  if (!found) throw new Error(`the first line of onramp-server is ${JSON.stringify(line)}`);
  onramp.url = found[1];
  return onramp;
}
