/** `ballast run` with a real kernel: the same table and the same result as with the emulated one. */
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('../../', import.meta.url));
const folder = mkdtempSync(`${tmpdir()}/ballast-`);

afterAll(() => rmSync(folder, { recursive: true, force: true }));

const ballast = (args: string[], env: NodeJS.ProcessEnv = {}) =>
  promisify(execFile)(process.execPath, ['bin/ballast.mjs', ...args], {
    cwd: root,
    env: { ...process.env, ...env },
  });

describe('ballast run linux-idle', () => {
  it('migrates the kernel with and without its hints, and holds what it promises', async () => {
    const json = `${folder}/result.json`;
    const { stdout } = await ballast(['run', 'linux-idle', '--json', json]);
    expect(stdout).toMatch(/precise/);
    const { runs } = JSON.parse(readFileSync(json, 'utf8'));
    const [none, alloc] = runs;
    expect([none.strategy, alloc.strategy]).toEqual(['none', 'alloc']);
    expect(none.migration.skipped_pages).toBe(0);
    expect(alloc.migration.duplicate_pages).toBeLessThan(none.migration.duplicate_pages / 2);
    expect(alloc.migration.skipped_pages).toBeGreaterThan(20_000);
    expect(alloc.hints.precision_at_use).toBe(1);
    expect(alloc.hints.recall).toBeGreaterThan(0.8);
    expect(alloc.memory.lost_pages).toBe(0);
  });

  it('says what to run when the parts are missing', async () => {
    const failed = ballast(['run', 'linux-idle'], { XDG_CACHE_HOME: `${folder}/empty` });
    await expect(failed).rejects.toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/^ballast: guest linux: .*npm run peers/),
    });
  });
});
