import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Kcompactd } from '../../../../guest/kernel/kcompactd.ts';
import type { Ram } from '../../../../guest/machine/ram.ts';
import {
  fragmentationScore,
  MigrateType,
  type MovablePages,
  PAGEBLOCK_NR_PAGES,
} from '../../../../guest/mm/index.ts';
import { NS_PER_MS } from '../../../../shared/index.ts';
import { bareKernel } from './machine.ts';

const MS = NS_PER_MS;
/** ZONE_DMA alone, and with a ZONE_DMA32 that has seven eighths of memory. */
const DMA_PAGES = 4096;
const TWO_ZONES_PAGES = 32_768;

const blockOf = (pfn: number) => Math.floor(pfn / PAGEBLOCK_NR_PAGES);

/** Pages that a test has registered, and where they went. */
class Registered implements MovablePages {
  readonly moves: [from: number, to: number][] = [];
  readonly pages: Set<number>;
  readonly #ram: Ram;

  constructor(ram: Ram, pages: Iterable<number>) {
    this.#ram = ram;
    this.pages = new Set(pages);
  }

  isMovable(pfn: number): boolean {
    return this.pages.has(pfn);
  }

  move(from: number, to: number): void {
    expect(this.pages.delete(from)).toBe(true);
    this.pages.add(to);
    this.moves.push([from, to]);
    this.#ram.copy(from, to);
  }
}

function machine(
  ramPages: number,
  isFree: (pfn: number) => boolean,
  isMovable: (pfn: number) => boolean,
) {
  const bare = bareKernel({ ramPages, isFree });
  const used = Array.from({ length: ramPages }, (_, pfn) => pfn).filter((pfn) => !isFree(pfn));
  const movable = new Registered(bare.ram, used.filter(isMovable));
  const kcompactd = new Kcompactd(bare.kernel);
  kcompactd.movable = movable;
  bare.scheduler.spawn(() => kcompactd.run());
  const runUntil = (ms: number) => bare.scheduler.run(ms * MS, 0);
  return { ...bare, kcompactd, movable, used, runUntil };
}

describe('the fragmentation score', () => {
  test.each([
    ['no free memory', 0, 0, 0],
    ['one huge page', 512, 0, 0],
    ['single pages alone', 0, 100, 100],
    ['one single page beside a huge page', 512, 1, 0],
    ['half', 512, 512, 50],
    ['rounded down', 1024, 512, 33],
  ])('of %s', (_what, largePages, singlePages, score) => {
    const first = DMA_PAGES - largePages;
    const { mm } = bareKernel({
      ramPages: DMA_PAGES,
      isFree: (pfn) => pfn >= first || (pfn % 2 === 1 && pfn < 2 * singlePages),
    });
    expect(fragmentationScore(mm.zones[0]!)).toBe(score);
  });

  test('does not count per-CPU lists', () => {
    const { mm } = bareKernel({ ramPages: DMA_PAGES, isFree: (pfn) => pfn >= 3584 });
    mm.free(1, 0);
    expect(fragmentationScore(mm.zones[0]!)).toBe(0);
    mm.drainPcp(0);
    mm.free(3, 0);
    expect(mm.zones[0]!.nrFree[0]).toBe(1);
  });
});

describe('proactive compaction', () => {
  // ZONE_DMA scores 100 (12 of 100 by its share), ZONE_DMA32 90 or 91 (78 or 79).
  test.each([
    [5176, 0],
    [5177, 1],
  ])('starts above 90 only: %i small pages, %i wake-ups', (smallPages, wakes) => {
    const first = 8 * PAGEBLOCK_NR_PAGES;
    const { kcompactd, runUntil } = machine(
      TWO_ZONES_PAGES,
      (pfn) =>
        pfn === 101 ||
        (pfn >= first && pfn < first + 2 * smallPages && pfn % 2 === 1) ||
        pfn >= TWO_ZONES_PAGES - PAGEBLOCK_NR_PAGES,
      () => false,
    );
    runUntil(501);
    expect(kcompactd.counters.compact_daemon_wake).toBe(wakes);
  });

  // One pageblock made free of 2694 pages leaves a score of 80, of 2695 one of 81.
  test.each([
    [2694, false],
    [2695, true],
  ])('stops at 80: with %i free pages it goes on after one pageblock: %s', (freePages, goesOn) => {
    const extra = 3072 - freePages;
    const fullBlock = 6 * PAGEBLOCK_NR_PAGES;
    let filled = 0;
    const taken = new Set<number>();
    for (let pfn = fullBlock; filled < extra; pfn++) {
      if (pfn % 4 === 0) continue;
      taken.add(pfn);
      filled++;
    }
    const { movable, mm, runUntil } = machine(
      DMA_PAGES,
      (pfn) => pfn % 4 !== 0 && !taken.has(pfn),
      (pfn) => pfn < 4 * PAGEBLOCK_NR_PAGES,
    );
    runUntil(600);
    const from = movable.moves.map(([pfn]) => pfn);
    expect(from.slice(0, 128)).toEqual(Array.from({ length: 128 }, (_, i) => 4 * i));
    expect(from.length > 128).toBe(goesOn);
    expect(mm.freePages()).toBe(freePages);
    expect(mm.audit()).toEqual([]);
  });

  test('looks every 500 ms while it helps, and after 64 intervals once it has not', () => {
    // One pageblock can be emptied, which is not enough; then there is nothing more to move.
    const { kcompactd, runUntil } = machine(
      TWO_ZONES_PAGES,
      (pfn) => pfn % 2 === 1,
      (pfn) => blockOf(pfn) === 20,
    );
    const wakes = [499, 501, 999, 1030, 32_990, 33_100, 64_990, 65_200].map((ms) => {
      runUntil(ms);
      return kcompactd.counters.compact_daemon_wake;
    });
    expect(wakes).toEqual([0, 1, 1, 2, 2, 3, 3, 4]);
    expect(kcompactd.counters.pgmigrate_success).toBe(PAGEBLOCK_NR_PAGES / 2);
  });

  test('does not wake up when nobody has registered pages', () => {
    const { kcompactd, runUntil } = machine(
      DMA_PAGES,
      (pfn) => pfn % 2 === 1,
      () => true,
    );
    kcompactd.movable = null;
    runUntil(5000);
    expect(kcompactd.counters.compact_daemon_wake).toBe(0);
  });

  test('pays for each page that it moves', () => {
    const { kcompactd, kernel, scheduler, runUntil } = machine(
      DMA_PAGES,
      (pfn) => pfn % 2 === 1,
      () => true,
    );
    runUntil(600);
    const moved = kcompactd.counters.pgmigrate_success;
    expect(moved).toBe(PAGEBLOCK_NR_PAGES / 2);
    const scanned = kernel.costs.zoneLockNs + PAGEBLOCK_NR_PAGES * kernel.costs.listNodeNs;
    expect(scheduler.kthreadCpuNs).toBe(moved * kernel.costs.migratePageNs + scanned);
  });

  test('ends where the scanners meet', () => {
    // What could move is above all that is free.
    const { kcompactd, movable, runUntil } = machine(
      DMA_PAGES,
      (pfn) => pfn % 2 === 1 && blockOf(pfn) < 7,
      (pfn) => blockOf(pfn) === 7,
    );
    runUntil(600);
    expect(kcompactd.counters.compact_daemon_wake).toBe(1);
    expect(movable.moves).toEqual([]);
  });

  test('conserves contents and owners, and leaves alone what it must', () => {
    let compacted = 0;
    const property = (seed: number, freeOf8: number, movableOf8: number) => {
      const mix = (pfn: number, salt: number) =>
        (Math.imul(pfn + 1, 0x9e3779b1) ^ Math.imul(seed + salt, 0x85ebca6b)) >>> 13;
      const isLarge = (pfn: number) => blockOf(pfn) === 47;
      const isFree = (pfn: number) =>
        isLarge(pfn) || (pfn % PAGEBLOCK_NR_PAGES !== 3 && mix(pfn, 1) % 8 < freeOf8);
      const m = machine(TWO_ZONES_PAGES, isFree, (pfn) => mix(pfn, 2) % 8 < movableOf8);
      const isForeign = (pfn: number) => blockOf(pfn) % 8 === 6;
      for (let block = 6; block < TWO_ZONES_PAGES / PAGEBLOCK_NR_PAGES; block += 8) {
        m.mm.setMigratetype(block, block % 16 === 6 ? MigrateType.UNMOVABLE : MigrateType.ISOLATE);
      }
      const registered = new Set(m.movable.pages);
      const tags = m.ram.tags.slice();
      const freePages = m.mm.freePages();
      m.runUntil(5000);

      const now = new Map<number, number>();
      for (const [from, to] of m.movable.moves) {
        compacted++;
        expect(registered.has(from)).toBe(true);
        expect(to).toBeGreaterThan(from);
        expect(isLarge(to) || isForeign(to)).toBe(false);
        now.set(from, to);
      }
      for (const pfn of m.used) {
        const at = now.get(pfn) ?? pfn;
        if (m.ram.tags[at] !== tags[pfn] || m.mm.isFree(at)) expect.fail(`frame ${pfn} at ${at}`);
      }
      expect([m.mm.freePages(), m.mm.audit()]).toEqual([freePages, []]);
    };
    fc.assert(
      fc.property(
        fc.nat(),
        fc.integer({ min: 3, max: 6 }),
        fc.integer({ min: 4, max: 8 }),
        property,
      ),
      { numRuns: 5, seed: 7 },
    );
    expect(compacted).toBeGreaterThan(1000);
  });
});
