import { describe, expect, test } from 'vitest';
import { FreePages, isolateTarget } from '../../../../guest/compaction/free-pages.ts';
import { Gfp, MigrateType, PageOwner } from '../../../../guest/mm/index.ts';
import { freshMachine } from '../mm/machine.ts';

/** Frames 1024 to 2047 are one free block of order 10, and all others are in use. */
function isolated() {
  const { mm } = freshMachine({ ramPages: 4096 });
  const zone = mm.zones[0]!;
  for (let pfn = 1; pfn < 1024; pfn++) mm.allocExact(pfn, 0, Gfp.GFP_KERNEL);
  zone.watermarkPages.fill(0);
  const free = new FreePages(mm);
  const take = (head: number) => {
    const { order } = mm.pages;
    const pageCount = isolateTarget(mm, zone, head);
    if (pageCount > 0) free.add(head, order[head]!);
    return pageCount;
  };
  return { mm, zone, free, take };
}

describe('isolated free pages', () => {
  test('belong to nobody else, and are free again afterwards', () => {
    const { mm, free, take } = isolated();
    const before = mm.freePages();
    expect([take(1024), free.pageCount, mm.freePages()]).toEqual([1024, 1024, before - 1024]);
    expect([mm.pages.owner[1024], mm.pages.refcount[1024]]).toEqual([PageOwner.COMPACTION, 0]);
    expect(mm.audit()).toEqual([]);
    expect([free.release(0), free.pageCount, mm.freePages()]).toEqual([1024, 0, before]);
    expect(mm.audit()).toEqual([]);
  });

  test('are refused below the minimum watermark', () => {
    const { zone, take } = isolated();
    // In use by it: the block itself, its pages above the mark.
    zone.watermarkPages.fill(zone.freePages - 1024);
    expect(take(1024)).toBe(0);
    zone.watermarkPages.fill(zone.freePages - 1025);
    expect(take(1024)).toBe(1024);
  });

  test('turn their pageblocks movable when they fill them', () => {
    const { mm, take } = isolated();
    mm.setMigratetype(2, MigrateType.UNMOVABLE);
    mm.setMigratetype(3, MigrateType.RECLAIMABLE);
    take(1024);
    expect([...mm.pageblocks.types.slice(2, 4)]).toEqual([
      MigrateType.MOVABLE,
      MigrateType.MOVABLE,
    ]);
  });

  test('are split from below, first in first out', () => {
    const { mm, free, take } = isolated();
    take(1024);
    expect([free.take(0), free.take(0), free.take(3), free.take(0)]).toEqual([
      1024, 1025, 1032, 1026,
    ]);
    expect(free.pageCount).toBe(1024 - 11);
    expect([mm.pages.refcount[1032], mm.pages.order[1032]]).toEqual([1, 3]);
    expect([free.take(10), mm.audit()]).toEqual([-1, []]);
  });

  test('come back first, unless somebody else refers to them by then', () => {
    const { mm, free, take } = isolated();
    take(1024);
    const [first, second] = [free.take(0), free.take(0)];
    mm.pages.tryGet(second);
    free.giveBack(first);
    free.giveBack(second);
    expect([free.take(0), free.take(0), mm.pages.refcount[second]]).toEqual([1024, 1026, 1]);
  });

  test('stay in order when one comes back to an empty list', () => {
    const { mm, free, take } = isolated();
    take(1024);
    const all = Array.from({ length: 4 }, () => free.take(8));
    expect(all).toEqual([1024, 1280, 1536, 1792]);
    for (const pfn of all) free.giveBack(pfn);
    expect(free.pageCount).toBe(1024);
    take(2048);
    expect([free.take(8), free.take(8), free.take(10)]).toEqual([1792, 1536, 2048]);
    expect(mm.audit()).toEqual([]);
  });

  test('come back to an empty list, and another joins behind', () => {
    const { mm, zone, free, take } = isolated();
    take(1024);
    const pfn = free.take(10);
    free.giveBack(pfn);
    expect(zone.nrFree[10]).toBeGreaterThan(0);
    take(2048);
    expect([free.take(10), free.take(10), free.take(10), mm.audit()]).toEqual([1024, 2048, -1, []]);
  });
});
