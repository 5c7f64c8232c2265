/**
 * kill -9 of a process at a point of a migration that the seed chooses. Whatever becomes of it, the guest
 * is whole where it is, or it is gone; nothing is left behind; and the next migration succeeds.
 * `KILL_POINTS=100` tries so many; CI tries 20.
 */
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { afterAll, expect, test } from 'vitest';
import { launch, type Machine } from '../../lab/index.ts';
import { MIB, Prng } from '../../shared/index.ts';
import { isGone } from '../support/is-gone.ts';

const POINTS = Number(process.env['KILL_POINTS'] ?? 8);
const VICTIMS = ['host', 'destination', 'guest'] as const;
/** About what the migration takes of real time, and a little more. */
const MIGRATION_MS = 120;
const END_MS = 2000;

const folder = mkdtempSync(`${tmpdir()}/kill-points-`);
Object.assign(process.env, { TMPDIR: folder });
afterAll(() => rmSync(folder, { recursive: true }));

async function allGone(pids: readonly (number | null)[]): Promise<boolean> {
  const startMs = performance.now();
  while (!pids.every(isGone) && performance.now() - startMs < END_MS) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  return pids.every(isGone);
}

/** One migration with a death in it: the guest moves, stays, or is gone with a process. */
async function killed(seed: number): Promise<void> {
  const random = new Prng(seed);
  const victim = VICTIMS[seed % VICTIMS.length]!;
  const afterMs = random.below(MIGRATION_MS);
  await using machine = await launch({
    memoryBytes: 128 * MIB,
    strategy: seed % 2 === 0 ? 'alloc' : 'none',
    mm: { initOnAlloc: false },
    startsDestination: true,
  });
  await machine.boot();
  await machine.console('process name=p anonymous=8192');
  const pids = Object.values(machine.pids);
  const victimPid = machine.pids[victim];
  const timer = setTimeout(() => {
    // A source that the guest has left may have ended by itself.
    if (!isGone(victimPid)) process.kill(victimPid ?? -1, 'SIGKILL');
  }, afterMs);
  try {
    await migrates(machine);
    clearTimeout(timer);
    // Whole where it is, and able to migrate again.
    expect(await machine.console('touch process=p access=read')).toBeNull();
    expect(await machine.verify()).toEqual([]);
    const again = await machine.migrate();
    expect([again.migration.status, again.memory.lost_pages]).toEqual(['completed', 0]);
    expect((await machine.status()).counters['guest.corruptions']).toBe(0);
  } catch (error) {
    // The process in which the guest was, or the guest itself.
    expect(error).toMatchObject({ code: 'PEER_CLOSED' });
    expect((error as Error).message).toMatch(/process died: killed by SIGKILL/);
    expect(await allGone(pids)).toBe(true);
  }
}

/** A destination that is gone before it has answered leaves the guest untouched. */
async function migrates(machine: Machine): Promise<void> {
  try {
    const { migration, memory, error_desc } = await machine.migrate({
      bandwidthBytesPerS: 200 * MIB,
    });
    expect(memory.lost_pages).toBe(0);
    if (migration.status === 'failed') expect(error_desc).not.toBeNull();
  } catch (error) {
    if (/the destination|migration\.sock/.test((error as Error).message)) return;
    throw error;
  }
}

const seeds = Array.from({ length: POINTS }, (_, seed) => seed);

test.each(seeds)('kill -9, seed %d', async (seed) => {
  await killed(seed);
  expect(readdirSync(folder).filter((name) => name.startsWith('ballast'))).toEqual([]);
});
