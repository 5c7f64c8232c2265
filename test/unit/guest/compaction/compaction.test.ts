import { describe, expect, test } from 'vitest';
import { CompactContext } from '../../../../guest/compaction/compact-context.ts';
import type { CompactRequest } from '../../../../guest/compaction/compact-control.ts';
import { ZoneCompactor } from '../../../../guest/compaction/compact-zone.ts';
import { CompactPriority } from '../../../../guest/compaction/index.ts';
import { CompactResult } from '../../../../guest/compaction/result.ts';
import { Gfp, MigrateType, ZoneType } from '../../../../guest/mm/index.ts';
import { MigrateMode } from '../../../../guest/page-migration/index.ts';
import { Errno } from '../../../../shared/index.ts';
import { GENERATIONS } from '../page-migration/machine.ts';
import { CompactionMachine, type FrameKind } from './machine.ts';

const { ASYNC, SYNC_LIGHT, SYNC_FULL } = CompactPriority;
const MOVABLE = Gfp.GFP_HIGHUSER_MOVABLE;
const LAST_BLOCK = 3584;

/** No scan with a stride can miss all that is free. */
const scattered = (pfn: number): FrameKind =>
  (Math.imul(pfn, 0x9e3779b1) >>> 17) % 2 === 0 ? 'file' : 'free';
const alternating = (kind: FrameKind) => (pfn: number) => (pfn % 2 === 0 ? kind : 'free');

function machineOf(kindOf: (pfn: number) => FrameKind, generation?: 'list' | 'pfn') {
  const machine = new CompactionMachine(generation ? { generation } : {});
  machine.layOut(kindOf);
  return machine;
}

/** A run by itself, with what it leaves behind. */
function runOf(machine: CompactionMachine, request: Omit<CompactRequest, 'zone'>) {
  const { kernel, folios, migration } = machine;
  const context = new CompactContext(kernel, folios, migration, { pinCheck: 'anonymous' });
  const compactor = new ZoneCompactor(context);
  const zone = machine.mm.zones[ZoneType.DMA]!;
  const state = context.stateOf(zone);
  const go = () => {
    const cc = context.begin({ zone, ...request });
    return { cc, result: machine.run(() => compactor.compact(cc, 0)) };
  };
  return { context, compactor, zone, state, go };
}

describe.each(GENERATIONS)('compaction by hand (%s)', (generation) => {
  test.each(['file', 'mapped', 'anon', 'driver'] as const)(
    'gathers pages at the top: %s',
    (kind) => {
      const machine = machineOf(alternating(kind), generation);
      machine.compactMemory();
      const where = machine.movable.map((pfn) => machine.whereIs(pfn));
      // 1792 pages, 256 a block: the lower half of the blocks is empty, and the upper one full.
      expect(where.filter((pfn) => pfn < 2048)).toEqual([]);
      machine.mm.drainPcp(0);
      expect(machine.mm.zones[0]!.nrFree.slice(9)).toEqual(new Int32Array([1, 1]));
      expect(machine.audit()).toEqual([]);
    },
  );

  test('says EINVAL to anything but 1', () => {
    const machine = machineOf(alternating('file'), generation);
    expect(machine.run(() => machine.compaction.compactMemory(2))).toBe(Errno.EINVAL);
    expect(machine.mm.vmstat.compact_migrate_scanned).toBe(0);
  });
});

describe('a run', () => {
  const light = { mode: MigrateMode.SYNC_LIGHT } as const;

  test.each([
    ['is not begun when the block is there', () => 'free' as const, CompactResult.SUCCESS],
    [
      'is not begun without free memory for the copies',
      (pfn: number) => (pfn < 1200 ? alternating('file')(pfn) : 'kernel'),
      CompactResult.SKIPPED,
    ],
    [
      'is not begun when memory is what is missing',
      (pfn: number) => (pfn % 512 < 256 ? 'free' : 'kernel'),
      CompactResult.SKIPPED,
    ],
  ])('%s', (_what, kindOf, result) => {
    const { go } = runOf(machineOf(kindOf), { order: 9, ...light });
    const run = go();
    expect([run.result, run.cc.totalMigrateScanned]).toEqual([result, 0]);
  });

  test('ends with the pageblock that gives the block', () => {
    const machine = machineOf(alternating('file'));
    const { go, zone } = runOf(machine, { order: 9, ...light });
    const { cc, result } = go();
    expect([result, zone.nrFree[9]]).toEqual([CompactResult.SUCCESS, 1]);
    expect([cc.migratePfn, machine.mm.vmstat.pgmigrate_success]).toEqual([1024, 256]);
  });

  test('finishes its pageblock, whatever the order, and takes what other types can give', () => {
    const machine = machineOf(alternating('file'));
    const { go } = runOf(machine, { order: 5, ...light, gfp: Gfp.GFP_KERNEL });
    const { cc, result } = go();
    expect([result, cc.migratePfn]).toEqual([CompactResult.SUCCESS, 1024]);
    expect(machine.mm.vmstat.pgmigrate_success).toBe(256);
  });

  test('leaves alone free blocks of the size that it is for', () => {
    const machine = machineOf((pfn) => (pfn < LAST_BLOCK ? alternating('file')(pfn) : 'free'));
    const { go } = runOf(machine, { order: -1, mode: MigrateMode.SYNC, wholeZone: true });
    go();
    const moved = machine.movable.filter((pfn) => machine.whereIs(pfn) !== pfn);
    expect(moved.length).toBeGreaterThan(0);
    expect(moved.filter((pfn) => machine.whereIs(pfn) >= LAST_BLOCK)).toEqual([]);
  });

  test('has its targets in blocks without a skip bit', () => {
    const machine = machineOf(alternating('file'));
    // Its free pages are on lists that the fast search does not look at.
    for (let block = 4; block < 8; block++) machine.mm.setMigratetype(block, MigrateType.CMA);
    const { go, context } = runOf(machine, { order: 9, ...light });
    context.skip.set(LAST_BLOCK);
    expect(go().result).toBe(CompactResult.SUCCESS);
    const targets = machine.movable.map((pfn) => machine.whereIs(pfn)).filter((pfn) => pfn % 2 > 0);
    expect(new Set(targets.map((pfn) => pfn >>> 9))).toEqual(new Set([6]));
  });

  test('does not move pages within their pageblock', () => {
    const machine = machineOf((pfn) => (pfn < 1024 ? alternating('file')(pfn) : 'kernel'));
    runOf(machine, { order: -1, mode: MigrateMode.SYNC, wholeZone: true }).go();
    expect(machine.movable.filter((pfn) => machine.whereIs(pfn) !== pfn)).toEqual([]);
  });

  test('does not follow the free lists to the same block for ever', () => {
    // Half of the block is free in one piece, and its few pages have no skip bit of their own.
    const machine = machineOf((pfn) => {
      if (pfn >= 1024 && pfn < 1536) return pfn < 1280 ? 'free' : pfn < 1290 ? 'busy' : 'kernel';
      return pfn % 2 === 0 ? 'kernel' : 'free';
    });
    expect(runOf(machine, { order: 9, ...light }).go().result).toBe(CompactResult.COMPLETE);
    // Once it was led there, once it came by.
    expect(machine.mm.vmstat.pgmigrate_fail).toBe(20);
  });

  test.each([
    ['COMPLETE', true, CompactResult.COMPLETE],
    ['PARTIAL_SKIPPED if it began in the middle', false, CompactResult.PARTIAL_SKIPPED],
  ])('whose scanners meet says %s, and begins anew', (_what, isWhole, result) => {
    const machine = machineOf(alternating('kernel'));
    const { go, state } = runOf(machine, { order: 9, ...light, direct: true });
    if (!isWhole) state.setCachedMigrate(1024);
    expect(go().result).toBe(result);
    expect([state.cachedMigratePfn, state.cachedFreePfn]).toEqual([[0, 0], LAST_BLOCK]);
    expect(state.blockskipFlush).toBe(true);
  });

  test('goes on where the last one stopped', () => {
    const machine = machineOf(alternating('file'));
    const { go } = runOf(machine, { order: 9, ...light });
    go();
    // The block that the first has made is taken, so that another is needed.
    expect(machine.mm.alloc(9, Gfp.GFP_KERNEL)).toBe(512);
    const { cc } = go();
    expect(cc.migratePfn).toBe(1536);
    expect(cc.totalMigrateScanned).toBe(512);
  });

  test.each([
    ['asynchronous', MigrateMode.ASYNC, [1536, 512]],
    ['synchronous', MigrateMode.SYNC_LIGHT, [1536, 1536]],
  ])('that is %s moves the cursors of its kind', (_what, mode, cursors) => {
    // Nothing of the first block of users can be moved, and everything of the next.
    const machine = machineOf((pfn) => (pfn < 1024 ? 'kernel' : scattered(pfn)));
    const { go, state } = runOf(machine, { order: 9, mode, direct: true, gfp: MOVABLE });
    state.setCachedMigrate(512);
    expect(go().result).toBe(CompactResult.SUCCESS);
    expect(state.cachedMigratePfn).toEqual(cursors);
  });

  test('scans the rest of a block at once when a page of it does not move, and marks the block', () => {
    const machine = machineOf((pfn) => {
      if (pfn >= 1024) return alternating('kernel')(pfn);
      return pfn === 512 ? 'held' : 'file';
    });
    const { go, context } = runOf(machine, { order: 9, ...light });
    go();
    const { vmstat } = machine.mm;
    // A cluster, then the other 480 in one go: the held page is not tried twice.
    expect([vmstat.pgmigrate_success, vmstat.pgmigrate_fail]).toEqual([511, 1]);
    expect(context.skip.get(512)).toBe(true);
    expect(machine.audit()).toEqual([]);
  });

  test('is contended when targets run out before the scanners have met', () => {
    // The zone is at its watermark: free frames may not be isolated.
    const machine = machineOf(alternating('file'));
    const { go, zone } = runOf(machine, { order: -1, mode: MigrateMode.SYNC, wholeZone: true });
    zone.watermarkPages.fill(zone.freePages);
    expect(go().result).toBe(CompactResult.CONTENDED);
    expect(machine.mm.vmstat.pgmigrate_success).toBe(0);
    expect(machine.audit()).toEqual([]);
  });

  test('splits targets, and gives back what was not needed of them', () => {
    // Free are two blocks of 256 pages, one in each of the last two pageblocks.
    const machine = machineOf((pfn) => (pfn >= 512 && pfn < 612 ? 'driver' : 'free'));
    const request = { order: -1, mode: MigrateMode.SYNC, wholeZone: true } as const;
    const { go, state } = runOf(machine, request);
    machine.mm.allocExact(3072, 8, Gfp.GFP_KERNEL);
    machine.mm.allocExact(3584, 8, Gfp.GFP_KERNEL);
    for (let pfn = 612; pfn < 3072; pfn++) machine.mm.allocExact(pfn, 0, Gfp.GFP_KERNEL);
    go();
    expect(machine.movable.map((pfn) => machine.whereIs(pfn) - 3840)).toEqual(
      Array.from({ length: 100 }, (_, i) => i),
    );
    machine.mm.drainPcp(0);
    expect([machine.mm.freePages(), state.cachedFreePfn]).toEqual([512, LAST_BLOCK]);
    expect(machine.audit()).toEqual([]);
  });

  test('leaves the free cursor where it gave back targets', () => {
    const machine = machineOf((pfn) => {
      if (pfn >= 3840 || (pfn >= 1024 && pfn < 3072 && pfn % 2 > 0)) return 'free';
      return pfn >= 512 && pfn < 1024 ? (pfn < 612 ? 'driver' : 'free') : 'kernel';
    });
    machine.mm.setMigratetype(7, MigrateType.CMA);
    for (let block = 2; block < 6; block++) machine.mm.setMigratetype(block, MigrateType.UNMOVABLE);
    const { go, state } = runOf(machine, { order: 9, ...light });
    expect(go().result).toBe(CompactResult.SUCCESS);
    expect(machine.mm.vmstat.pgmigrate_success).toBe(100);
    expect(state.cachedFreePfn).toBe(LAST_BLOCK);
  });

  test('restarts after the longest deferral with clear skip bits', () => {
    const machine = machineOf(scattered);
    const { go, context, state } = runOf(machine, { order: 9, ...light });
    for (let pfn = 0; pfn < 4096; pfn += 512) context.skip.set(pfn);
    expect(go().result).toBe(CompactResult.COMPLETE);
    for (let i = 0; i < 6; i++) state.defer(9);
    while (state.isDeferred(9));
    expect(go().result).toBe(CompactResult.SUCCESS);
  });
});

describe('direct compaction', () => {
  test.each([
    // Asynchronous runs stay in blocks of the request's type.
    ['ASYNC, movable', ASYNC, MOVABLE, true, 1],
    ['ASYNC, unmovable', ASYNC, Gfp.GFP_KERNEL, false, 1],
    ['SYNC_LIGHT, unmovable', SYNC_LIGHT, Gfp.GFP_KERNEL, true, 1],
    ['without FS, page cache stays', SYNC_LIGHT, Gfp.GFP_NOFS, false, 1],
  ])('%s', (_what, priority, gfp, success, stalls) => {
    const machine = machineOf(scattered);
    expect(machine.tryToCompact(9, priority, gfp)).toBe(success);
    const { compact_stall, compact_success, compact_fail } = machine.mm.vmstat;
    expect([compact_stall, compact_success, compact_fail]).toEqual([
      stalls,
      success ? 1 : 0,
      success ? 0 : 1,
    ]);
  });

  test('tries harder and harder', () => {
    const machine = machineOf(alternating('file'));
    expect(machine.run(() => machine.compaction.directCompact(9, Gfp.GFP_KERNEL))).toBe(true);
    const { compact_stall, compact_success, compact_fail } = machine.mm.vmstat;
    expect([compact_stall, compact_success, compact_fail]).toEqual([2, 1, 1]);
    expect(machine.mm.alloc(9, Gfp.GFP_KERNEL)).toBe(512);
  });

  test.each([
    ['order 0', 0, Gfp.GFP_KERNEL, 0],
    ['an allocation that may not start IO', 9, Gfp.GFP_NOWAIT, 0],
    ['one that would rather fail', 9, Gfp.GFP_KERNEL | Gfp.__GFP_NORETRY, 1],
  ])('is not for %s', (_what, order, gfp, stalls) => {
    const machine = machineOf(alternating('file'));
    expect(machine.run(() => machine.compaction.directCompact(order, gfp))).toBe(false);
    expect(machine.mm.vmstat.compact_stall).toBe(stalls);
  });

  test('is deferred after failures, but not in full', () => {
    const machine = machineOf(alternating('kernel'));
    const stalls = () => machine.mm.vmstat.compact_stall;
    const counts = Array.from({ length: 8 }, () => {
      machine.tryToCompact(9, SYNC_LIGHT);
      return stalls();
    });
    // Made, left out once, made, left out three times, made, …
    expect(counts).toEqual([1, 1, 2, 2, 2, 2, 3, 3]);
    machine.tryToCompact(9, SYNC_FULL);
    expect(stalls()).toBe(4);
  });

  test('is no longer deferred once its block was there', () => {
    const machine = machineOf(alternating('kernel'));
    for (let i = 0; i < 4; i++) machine.tryToCompact(9, SYNC_LIGHT);
    const stalls = machine.mm.vmstat.compact_stall;
    for (let pfn = 512; pfn < 1536; pfn += 2) machine.mm.free(pfn, 0);
    machine.mm.drainPcp(0);
    expect(machine.tryToCompact(9, SYNC_FULL)).toBe(true);
    for (let i = 0; i < 2; i++) expect(machine.mm.alloc(9, Gfp.GFP_KERNEL)).toBeGreaterThan(0);
    machine.tryToCompact(9, SYNC_LIGHT);
    expect(machine.mm.vmstat.compact_stall).toBe(stalls + 2);
  });

  test('in full ignores skip bits and fills blocks of any type', () => {
    const machine = machineOf(alternating('file'));
    for (let block = 4; block < 8; block++) machine.mm.setMigratetype(block, MigrateType.UNMOVABLE);
    for (let block = 1; block < 4; block++) machine.mm.setMigratetype(block, MigrateType.UNMOVABLE);
    expect(machine.tryToCompact(9, SYNC_LIGHT)).toBe(false);
    expect(machine.tryToCompact(9, SYNC_FULL)).toBe(true);
  });

  test('finds its skip bits cleared once kswapd has slept', () => {
    const machine = machineOf((pfn) => (scattered(pfn) === 'file' ? 'held' : 'free'));
    const scanned = () => machine.mm.vmstat.compact_migrate_scanned;
    const passes = [false, true].map((sleeps) => {
      machine.tryToCompact(9, SYNC_LIGHT);
      const before = scanned();
      if (sleeps) machine.compaction.onKswapdSleep();
      // More than are deferred by now.
      for (let i = 0; i < 8; i++) machine.tryToCompact(9, SYNC_LIGHT);
      return scanned() - before;
    });
    // The block in which the scanners met had no bit.
    expect(passes[0]).toBeLessThanOrEqual(512);
    expect(passes[1]).toBeGreaterThan(1000);
  });

  test('charges what it does to its thread', () => {
    const machine = machineOf(alternating('file'));
    const before = machine.scheduler.kthreadCpuNs;
    machine.tryToCompact(9, SYNC_LIGHT);
    const { compaction_cpu_ns, kcompactd_cpu_ns } = machine.compaction.counters;
    expect(compaction_cpu_ns).toBe(machine.scheduler.kthreadCpuNs - before);
    expect(compaction_cpu_ns).toBeGreaterThan(256 * machine.kernel.costs.migratePageNs);
    expect(kcompactd_cpu_ns).toBe(0);
  });
});
