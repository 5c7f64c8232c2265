import { describe, expect, test } from 'vitest';
import { Kcompactd } from '../../../../guest/compaction/index.ts';
import { PAGEBLOCK_NR_PAGES, ZoneType } from '../../../../guest/mm/index.ts';
import { NS_PER_MS } from '../../../../shared/index.ts';
import { CompactionMachine, type FrameKind } from './machine.ts';

/** ZONE_DMA, and a ZONE_DMA32 with seven eighths of memory. */
const RAM_PAGES = 32_768;
const blockOf = (pfn: number) => Math.floor(pfn / PAGEBLOCK_NR_PAGES);

function machineOf(kindOf: (pfn: number) => FrameKind, ramPages = RAM_PAGES) {
  const machine = new CompactionMachine({ ramPages });
  machine.layOut(kindOf);
  const kcompactd = new Kcompactd(machine.kernel, machine.compaction);
  machine.spawn(() => kcompactd.run());
  const runUntil = (ms: number) => machine.scheduler.run(ms * NS_PER_MS, 0);
  const proactive = () => machine.compaction.counters.kcompactd_cpu_ns;
  return { machine, kcompactd, runUntil, proactive };
}

describe('proactive compaction', () => {
  // ZONE_DMA scores 100 (12 of 100 by its share), ZONE_DMA32 90 or 91 (78 or 79).
  test.each([
    [5176, false],
    [5177, true],
  ])('starts above a score of 90 only: %i small pages: %s', (smallPages, starts) => {
    const first = 8 * PAGEBLOCK_NR_PAGES;
    const { runUntil, proactive, machine } = machineOf((pfn) => {
      const isSmall = pfn >= first && pfn < first + 2 * smallPages && pfn % 2 === 1;
      const isLarge = pfn >= RAM_PAGES - PAGEBLOCK_NR_PAGES;
      return pfn === 1001 || isSmall || isLarge ? 'free' : 'kernel';
    });
    expect(machine.compaction.nodeScore).toBe(starts ? 91 : 90);
    runUntil(499);
    expect(proactive()).toBe(0);
    runUntil(600);
    expect(proactive() > 0).toBe(starts);
  });

  test('stops at 80, in the middle of a zone', () => {
    const { machine, runUntil } = machineOf((pfn) => (pfn % 4 === 0 ? 'file' : 'free'), 4096);
    runUntil(600);
    const { pgmigrate_success, compact_daemon_migrate_scanned } = machine.mm.vmstat;
    // One pageblock of 128 pages makes 80 of 2,688 free pages' 100.
    expect(pgmigrate_success).toBe(128);
    expect(compact_daemon_migrate_scanned).toBeLessThan(2048);
    expect(machine.compaction.nodeScore).toBeLessThanOrEqual(80);
    expect(machine.audit()).toEqual([]);
  });

  test('looks every 500 ms while it helps, and after 64 intervals once it has not', () => {
    // One pageblock can be emptied, which is not enough; then there is nothing more to move.
    const { runUntil, machine } = machineOf((pfn) => {
      if (pfn % 2 === 1) return 'free';
      return blockOf(pfn) === 20 ? 'file' : 'kernel';
    });
    let scanned = 0;
    const ran = [499, 520, 999, 1030, 32_990, 33_100, 64_990, 65_300].map((ms) => {
      runUntil(ms);
      const before = scanned;
      scanned = machine.mm.vmstat.compact_daemon_migrate_scanned;
      return scanned > before;
    });
    expect(ran).toEqual([false, true, false, true, false, true, false, true]);
    expect(machine.mm.vmstat.pgmigrate_success).toBe(PAGEBLOCK_NR_PAGES / 2);
  });

  test('gives way to kswapd', () => {
    const { machine, runUntil } = machineOf((pfn) => (pfn % 4 === 0 ? 'file' : 'free'), 4096);
    machine.compaction.isKswapdRunning = () => true;
    runUntil(600);
    expect(machine.mm.vmstat.compact_migrate_scanned).toBe(0);
  });
});

describe('woken', () => {
  const busyNode = () => machineOf((pfn) => (pfn % 2 === 0 ? 'file' : 'free'), 4096);

  test('compacts for the order that was asked for, and for the largest of several', () => {
    const { machine, kcompactd, runUntil } = busyNode();
    runUntil(10);
    kcompactd.wake(4, ZoneType.NORMAL);
    kcompactd.wake(9, ZoneType.NORMAL);
    runUntil(100);
    expect(machine.mm.vmstat.compact_daemon_wake).toBe(1);
    expect(machine.mm.zones[0]!.nrFree[9]).toBe(1);
    runUntil(400);
    expect(machine.mm.vmstat.compact_daemon_wake).toBe(1);
    expect(machine.audit()).toEqual([]);
  });

  test.each([
    ['for single pages', 0],
    ['for a block that is there', 9],
  ])('sleeps on %s', (_what, order) => {
    const { machine, kcompactd, runUntil } = machineOf(() => 'free', 4096);
    runUntil(10);
    kcompactd.wake(order);
    runUntil(400);
    expect(machine.mm.vmstat.compact_daemon_wake).toBe(0);
  });

  test('does what was asked for while it was at work', () => {
    // The first pageblock gives blocks of 128 KiB, but no huge page.
    const { machine, kcompactd, runUntil } = machineOf((pfn) => {
      if (pfn === 1000) return 'kernel';
      return pfn % 2 === 0 ? 'file' : 'free';
    }, 4096);
    runUntil(10);
    kcompactd.wake(5, ZoneType.NORMAL);
    runUntil(11);
    kcompactd.wake(9, ZoneType.NORMAL);
    expect(machine.mm.vmstat.compact_daemon_wake).toBe(1);
    runUntil(400);
    expect(machine.mm.vmstat.compact_daemon_wake).toBe(2);
    expect(machine.mm.zones[0]!.nrFree[9]).toBeGreaterThan(0);
  });

  test('sleeps its full time afterwards', () => {
    const { kcompactd, runUntil, machine } = machineOf(
      (pfn) => (pfn % 2 === 0 ? 'kernel' : 'free'),
      4096,
    );
    runUntil(300);
    kcompactd.wake(9, ZoneType.NORMAL);
    runUntil(310);
    const { vmstat } = machine.mm;
    const afterWork = vmstat.compact_daemon_migrate_scanned;
    runUntil(790);
    expect(vmstat.compact_daemon_migrate_scanned).toBe(afterWork);
    runUntil(820);
    expect(vmstat.compact_daemon_migrate_scanned).toBeGreaterThan(afterWork);
  });

  test('defers what has failed', () => {
    const { machine, kcompactd, runUntil } = machineOf(
      (pfn) => (pfn % 2 === 0 ? 'kernel' : 'free'),
      4096,
    );
    const scans = [10, 20, 30, 40].map((ms) => {
      runUntil(ms);
      kcompactd.wake(9, ZoneType.NORMAL);
      runUntil(ms + 5);
      return machine.mm.vmstat.compact_daemon_migrate_scanned;
    });
    expect(scans[0]).toBeGreaterThan(0);
    expect(scans[1]).toBe(scans[0]);
    expect(machine.mm.vmstat.compact_daemon_wake).toBe(4);
  });
});
