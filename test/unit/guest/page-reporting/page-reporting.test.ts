import { describe, expect, test } from 'vitest';
import type { Kernel } from '../../../../guest/kernel/kernel.ts';
import {
  AllocFlag,
  Gfp,
  MigrateType,
  PAGEBLOCK_NR_PAGES,
  PageAllocator,
  PageFlag,
} from '../../../../guest/mm/index.ts';
import {
  PageReporting,
  type ReportedBlocks,
} from '../../../../guest/page-reporting/page-reporting.ts';
import { type Kthread, WaitQueue } from '../../../../guest/sched/kthread.ts';
import { Scheduler } from '../../../../guest/sched/scheduler.ts';
import { Bitmap, DEFAULT_COSTS, Errno } from '../../../../shared/index.ts';

const SECOND = 1_000_000_000;
const BLOCK_ORDER = 9;

type Range = readonly [pfn: number, order: number];

/** A machine whose host answers reports when the test lets it. */
class ReportingMachine {
  readonly scheduler = new Scheduler(1);
  readonly mm: PageAllocator;
  readonly reporting: PageReporting;
  readonly reports: Range[][] = [];
  readonly reportedAt: number[] = [];
  /** The host answers at once, or after `answer`. */
  isSlow = false;
  result: Errno = Errno.OK;
  readonly #answered = new WaitQueue();
  readonly device = { report: (blocks: ReportedBlocks) => this.#report(blocks) };

  /** All but the first 4 MiB are free. */
  constructor(ramPages: number, order = BLOCK_ORDER) {
    const mm = { initOnAlloc: false, initOnFree: false, pagePoison: false };
    this.mm = new PageAllocator({ ramPages, vcpus: 1, mm }, { clearPages: () => undefined });
    const free = new Bitmap(ramPages);
    free.setRange(1024, ramPages - 1024);
    this.mm.adoptFreeSet(free);
    const { scheduler } = this;
    this.reporting = new PageReporting(
      {
        get now() {
          return scheduler.now;
        },
        costs: DEFAULT_COSTS,
        mm: this.mm,
        spawn: (_name: string, body: () => Kthread) => scheduler.spawn(body),
      } as unknown as Kernel,
      order,
    );
  }

  register(): this {
    expect(this.reporting.register(this.device)).toBe(Errno.OK);
    return this;
  }

  runFor(ns: number): void {
    this.scheduler.run(this.scheduler.now + ns, 0);
  }

  run(body: () => Kthread): void {
    this.scheduler.spawn(body);
    this.runFor(0);
  }

  answer(): void {
    this.#answered.wake();
    this.runFor(0);
  }

  get audit(): string[] {
    return [...this.mm.audit(), ...this.reporting.audit()];
  }

  /** Free blocks that carry the flag, by head. */
  get flagged(): number[] {
    const { pages } = this.mm;
    const heads: number[] = [];
    for (let pfn = 0; pfn < pages.ramPages; pfn += 1 << pages.order[pfn]!) {
      const isBuddy = pages.hasFlag(pfn, PageFlag.BUDDY);
      if (isBuddy && pages.hasFlag(pfn, PageFlag.REPORTED)) heads.push(pfn);
    }
    return heads;
  }

  *#report({ pfns, orders, start, count }: ReportedBlocks): Kthread<Errno> {
    const ranges: Range[] = [];
    for (let i = start; i < start + count; i++) ranges.push([pfns[i]!, orders[i]!]);
    this.reports.push(ranges);
    this.reportedAt.push(this.scheduler.now);
    if (this.isSlow) yield { kind: 'wait', queue: this.#answered };
    return this.result;
  }
}

const totalPages = (reports: readonly Range[][]) =>
  reports.flat().reduce((sum, [, order]) => sum + (1 << order), 0);

describe('the work item', () => {
  // spec: 5.5.6.7.1-driver-4
  test('begins two seconds after the registration and reports what is free', () => {
    const machine = new ReportingMachine(32_768).register();
    machine.runFor(2 * SECOND - 1);
    expect(machine.reports).toEqual([]);
    machine.runFor(SECOND);
    expect(machine.reportedAt[0]).toBeGreaterThanOrEqual(2 * SECOND);
    expect(totalPages(machine.reports)).toBeGreaterThan(20_000);
    expect(machine.audit).toEqual([]);
  });

  test('an idle machine is not looked at again', () => {
    const machine = new ReportingMachine(32_768).register();
    machine.runFor(60 * SECOND);
    const { page_reporting_passes: passes } = machine.reporting.counters;
    machine.runFor(60 * SECOND);
    expect(machine.reporting.counters.page_reporting_passes).toBe(passes);
  });

  const frees = [
    { order: BLOCK_ORDER, asks: true },
    { order: BLOCK_ORDER - 1, asks: false },
  ];
  test.each(frees)('a freed block of order $order asks for a pass: $asks', ({ order, asks }) => {
    const machine = new ReportingMachine(32_768).register();
    const first = machine.mm.alloc(order, Gfp.GFP_KERNEL) as number;
    // Its buddy stays allocated, so nothing merges.
    const second = machine.mm.alloc(order, Gfp.GFP_KERNEL) as number;
    expect(second ^ first).toBe(1 << order);
    machine.runFor(60 * SECOND);
    const passes = machine.reporting.counters.page_reporting_passes;
    machine.mm.free(first, order);
    const freedAt = machine.scheduler.now;
    machine.runFor(60 * SECOND);
    const more = machine.reporting.counters.page_reporting_passes - passes;
    expect(more > 0).toBe(asks);
    if (asks) expect(machine.reportedAt.at(-1)!).toBeGreaterThanOrEqual(freedAt + 2 * SECOND);
  });

  test('what is freed during a pass is left to one two seconds after its end', () => {
    const machine = new ReportingMachine(32_768);
    const pfn = machine.mm.alloc(BLOCK_ORDER, Gfp.GFP_KERNEL) as number;
    machine.isSlow = true;
    machine.register();
    machine.runFor(3 * SECOND);
    expect(machine.reports).toHaveLength(1);
    machine.mm.free(pfn, BLOCK_ORDER);
    machine.isSlow = false;
    machine.answer();
    const endedAt = machine.scheduler.now;
    machine.runFor(2 * SECOND - 1);
    const before = machine.reports.flat().some(([head]) => head === pfn);
    machine.runFor(SECOND);
    expect(before).toBe(false);
    expect(machine.reportedAt.at(-1)).toBeGreaterThanOrEqual(endedAt + 2 * SECOND);
    expect(machine.reports.at(-1)!.some(([head]) => (head & ~1023) === (pfn & ~1023))).toBe(true);
  });

  test('a list is worked through over several passes: its budget is a sixteenth', () => {
    // 2^20 pages: some 1,000 blocks of order 10 in one list.
    const machine = new ReportingMachine(1 << 20).register();
    const { counters } = machine.reporting;
    machine.runFor(3 * SECOND);
    expect(counters.page_reporting_passes).toBe(1);
    const afterOne = counters.reported_blocks;
    expect(afterOne).toBeGreaterThan(0);
    expect(afterOne).toBeLessThanOrEqual(6 * 32);
    machine.runFor(60 * SECOND);
    // Only the low zone, which is below what a full report needs, is left out.
    expect(machine.flagged.length).toBeGreaterThan(1000);
    expect(counters.page_reporting_passes).toBeLessThan(20);
    expect(machine.audit).toEqual([]);
  });
});

describe('a report', () => {
  // spec: 5.5.6.7.1-driver-5
  test('has at most 32 blocks, none of them smaller than a pageblock', () => {
    const machine = new ReportingMachine(262_144).register();
    machine.runFor(10 * SECOND);
    expect(Math.max(...machine.reports.map((ranges) => ranges.length))).toBe(32);
    const smallest = Math.min(...machine.reports.flat().map(([, order]) => order));
    expect(smallest).toBeGreaterThanOrEqual(BLOCK_ORDER);
  });

  // spec: 5.5.6.7.1-driver-3
  test('keeps its blocks from everybody until the host has answered', () => {
    const machine = new ReportingMachine(65_536);
    machine.isSlow = true;
    machine.register();
    const freeBefore = machine.mm.freePages();
    machine.runFor(3 * SECOND);
    const held = machine.reports[0]!;
    const heldPages = totalPages([held]);
    expect(machine.mm.freePages()).toBe(freeBefore - heldPages);
    expect(machine.reporting.isolatedPages).toBe(heldPages);
    expect(machine.audit).toEqual([]);
    const [first] = held[0]!;
    expect(machine.reporting.holds(first)).toBe(true);
    expect(machine.reporting.holds(first + 1)).toBe(true);
    expect(machine.reporting.holds(1)).toBe(false);
    expect(machine.mm.pages.tryGet(first)).toBe(false);
    expect(machine.mm.allocExact(first, 0, Gfp.GFP_KERNEL)).toBe(false);
    const set = new Bitmap(65_536);
    machine.reporting.writeHeldSet(set);
    expect(set.count()).toBe(heldPages);
    machine.answer();
    machine.isSlow = false;
    machine.answer();
    expect(machine.mm.freePages()).toBe(freeBefore - machine.reporting.isolatedPages);
    expect(machine.flagged).toContain(first);
  });

  test('that the host refuses ends the pass and marks nothing', () => {
    const machine = new ReportingMachine(65_536);
    machine.result = Errno.EIO;
    machine.register();
    machine.runFor(10 * SECOND);
    expect(machine.reports).toHaveLength(1);
    expect(machine.flagged).toEqual([]);
    expect(machine.reporting.counters.unreported_blocks).toBe(machine.reports[0]!.length);
    expect(machine.audit).toEqual([]);
  });

  // spec: 5.5.6.7.1-driver-6
  // spec: 5.5.6.7.1-driver-6
  test('is spared by allocations as long as there is something else', () => {
    const machine = new ReportingMachine(262_144);
    machine.isSlow = true;
    machine.register();
    machine.runFor(3 * SECOND);
    // Until a whole report of blocks of order 10 is back, and the next is out.
    while (!machine.flagged.some((pfn) => machine.mm.pages.order[pfn] === 10)) {
      machine.answer();
      machine.runFor(SECOND / 1000);
    }
    const reported = new Set(machine.flagged);
    const taken = Array.from({ length: 64 }, () => machine.mm.alloc(10, Gfp.GFP_KERNEL) as number);
    expect(taken.filter((pfn) => reported.has(pfn))).toEqual([]);
  });

  test('goes back to the tail of the list', () => {
    const machine = new ReportingMachine(262_144);
    machine.isSlow = true;
    machine.register();
    machine.runFor(3 * SECOND);
    const zone = machine.mm.zones[1]!;
    const list = () => [...machine.mm.freeLists.nodes(zone, 10, MigrateType.MOVABLE)];
    const waiting = list();
    machine.answer();
    const told = machine.reports[0]!.filter(([, order]) => order === 10).map(([pfn]) => pfn);
    expect(told.length).toBeGreaterThan(0);
    // The next report is on its way with the first of those that waited.
    expect(list().filter((pfn) => waiting.includes(pfn))).toEqual(
      waiting.filter((pfn) => list().includes(pfn)),
    );
    expect(list().slice(-told.length).sort()).toEqual([...told].sort());
  });
});

describe('a reported block', () => {
  function reported(): ReportingMachine {
    const machine = new ReportingMachine(65_536).register();
    machine.runFor(30 * SECOND);
    expect(machine.flagged.length).toBeGreaterThan(10);
    return machine;
  }

  test('is not reported again', () => {
    const machine = reported();
    const before = new Set(machine.reports.flat().map(([pfn]) => pfn));
    const pages = totalPages(machine.reports);
    machine.mm.free(machine.mm.alloc(BLOCK_ORDER, Gfp.GFP_KERNEL) as number, BLOCK_ORDER);
    machine.runFor(30 * SECOND);
    // Only the block of order 10 that was split and has merged again.
    expect(totalPages(machine.reports) - pages).toBe(1024);
    expect(before.has(machine.reports.at(-1)![0]![0])).toBe(true);
  });

  const uses = {
    'allocated and freed': (machine: ReportingMachine, pfn: number) => {
      expect(machine.mm.allocExact(pfn, 10, Gfp.GFP_KERNEL)).toBe(true);
      machine.mm.free(pfn, 10);
    },
    'split for one page of it': (machine: ReportingMachine, pfn: number) => {
      expect(machine.mm.allocExact(pfn + 5, 0, Gfp.GFP_KERNEL)).toBe(true);
    },
  };
  test.each(Object.entries(uses))('is one no more when it is %s', (_what, use) => {
    const machine = reported();
    const pfn = machine.flagged.find((head) => machine.mm.pages.order[head] === 10)!;
    use(machine, pfn);
    const inBlock = machine.flagged.filter((head) => head >= pfn && head < pfn + 1024);
    expect(inBlock).toEqual([]);
    expect(machine.audit).toEqual([]);
  });

  test('is one no more when it merges with its freed buddy', () => {
    const machine = new ReportingMachine(65_536);
    const pfn = machine.mm.alloc(BLOCK_ORDER, Gfp.GFP_KERNEL) as number;
    const buddy = pfn ^ PAGEBLOCK_NR_PAGES;
    machine.register();
    machine.runFor(30 * SECOND);
    expect(machine.flagged).toContain(buddy);
    machine.mm.free(pfn, BLOCK_ORDER);
    expect(machine.flagged).not.toContain(buddy);
    expect(machine.flagged).not.toContain(pfn & buddy);
    machine.runFor(30 * SECOND);
    expect(machine.flagged).toContain(pfn & buddy);
  });

  test('is none at all if it merges when it is put back', () => {
    const machine = new ReportingMachine(65_536);
    const pfn = machine.mm.alloc(BLOCK_ORDER, Gfp.GFP_KERNEL) as number;
    const buddy = pfn ^ PAGEBLOCK_NR_PAGES;
    machine.isSlow = true;
    machine.register();
    machine.runFor(3 * SECOND);
    expect(machine.reporting.holds(buddy)).toBe(true);
    machine.mm.free(pfn, BLOCK_ORDER);
    machine.answer();
    expect(machine.mm.pages.order[pfn & buddy]).toBe(10);
    expect(machine.flagged).not.toContain(pfn & buddy);
    expect(machine.audit).toEqual([]);
  });

  test('stays one when its pageblock changes its type', () => {
    const machine = reported();
    const pfn = machine.flagged.find((head) => machine.mm.pages.order[head] === 10)!;
    machine.mm.setMigratetype(pfn >>> 9, MigrateType.UNMOVABLE);
    expect(machine.flagged).toContain(pfn);
    expect(machine.audit).toEqual([]);
  });
});

describe('a zone', () => {
  test.each([1, -1])(
    'is left alone below the low watermark and a full report (%i page)',
    (more) => {
      const machine = new ReportingMachine(65_536).register();
      const { mm } = machine;
      // ZONE_DMA has no 32 blocks to spare anyway.
      const zone = mm.zones[1]!;
      const mark = zone.watermarkPages[AllocFlag.WMARK_LOW]! + (32 << BLOCK_ORDER);
      for (let pfn = zone.startPfn; zone.freePages > mark + more; pfn++) {
        mm.allocExact(pfn, 0, Gfp.GFP_KERNEL);
      }
      machine.runFor(3 * SECOND);
      expect(machine.reports.length > 0).toBe(more > 0);
    },
  );
});

describe('registration', () => {
  test('is for one device', () => {
    const machine = new ReportingMachine(65_536).register();
    const another = { report: machine.device.report };
    expect(machine.reporting.register(another)).toBe(Errno.EBUSY);
    machine.run(() => machine.reporting.unregister(another));
    machine.runFor(3 * SECOND);
    expect(machine.reports.length).toBeGreaterThan(0);
  });

  test('ends after the pass that is under way, and no pass follows', () => {
    const machine = new ReportingMachine(262_144);
    machine.isSlow = true;
    machine.register();
    machine.runFor(3 * SECOND);
    let isGone = false;
    machine.run(function* () {
      yield* machine.reporting.unregister(machine.device);
      isGone = true;
    });
    expect(isGone).toBe(false);
    machine.isSlow = false;
    machine.answer();
    machine.runFor(SECOND);
    expect(isGone).toBe(true);
    expect(machine.reporting.isolatedPages).toBe(0);
    expect(machine.audit).toEqual([]);
    const { length } = machine.reports;
    machine.mm.free(machine.mm.alloc(10, Gfp.GFP_KERNEL) as number, 10);
    machine.runFor(30 * SECOND);
    expect(machine.reports).toHaveLength(length);
    // Another one may come; what was reported stays so.
    const before = machine.flagged;
    machine.register();
    machine.runFor(60 * SECOND);
    expect(machine.flagged.length).toBeGreaterThan(before.length);
    expect(machine.flagged).toEqual(expect.arrayContaining(before.slice(1)));
    expect(machine.audit).toEqual([]);
  });
});
