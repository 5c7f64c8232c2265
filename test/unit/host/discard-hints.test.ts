/**
 * A host that discards what was hinted (Firecracker ≥ 1.14) and a guest that takes a hinted page
 * back before the device has looked at its hint: data is gone, on either side of a migration. A
 * driver that waits for the ack (HINT_WAIT_ON_ACK) keeps its data.
 */
import { describe, expect, test } from 'vitest';
import type { Guest } from '../../../guest/machine/guest.ts';
import type { Kthread } from '../../../guest/sched/kthread.ts';
import type { HostConfig, MigrationReport, StrategyName } from '../../../protocol/index.ts';
import { NS_PER_MS, NS_PER_S } from '../../../shared/index.ts';
import { inProcess, MIGRATE } from '../../support/in-process.ts';

const BLOCK_ORDER = 10;
const BLOCK_PAGES = 1 << BLOCK_ORDER;

/** Memory pressure: takes a hinted block back, four times a round, and writes to all of its pages. */
function* underPressure(guest: Guest): Kthread {
  const { kernel, mm, ram, strategy } = guest.system;
  for (let left = 4; left > 0; left--) {
    while (strategy?.heldPages === 0 || strategy?.shrink?.(1) === 0) {
      yield { kind: 'sleep', ns: 50_000 };
    }
    const pfn = mm.alloc(BLOCK_ORDER, 0);
    for (let i = 0; i < BLOCK_PAGES && pfn >= 0; i++) ram.write(pfn + i);
    yield { kind: 'cpu', ns: kernel.costs.allocNs };
  }
}

/** The device looks at its queue five milliseconds after a kick, and the scan takes a second. */
async function migrate(
  strategy: StrategyName,
  device: Partial<HostConfig['device']>,
  prepare: (guest: Guest) => void = (guest) =>
    guest.system.kernel.spawn('pressure', () => underPressure(guest)),
): Promise<{ report: MigrationReport; guest: Guest }> {
  const { guest, hypervisor } = await inProcess({
    guest: { strategy, mm: { initOnAlloc: false, initOnFree: false, pagePoison: false } },
    device,
    costs: { notifyNs: 5 * NS_PER_MS, sendZeroPageNs: 60_000, configWorkNs: 100_000 },
  });
  await hypervisor.runUntil(500 * NS_PER_MS);
  prepare(guest);
  const report = await hypervisor.migrate(MIGRATE);
  expect(report.migration.status).toBe('completed');
  expect(await hypervisor.verify()).toEqual([]);
  const { protocol_violations } = await hypervisor.status();
  expect(protocol_violations).toBe(0);
  return { report, guest };
}

describe('a guest that takes hinted blocks back', () => {
  test('loses their pages to a host that discards, and each is told with its tag', async () => {
    const { report, guest } = await migrate('alloc', { discardHints: true });
    expect(report.hints.stale_pages).toBeGreaterThanOrEqual(BLOCK_PAGES);
    expect(report.memory.lost_pages).toBeGreaterThanOrEqual(BLOCK_PAGES);
    expect(report.memory.lost_pages).toBe(guest.system.ram.erased.size);
    expect(report.lost[0]?.history.join('\n')).toMatch(
      /allocated, content tag 00000000, content tag [0-9a-f]{8} was discarded while in use/,
    );
  });

  // spec: 5.5.6.5.1-driver-8, 5.5.6.5.1-driver-9
  test.each([
    ['that discards, if it waits for the ack', 'alloc-ack', { discardHints: true }],
    ['that does not discard', 'alloc', { discardHints: false }],
  ] as const)('loses nothing to a host %s', async (_what, strategy, device) => {
    const { report, guest } = await migrate(strategy, device);
    expect(report.memory.lost_pages).toBe(0);
    expect(report.migration.skipped_pages).toBeGreaterThan(4 * BLOCK_PAGES);
    expect(guest.statistics()).toMatchObject({ hint_shrunk_pages: 4 * BLOCK_PAGES });
  });

  test('loses pages though it would wait for the ack, if the device does not offer that', async () => {
    const device = { discardHints: true, hintWaitOnAck: false };
    const { report } = await migrate('alloc-ack', device);
    expect(report.memory.lost_pages).toBeGreaterThanOrEqual(BLOCK_PAGES);
  });

  test('can do so even when it has held nothing: hints of iterate are read late', async () => {
    function* allocate({ system: { mm, ram } }: Guest): Kthread {
      for (let i = 0; i < 200; i++) {
        yield { kind: 'sleep', ns: 100_000 };
        const pfn = mm.alloc(0, 0);
        if (pfn >= 0) ram.write(pfn);
      }
    }
    const start = (guest: Guest) => guest.system.kernel.spawn('allocate', () => allocate(guest));
    const kept = await migrate('iterate', { discardHints: false }, start);
    const discarded = await migrate('iterate', { discardHints: true }, start);
    expect(kept.report.memory.lost_pages).toBe(0);
    expect(discarded.report.memory.lost_pages).toBeGreaterThan(0);
  });

  test.each(['alloc', 'iterate', 'oracle'] as const)(
    'loses nothing of what it had freed before: %s',
    async (strategy) => {
      const { report, guest } = await migrate(strategy, { discardHints: true }, (quiet) => {
        const { mm, ram } = quiet.system;
        const blocks = Array.from({ length: 8 }, () => mm.alloc(BLOCK_ORDER, 0));
        for (const first of blocks) {
          for (let pfn = first; pfn < first + BLOCK_PAGES; pfn++) ram.write(pfn);
        }
        for (const first of blocks) mm.free(first, BLOCK_ORDER);
      });
      expect(report.migration.skipped_pages).toBeGreaterThan(8 * BLOCK_PAGES);
      expect([report.memory.lost_pages, guest.system.ram.erased.size]).toEqual([0, 0]);
    },
  );

  test('has lost nothing of what it has written anew since', async () => {
    const { report } = await migrate('alloc', { discardHints: true }, (guest) => {
      guest.system.kernel.spawn('rewrite', function* () {
        yield* underPressure(guest);
        const { ram } = guest.system;
        yield { kind: 'sleep', ns: 20 * NS_PER_MS };
        for (const pfn of [...ram.erased.keys()]) ram.write(pfn);
      });
    });
    expect(report.hints.stale_pages).toBeGreaterThanOrEqual(BLOCK_PAGES);
    expect(report.memory.lost_pages).toBe(0);
  });
});

test('a round of alloc-ack waits for each block, so it takes longer', async () => {
  const roundNs = async (strategy: StrategyName): Promise<number> => {
    const { hypervisor } = await inProcess({ guest: { strategy } });
    const { vmm } = hypervisor;
    await vmm.advanceTo(NS_PER_S);
    let lastNs = 0;
    vmm.hintConsumer = {
      onHint: () => {
        lastNs = vmm.now;
      },
      afterHints: () => Promise.resolve(),
    };
    vmm.device.hintStart();
    await vmm.advanceFor(NS_PER_S);
    return lastNs - NS_PER_S;
  };
  expect(await roundNs('alloc-ack')).toBeGreaterThan(await roundNs('alloc'));
});
