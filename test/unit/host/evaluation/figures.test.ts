/** Figures that judge hints, each against what a person computes by hand. */
import { describe, expect, test } from 'vitest';
import { Gfp } from '../../../../guest/mm/index.ts';
import type { Kthread } from '../../../../guest/sched/kthread.ts';
import { Waste } from '../../../../host/evaluation/waste.ts';
import { HintLedger } from '../../../../host/migration/hint-ledger.ts';
import type { MigrationReport, StrategyName } from '../../../../protocol/index.ts';
import { Bitmap, MIB, NS_PER_MS, Prng } from '../../../../shared/index.ts';
import { inProcess, MIGRATE } from '../../../support/in-process.ts';

const NO_INIT = { initOnAlloc: false, initOnFree: false, pagePoison: false };
const SLOW = { ...MIGRATE, bandwidthBytesPerS: 20 * MIB, downtimeLimitMs: 20 };

function setOf(...pfns: number[]): Bitmap {
  const set = new Bitmap(32);
  for (const pfn of pfns) set.set(pfn);
  return set;
}

test('wasted pages count by pass, as in the example of docs/result-format.md', () => {
  const waste = new Waste(32);
  waste.passStarted(setOf(1, 2, 3));
  for (const pfn of [1, 2, 3, 4, 5, 6]) waste.sentWithContent(pfn);
  expect(waste.pagesUntil(setOf(1, 3, 4))).toBe(2);
  waste.passStarted(setOf(1, 3, 4));
  for (const pfn of [2, 3]) waste.sentWithContent(pfn);
  expect(waste.pagesUntil(setOf(1, 3, 4))).toBe(3);
});

test('repeats and hints of pages already sent are told from useful ones', () => {
  const ledger = new HintLedger(64);
  const origin = { cmdId: 1, queuedAtNs: 0 };
  // 0 … 3 are sent, then 0 … 7 are hinted: four of them save something.
  for (let pfn = 0; pfn < 4; pfn++) ledger.sent(pfn);
  for (let pfn = 4; pfn < 8; pfn++) ledger.skip(pfn);
  ledger.add(0, 8, origin, 0, { skippedPages: 4, alreadySentPages: 4 });
  // The same hint again saves nothing, and only the first four of it had been sent.
  ledger.add(0, 8, origin, 0, { skippedPages: 0, alreadySentPages: 4 });
  // 4 is written and sent after all.
  ledger.sent(4);
  expect([ledger.pages, ledger.hinted.count(), ledger.alreadySentPages]).toEqual([16, 8, 8]);
  expect([ledger.usefulPages, ledger.resentPages]).toEqual([3, 1]);
});

/** One migration of a guest of 64 MiB, with a kernel thread that does something meanwhile. */
async function migrated(
  strategy: StrategyName,
  body: (guest: Awaited<ReturnType<typeof inProcess>>['guest']) => Kthread,
  notifyNs: number,
): Promise<MigrationReport> {
  const { guest, hypervisor } = await inProcess({
    guest: { strategy, mm: NO_INIT },
    costs: { configWorkNs: 100_000, notifyNs },
  });
  await hypervisor.runUntil(500 * NS_PER_MS);
  guest.system.kernel.spawn('script', () => body(guest));
  return hypervisor.migrate(SLOW);
}

type Guest = Awaited<ReturnType<typeof inProcess>>['guest'];

function* untilHinted({ system }: Guest): Kthread {
  while ((system.driver.hinting?.counters.hint_blocks ?? 0) === 0) {
    yield { kind: 'sleep', ns: 20_000 };
  }
}

const PAGES = 100;

describe('of 100 pages that are hinted and then allocated', () => {
  const allocate = (write: boolean) =>
    function* (guest: Guest): Kthread {
      yield* untilHinted(guest);
      const { mm, ram } = guest.system;
      for (let i = 0; i < PAGES; i++) {
        const pfn = mm.alloc(0, Gfp.GFP_KERNEL);
        if (write) ram.write(pfn);
      }
    };

  test('those that are written before the host looks are stale, sent again, and not lost', async () => {
    const { migration, hints, memory } = await migrated('iterate', allocate(true), 5 * NS_PER_MS);
    expect(hints.stale_pages).toBe(PAGES);
    expect([migration.resent_pages, memory.lost_pages]).toEqual([PAGES, 0]);
    // They were free when they were recorded, whatever they were when they were queued or used.
    expect(hints.precision_at_record).toBe(1);
    expect(
      hints.unique_pages - Math.round((hints.useful_precision ?? 0) * hints.unique_pages),
    ).toBe(PAGES);
  });

  test('those that nobody writes are undefined, and neither sent nor lost', async () => {
    const { migration, memory, hints } = await migrated('iterate', allocate(false), 5 * NS_PER_MS);
    expect([memory.undefined_pages, memory.lost_pages]).toEqual([PAGES, 0]);
    expect([migration.resent_pages, hints.useful_precision]).toEqual([0, 1]);
  });
});

test('a hint that comes after its page was sent, and one that a remedy declines, are told apart', async () => {
  // Every page has content, and the host looks at its queue when the scan has passed some of them.
  const full = await inProcess({
    guest: {
      strategy: 'iterate',
      mm: { ...NO_INIT, pagePoison: true },
      driver: { hintTrustedFreePages: true },
    },
    costs: { notifyNs: 500 * NS_PER_MS },
  });
  await full.hypervisor.runUntil(3000 * NS_PER_MS);
  const { hints, migration } = await full.hypervisor.migrate(SLOW);
  expect(hints.pages).toBe(hints.unique_pages);
  expect(hints.already_sent_pages).toBeGreaterThan(500);
  expect(hints.already_sent_pages).toBe(hints.pages - migration.skipped_pages);
  const log = { dirtyLog: 'kvm-bitmap', hintRemedy: 'cleared-chunks-only' } as const;
  const { guest, hypervisor } = await inProcess({ guest: { strategy: 'iterate', mm: NO_INIT } });
  await hypervisor.runUntil(500 * NS_PER_MS);
  expect(guest.system.mm.freePages()).toBeGreaterThan(10_000);
  const declined = await hypervisor.migrate({ ...SLOW, ...log });
  expect(declined.migration.skipped_pages).toBe(0);
  expect(declined.hints.unique_pages).toBeGreaterThan(10_000);
  // The scan had come to few of them; later rounds hint them again.
  const { unique_pages: unique, pages, already_sent_pages: alreadySent } = declined.hints;
  expect(alreadySent).toBeLessThanOrEqual(pages - unique + unique / 4);
});

test('pages that the guest has given to the balloon are not lost before the device knows', async () => {
  for (const atMs of [40, 110, 125]) {
    const { guest, hypervisor } = await inProcess({
      guest: { strategy: 'iterate', mm: NO_INIT },
      costs: { configWorkNs: 100_000, notifyNs: 3 * NS_PER_MS },
    });
    await hypervisor.runUntil(500 * NS_PER_MS);
    guest.system.kernel.spawn('target', function* () {
      yield { kind: 'sleep', ns: atMs * NS_PER_MS };
      hypervisor.vmm.device.setTarget(14_000);
    });
    const { memory } = await hypervisor.migrate(SLOW);
    expect(memory.lost_pages).toBe(0);
  }
});

describe('what a clairvoyant would have sent', () => {
  const SEEDS = [1, 2, 3, 4];

  test.each(['none', 'iterate', 'alloc', 'oracle'] as const)(
    'is a bound that %s cannot beat while pages come and go',
    async (strategy) => {
      for (const seed of SEEDS) {
        const prng = new Prng(seed);
        const report = await migrated(
          strategy,
          function* ({ system: { mm, ram } }: Guest): Kthread {
            const held: number[] = [];
            for (let round = 0; round < 400; round++) {
              yield { kind: 'sleep', ns: prng.below(2 * NS_PER_MS) };
              for (let i = prng.below(40); i > 0; i--) {
                const pfn = mm.alloc(0, Gfp.GFP_KERNEL);
                if (prng.chance(3, 4)) ram.write(pfn);
                held.push(pfn);
              }
              while (held.length > 600) mm.free(held.shift()!, 0);
            }
          },
          20_000,
        );
        expect(report.memory.lost_pages).toBe(0);
        expect(report.limit_bytes).toBeGreaterThan(0);
        expect(report.migration.transferred_bytes).toBeGreaterThanOrEqual(report.limit_bytes!);
      }
    },
  );
});
