import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { fileURLToPath } from 'node:url';
import { afterAll, expect, test } from 'vitest';

/** An installed package whose compiled command line is what a test wants. */
const folder = mkdtempSync(`${tmpdir()}/internal-fault-`);
afterAll(() => rmSync(folder, { recursive: true }));
for (const name of ['bin', 'dist/lab/cli']) mkdirSync(`${folder}/${name}`, { recursive: true });
writeFileSync(`${folder}/package.json`, '{ "type": "module" }');
const bin = `${folder}/bin/ballast.mjs`;
copyFileSync(fileURLToPath(new URL('../../bin/ballast.mjs', import.meta.url)), bin);

test.each([
  ['an internal fault', "throw new Error('must hold: something')", 3, /must hold: something\n/],
  ['a failed expectation', 'return 1', 1, /^$/],
])('%s has its own exit status', (_what, body, status, said) => {
  writeFileSync(`${folder}/dist/lab/cli/main.js`, `export async function main() { ${body} }`);
  const ended = spawnSync(process.execPath, [bin], { encoding: 'utf8' });
  expect([ended.status, ended.stdout]).toEqual([status, '']);
  expect(ended.stderr).toMatch(said);
});
