/** The library when a process of the machine dies in the middle of its work. */
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { afterAll, describe, expect, test } from 'vitest';
import { launch } from '../../lab/index.ts';

function isGone(pid: number | null): boolean {
  try {
    process.kill(pid ?? -1, 0);
    return false;
  } catch {
    return true;
  }
}

async function gone(pid: number | null): Promise<number> {
  const startMs = performance.now();
  while (!isGone(pid) && performance.now() - startMs < 5000) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  return performance.now() - startMs;
}

/** Whatever is left behind is left here. */
const folder = mkdtempSync(`${tmpdir()}/kill-test-`);
Object.assign(process.env, { TMPDIR: folder });
afterAll(() => rmSync(folder, { recursive: true }));

describe.skipIf(process.platform === 'win32')('kill -9 in the middle of a run', () => {
  test.each([
    ['host', 'guest'],
    ['guest', 'host'],
  ] as const)('of the %s ends the %s too, and the caller hears who died', async (victim, other) => {
    await using machine = await launch({ recording: 'idle-1g', strategy: 'iterate' });
    const { pids } = machine;
    await machine.boot();
    await machine.workload();
    const run = machine.waitUntil('migrate_at').catch((error: unknown) => error);
    await new Promise((resolve) => setTimeout(resolve, 30));
    process.kill(pids[victim] ?? -1, 'SIGKILL');
    expect(await gone(pids[other])).toBeLessThan(2000);
    expect(await run).toMatchObject({
      code: 'PEER_CLOSED',
      exitStatus: 3,
      message: `${victim} process died: killed by SIGKILL`,
    });
    await expect(machine.status()).rejects.toMatchObject({ code: 'PEER_CLOSED' });
    expect(readdirSync(folder).filter((name) => name.startsWith('ballast'))).toEqual([]);
  });
});
