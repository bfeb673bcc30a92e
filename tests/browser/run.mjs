// Runs the suite: one browser for all files, each file by node's own test runner.
// Arguments are parts of file names: `node run.mjs original glare`.
import { spawn } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';
import { launchOptions } from './lib/browser.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const wanted = process.argv.slice(2);
const files = readdirSync(here)
  .filter((name) => name.endsWith('.test.mjs') && (wanted.length === 0 || wanted.some((part) => name.includes(part))))
  .sort()
  .map((name) => join(here, name));
if (files.length === 0) {
  console.error(`no test file matches ${wanted.join(', ')}`);
  process.exit(2);
}

const [major, minor] = process.versions.node.split('.').map(Number);
const concurrency = major > 20 || (major === 20 && minor >= 10) ? ['--test-concurrency=3'] : [];

const browser = await chromium.launchServer(launchOptions());
const tests = spawn(process.execPath, ['--test', ...concurrency, ...files], {
  stdio: ['ignore', 'inherit', 'inherit'],
  env: { ...process.env, PMESH_BROWSER_ENDPOINT: browser.wsEndpoint() },
});
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => tests.kill(signal));
const code = await new Promise((resolve) => tests.once('close', (status, signal) => resolve(signal ? 1 : status)));
await browser.close();
process.exit(code);
