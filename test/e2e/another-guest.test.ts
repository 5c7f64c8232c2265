/** Host and guest started by hand from different scenarios do not belong together. */
import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { fileURLToPath } from 'node:url';
import { afterAll, expect, test } from 'vitest';

const ballast = fileURLToPath(new URL('../../bin/ballast.mjs', import.meta.url));
const folder = mkdtempSync(`${tmpdir()}/another-guest-`);
afterAll(() => rmSync(folder, { recursive: true }));

function start(...words: string[]) {
  const child = spawn(process.execPath, [ballast, ...words], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let stderr = '';
  let onText = () => {};
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
    onText();
  });
  return {
    ended: new Promise<{ code: number | null; stderr: string }>((resolve) => {
      child.on('close', (code) => resolve({ code, stderr }));
    }),
    said: (part: string) =>
      new Promise<void>((resolve) => {
        onText = () => {
          if (stderr.includes(part)) resolve();
        };
        onText();
      }),
  };
}

test('a guest of another size is turned away with one line that names both', async () => {
  for (const memory of ['64MiB', '128MiB']) {
    writeFileSync(`${folder}/${memory}.yaml`, `machine: { memory: ${memory} }\nsteps:\n  - boot\n`);
  }
  const address = `unix:${folder}/sock`;
  const host = start('host', `${folder}/64MiB.yaml`, '--listen', address);
  await host.said('waiting for a guest');
  await start('guest', `${folder}/128MiB.yaml`, '--connect', address).ended;
  const { code, stderr } = await host.ended;
  expect(code).toBe(2);
  expect(stderr.trim().split('\n').slice(1)).toEqual([
    'ballast: the guest ended the session: host and guest differ in machine.memory (host 67108864, guest 134217728)',
  ]);
  expect(readdirSync(folder)).not.toContain('sock');
});
