/** The library when a process of the machine dies in the middle of its work. */
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { afterAll, describe, expect, test } from 'vitest';
import { launch } from '../../lab/index.ts';
import { isGone } from '../support/is-gone.ts';

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

describe.skipIf(process.platform === 'win32')('kill -9 of the destination', () => {
  type Moment = readonly [title: string, stopAt: string | null, killAt: string];
  const before: readonly Moment[] = [
    ['when the migration is set up', null, 'setup'],
    ['in the first pass', null, 'active'],
    // It stands still, so that the source waits for it with everything sent.
    ['when the guest is about to move', 'setup', 'device'],
  ];

  test.each(before)('%s fails the migration alone', async (_title, stopAt, killAt) => {
    await using machine = await launch({ recording: 'idle-1g', startsDestination: true });
    const { host, guest, destination } = machine.pids;
    machine.events.on('MIGRATION', ({ data: { status } }) => {
      if (machine.pids.destination !== destination) return;
      if (status === stopAt) process.kill(destination ?? -1, 'SIGSTOP');
      if (status === killAt) process.kill(destination ?? -1, 'SIGKILL');
    });
    await machine.boot();
    const failed = await machine.migrate();
    expect(failed.migration.status).toBe('failed');
    expect(failed.error_desc).toMatch(/destination/);
    expect(failed.memory.lost_pages).toBe(0);
    // The guest is where it was, whole, and runs; the next migration succeeds.
    expect([machine.pids.host, machine.pids.guest]).toEqual([host, guest]);
    expect(await machine.verify()).toEqual([]);
    const { nowNs } = machine;
    expect((await machine.waitFor(1e6)).now_ns).toBe(nowNs + 1e6);
    const retried = await machine.migrate();
    expect(retried.migration.status).toBe('completed');
    expect(retried.memory.lost_pages).toBe(0);
    expect(await machine.verify()).toEqual([]);
    expect(isGone(host)).toBe(true);
  });

  test('when it has just got the guest ends them all, and the caller hears who died', async () => {
    const attempt = async (): Promise<void> => {
      await using machine = await launch({ recording: 'idle-1g', startsDestination: true });
      const { host, guest, destination } = machine.pids;
      machine.events.on('MIGRATION', ({ data: { status } }) => {
        if (status === 'completed') process.kill(destination ?? -1, 'SIGKILL');
      });
      await machine.boot();
      await expect(machine.migrate().then(() => machine.status())).rejects.toMatchObject({
        message: 'host process died: killed by SIGKILL',
      });
      for (const pid of [host, guest]) expect(await gone(pid)).toBeLessThan(2000);
    };
    await attempt();
    expect(readdirSync(folder).filter((name) => name.startsWith('ballast'))).toEqual([]);
  });
});

test.each(['source', 'guest'] as const)(
  'kill(%s) in a migration ends all processes, and nothing is left to ask',
  async (victim) => {
    const startMs = performance.now();
    {
      await using machine = await launch({ memoryBytes: 64 * 2 ** 20, startsDestination: true });
      const pids = Object.values(machine.pids);
      await machine.boot();
      await machine.startMigration({ bandwidthBytesPerS: 2 ** 20 });
      await machine.waitFor(5e8);
      const killedMs = performance.now();
      await machine.kill(victim);
      expect(performance.now() - killedMs).toBeLessThan(2000);
      expect(pids.map(isGone)).toEqual([true, true, true]);
      expect(await machine.verify()).toEqual([]);
      expect((await machine.finish()).event_log_sha256).toBe('');
    }
    expect(performance.now() - startMs).toBeLessThan(20_000);
    expect(readdirSync(folder).filter((name) => name.startsWith('ballast'))).toEqual([]);
  },
);
