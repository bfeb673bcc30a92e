// What deny.toml asks for, as far as `cargo metadata` can tell: licences, sources, no wildcard requirements.
// A stand-in for machines without cargo-deny; it reads no licence texts and knows no advisories.
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const deny = readFileSync(`${root}deny.toml`, 'utf8').replace(/^\s*#.*$/gm, '');

function listOf(key) {
  const found = new RegExp(`^${key} = \\[([^\\]]*)\\]`, 'm').exec(deny);
  if (!found) throw new Error(`deny.toml has no list ${key}`);
  return new Set([...found[1].matchAll(/"([^"]+)"/g)].map((match) => match[1]));
}

const licences = listOf('allow');
const registries = listOf('allow-registry');

/** Whether an SPDX expression can be satisfied with the allowed licences; `/` is the old way to write OR. */
function allowed(expression) {
  const words = expression.replaceAll('/', ' OR ').match(/[()]|[^\s()]+/g) ?? [];
  const either = () => {
    let result = both();
    while (words[0] === 'OR') { words.shift(); result = both() || result; }
    return result;
  };
  const both = () => {
    let result = one();
    while (words[0] === 'AND') { words.shift(); result = one() && result; }
    return result;
  };
  const one = () => {
    let name = words.shift();
    if (name === undefined || name === ')' || name === 'OR' || name === 'AND') throw new Error(`cannot read the licence ${expression}`);
    if (name === '(') {
      const result = either();
      if (words.shift() !== ')') throw new Error(`cannot read the licence ${expression}`);
      return result;
    }
    if (words[0] === 'WITH') name = `${name} ${words.shift()} ${words.shift()}`;
    return licences.has(name);
  };
  const result = either();
  if (words.length > 0) throw new Error(`cannot read the licence ${expression}`);
  return result;
}

const metadata = JSON.parse(execFileSync('cargo', ['metadata', '--locked', '--all-features', '--format-version', '1'],
  { cwd: root, maxBuffer: 1 << 28, stdio: ['ignore', 'pipe', 'inherit'] }));
const problems = [];
for (const { name, version, license, license_file: file, source, dependencies } of metadata.packages) {
  const id = `${name} ${version}`;
  if (source !== null && ![...registries].some((registry) => source === `registry+${registry}`)) problems.push(`${id} comes from ${source}`);
  if (!license) problems.push(`${id} names no licence${file ? `, only the file ${file}` : ''}`);
  else if (!allowed(license)) problems.push(`${id} has the licence ${license}`);
  if (source === null) {
    for (const { name: needed, req, path } of dependencies) {
      if (req === '*' && !path) problems.push(`${id} asks for any version of ${needed}`);
    }
  }
}
for (const problem of problems) console.log(problem);
console.log(`${metadata.packages.length} packages, ${problems.length} problems`);
process.exit(problems.length === 0 ? 0 : 1);
