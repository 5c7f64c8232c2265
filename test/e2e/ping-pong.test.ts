/** A guest is migrated again and again, each time to a new process, and is whole each time. */
import { launch } from 'ballast';
import { expect, test } from 'vitest';

const TIMES = 20;
const MIB = 1024 * 1024;

test(`a guest is whole after ${TIMES} migrations, each to a new process`, async () => {
  await using machine = await launch({
    memoryBytes: 128 * MIB,
    strategy: 'alloc',
    device: { statsVq: true },
  });
  await machine.boot();
  await machine.setStatsPollingInterval(0.05);
  expect(await machine.console('process name=p anonymous=4096')).toBeNull();
  const hosts = new Set<number>();
  for (let i = 0; i < TIMES; i++) {
    hosts.add(machine.pids.host);
    // The balloon grows and shrinks between two of them.
    await (i % 2 === 0 ? machine.inflate(8 * MIB) : machine.deflate(8 * MIB));
    const { migration, memory } = await machine.migrate();
    expect([migration.status, memory.lost_pages]).toEqual(['completed', 0]);
  }
  expect(hosts.size).toBe(TIMES);
  const { last_update_ns: at } = await machine.guestStats();
  expect(machine.nowNs - (at ?? 0)).toBeLessThan(200_000_000);
  const { counters } = await machine.status();
  expect(counters['guest.corruptions']).toBe(0);
  expect(await machine.verify()).toEqual([]);
});
