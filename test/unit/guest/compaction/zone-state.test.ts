import { describe, expect, test } from 'vitest';
import { CompactZoneState, SkipBits } from '../../../../guest/compaction/zone-state.ts';
import {
  fragmentationIndex,
  fragmentationScore,
  MigrateType,
  PAGEBLOCK_NR_PAGES,
} from '../../../../guest/mm/index.ts';
import { bareKernel } from '../kernel/machine.ts';
import { CompactionMachine, type FrameKind } from './machine.ts';

const RAM_PAGES = 4096;
const LAST_BLOCK = RAM_PAGES - PAGEBLOCK_NR_PAGES;

/** ZONE_DMA alone with these frames free. */
function zoneWith(isFree: (pfn: number) => boolean) {
  return bareKernel({ ramPages: RAM_PAGES, isFree }).mm.zones[0]!;
}

describe('the fragmentation index', () => {
  /** So many free blocks of these orders, which cannot merge. */
  const withBlocks = (counts: Readonly<Record<number, number>>) => {
    const free = new Set<number>();
    let at = 0;
    for (const [order, count] of Object.entries(counts).reverse()) {
      const pageCount = 1 << Number(order);
      for (let i = 0; i < count; i++, at += 2 * pageCount) {
        for (let pfn = at; pfn < at + pageCount; pfn++) free.add(pfn);
      }
    }
    return zoneWith((pfn) => free.has(pfn));
  };

  // 1000 − floor((1000 + floor(F·1000 / 2^order)) / B)
  test.each([
    ['no free memory', {}, 9, 0],
    ['a block that suffices', { 9: 1 }, 9, -1000],
    ['a larger block', { 4: 1 }, 3, -1000],
    ['one block of half the size: lack of memory', { 8: 1 }, 9, -500],
    ['two blocks of half the size', { 8: 2 }, 9, 0],
    ['single pages, as many as are needed', { 0: 512 }, 9, 997],
    ['few single pages', { 0: 4 }, 9, 749],
    ['one single page', { 0: 1 }, 9, -1],
    ['a mixture', { 0: 100, 3: 20, 5: 3 }, 9, 987],
  ])('of %s: %j, order %i is %i', (_what, blocks, order, index) => {
    expect(fragmentationIndex(withBlocks(blocks), order)).toBe(index);
  });
});

describe('the fragmentation score', () => {
  test.each([
    ['no free memory', 0, 0, 0],
    ['one huge page', 512, 0, 0],
    ['single pages alone', 0, 100, 100],
    ['one single page beside a huge page', 512, 1, 0],
    ['half', 512, 512, 50],
    ['rounded down', 1024, 512, 33],
  ])('of %s', (_what, largePages, singlePages, score) => {
    const first = RAM_PAGES - largePages;
    const zone = zoneWith((pfn) => pfn >= first || (pfn % 2 === 1 && pfn < 2 * singlePages));
    expect(fragmentationScore(zone)).toBe(score);
  });

  test('does not count per-CPU lists', () => {
    const { mm } = bareKernel({ ramPages: RAM_PAGES, isFree: (pfn) => pfn >= LAST_BLOCK });
    mm.free(1, 0);
    expect(fragmentationScore(mm.zones[0]!)).toBe(0);
    mm.drainPcp(0);
    mm.free(3, 0);
    expect(mm.zones[0]!.nrFree[0]).toBe(1);
  });
});

describe('deferral', () => {
  const newState = () => new CompactZoneState(zoneWith(() => true));
  /** Attempts that are left out before the next one is made. */
  const leftOut = (state: CompactZoneState, order: number) => {
    let count = 0;
    while (state.isDeferred(order)) count++;
    return count;
  };

  test('leaves out 2^shift − 1 attempts after the shift-th failure, 63 at most', () => {
    const state = newState();
    const counts = Array.from({ length: 9 }, () => {
      state.defer(9);
      return leftOut(state, 9);
    });
    expect(counts).toEqual([1, 3, 7, 15, 31, 63, 63, 63, 63]);
  });

  test('goes on trying once it is over', () => {
    const state = newState();
    state.defer(9);
    expect([leftOut(state, 9), leftOut(state, 9)]).toEqual([1, 0]);
  });

  test.each([
    [8, false],
    [9, true],
    [10, true],
  ])('of order 9 defers order %i: %s', (order, isDeferred) => {
    const state = newState();
    state.resetDefer(8, false);
    state.defer(9);
    expect(state.isDeferred(order)).toBe(isDeferred);
  });

  test('ends with a success: the order is tried again, and all of them once it was allocated', () => {
    const state = newState();
    for (let i = 0; i < 6; i++) state.defer(9);
    state.resetDefer(9, false);
    expect([state.isDeferred(9), state.isDeferred(10)]).toEqual([false, true]);
    state.resetDefer(9, true);
    expect([leftOut(state, 10), state.deferShift]).toEqual([0, 0]);
  });

  test('restarts after the longest one', () => {
    const state = newState();
    for (let i = 0; i < 5; i++) state.defer(9);
    leftOut(state, 9);
    expect(state.isRestarting(9)).toBe(false);
    state.defer(9);
    expect(state.isRestarting(9)).toBe(false);
    leftOut(state, 9);
    expect(state.isRestarting(9)).toBe(true);
  });
});

describe('resetting the skip bits', () => {
  /** All blocks skipped; one frame in each is of its kind, at this place. */
  const reset = (kindOfBlock: (block: number) => FrameKind, place = 0) => {
    const machine = new CompactionMachine();
    machine.layOut((pfn) =>
      pfn % PAGEBLOCK_NR_PAGES === place ? kindOfBlock(pfn >>> 9) : 'kernel',
    );
    const skip = new SkipBits(machine.mm);
    const state = new CompactZoneState(machine.mm.zones[0]!);
    for (let block = 0; block < 8; block++) skip.set(block << 9);
    state.blockskipFlush = true;
    skip.reset(state);
    expect(state.blockskipFlush).toBe(false);
    const cleared = [0, 1, 2, 3, 4, 5, 6, 7].filter((block) => !skip.get(block << 9));
    return { machine, skip, state, cleared };
  };

  test('clears those of blocks with something to take or to fill, and sets both cursors', () => {
    const { state, cleared } = reset((block) => (block < 4 ? 'file' : 'free'));
    expect(cleared).toEqual([1, 2, 3, 4, 5, 6, 7]);
    expect([state.cachedMigratePfn, state.cachedFreePfn]).toEqual([[512, 512], LAST_BLOCK]);
    expect(state.initMigratePfn).toBe(512);
  });

  test('sees every eighth frame only', () => {
    expect(reset(() => 'file', 8).cleared).toContain(1);
    expect(reset(() => 'file', 9).cleared).toEqual([]);
  });

  test('does not clear that of a block with nothing but pages of drivers', () => {
    const { cleared } = reset((block) => (block === 2 ? 'driver' : block === 1 ? 'file' : 'free'));
    expect(cleared).not.toContain(2);
    expect(cleared).toContain(1);
  });

  test('puts the cursors together when nothing is to be had', () => {
    const { state, cleared } = reset(() => 'kernel');
    expect(cleared).toEqual([]);
    expect(state.cachedFreePfn).toBeLessThan(state.cachedMigratePfn[0]);
  });

  test('takes no unmovable block for the first target', () => {
    const machine = new CompactionMachine();
    machine.layOut((pfn) => (pfn < 2048 ? 'file' : 'free'));
    machine.mm.setMigratetype(7, MigrateType.UNMOVABLE);
    const state = new CompactZoneState(machine.mm.zones[0]!);
    new SkipBits(machine.mm).reset(state);
    expect(state.cachedFreePfn).toBe(LAST_BLOCK - PAGEBLOCK_NR_PAGES);
  });
});
