/** The check that decides what "lost" means must find what is wrong, and nothing else. */
import { describe, expect, test } from 'vitest';
import type { Guest } from '../../../../guest/machine/guest.ts';
import { verifyArrival } from '../../../../host/evaluation/arrival.ts';
import { Evaluator } from '../../../../host/evaluation/evaluator.ts';
import type { DestinationMemory } from '../../../../host/migration/destination-memory.ts';
import { InPlace } from '../../../../host/migration/in-place.ts';
import { Migration } from '../../../../host/migration/migration.ts';
import { type MigrationReport, withArrival } from '../../../../protocol/index.ts';
import { NS_PER_MS } from '../../../../shared/index.ts';
import { inProcess, MIGRATE } from '../../../support/in-process.ts';

/** Migrates, and lets `plant` spoil something between the switchover and the check. */
async function reportAfter(
  plant: (memory: DestinationMemory, guest: Guest, evaluator: Evaluator) => void,
): Promise<MigrationReport> {
  const { guest, hypervisor } = await inProcess({ guest: { strategy: 'iterate' } });
  await hypervisor.runUntil(50 * NS_PER_MS);
  const evaluator = new Evaluator(hypervisor.vmm, () => {});
  await evaluator.begin();
  const target = await InPlace.open(hypervisor.vmm, guest.facts);
  const migration = new Migration(hypervisor.vmm, MIGRATE, target, evaluator);
  const figures = await migration.run();
  const { memory } = target.incoming;
  plant(memory, guest, evaluator);
  const report = await evaluator.report(migration.precopy, figures);
  const arrival = await verifyArrival(hypervisor.vmm, memory);
  return withArrival(report, arrival, (pfn) => migration.precopy.ledger.historyOf(pfn));
}

function put(memory: DestinationMemory, pfn: number, tag: number): void {
  memory.receive(Uint32Array.of(pfn, 1), new Uint8Array(Uint32Array.of(tag).buffer));
}

/** In a machine without a recording the kernel owns the first frames. */
const IN_USE = 100;
const FREE = 15_000;

describe('the evaluation', () => {
  test('finds nothing after a good migration', async () => {
    const { memory, lost, hints } = await reportAfter(() => {});
    expect([memory.lost_pages, lost]).toEqual([0, []]);
    expect(memory.free_pages_at_end).toBeGreaterThan(10_000);
    expect(hints.precision_at_use).toBe(1);
    expect(hints.recall).toBeGreaterThan(0.99);
  });

  test('finds each page in use whose content differs at the destination', async () => {
    const { memory, lost } = await reportAfter((destination) => {
      put(destination, IN_USE, 0);
      put(destination, IN_USE + 1, destination.tagOf(IN_USE + 1) + 1);
    });
    expect(memory.lost_pages).toBe(2);
    expect(lost.map(({ pfn }) => pfn)).toEqual([IN_USE, IN_USE + 1]);
    expect(lost[0]?.history.at(-1)).toBe('destination: content tag 00000000');
  });

  test('finds a write that no dirty log saw', async () => {
    const { memory } = await reportAfter((_memory, guest) => guest.system.ram.write(IN_USE));
    expect(memory.lost_pages).toBe(1);
  });

  test('does not mind what a free page holds', async () => {
    const { memory } = await reportAfter((destination, guest) => {
      expect(guest.system.mm.isFree(FREE)).toBe(true);
      put(destination, FREE, 123);
    });
    expect(memory.lost_pages).toBe(0);
  });

  test('counts free pages that were sent with content as wasted', async () => {
    const clean = await reportAfter(() => {});
    const spoiled = await reportAfter((_memory, _guest, evaluator) => evaluator.sent(FREE, 123));
    expect(spoiled.memory.wasted_pages).toBe(clean.memory.wasted_pages + 1);
  });

  test('believes no guest that lost pages which it does not have', async () => {
    const report = reportAfter((_memory, guest) => {
      guest.system.ram.erased.set(1 << 20, 1);
      guest.system.ram.isInUse = () => true;
    });
    await expect(report).rejects.toThrow('erased: expected frames of the guest');
  });

  test('counts and tells each of many lost pages', async () => {
    const { memory, lost } = await reportAfter((destination) => {
      for (let pfn = 0; pfn < 1000; pfn++) put(destination, pfn, 0xdead);
    });
    expect(memory.lost_pages).toBe(1000);
    expect(lost).toHaveLength(1000);
  });
});
