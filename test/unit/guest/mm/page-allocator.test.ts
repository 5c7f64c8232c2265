import { describe, expect, test } from 'vitest';
import {
  Gfp,
  METADATA_BYTES_PER_PAGE,
  MigrateType,
  PAGEBLOCK_NR_PAGES,
  PageFlag,
  ZoneType,
} from '../../../../guest/mm/index.ts';
import { Bitmap, Errno } from '../../../../shared/index.ts';
import { freshMachine, NO_INIT } from './machine.ts';

/** What the balloon asks for when it hints: no reclaim, no reserves. */
const HINT_GFP = Gfp.__GFP_NORETRY | Gfp.__GFP_NOWARN | Gfp.__GFP_NOMEMALLOC;

function allocUntilFailure(alloc: () => number): { pfns: number[]; errno: number } {
  const pfns: number[] = [];
  for (;;) {
    const pfn = alloc();
    if (pfn < 0) return { pfns, errno: pfn };
    pfns.push(pfn);
  }
}

describe('alloc', () => {
  test.each([-1, 11, 64])('answers EINVAL for order %i', (order) => {
    expect(freshMachine().mm.alloc(order, Gfp.GFP_KERNEL)).toBe(Errno.EINVAL);
  });

  test('stops at the minimum watermark for hints, and goes below it for GFP_ATOMIC', () => {
    const { mm } = freshMachine();
    const zone = mm.zones[ZoneType.DMA32]!;
    const { errno } = allocUntilFailure(() => mm.alloc(0, HINT_GFP));
    expect(errno).toBe(Errno.ENOMEM);
    mm.drainPcp(0);
    const min = zone.watermarkPages[0]!;
    expect(min).toBeGreaterThan(0);
    // The last refill may take one batch below the mark, as it does not look at it again.
    expect(zone.freePages).toBeGreaterThan(min - mm.pcp.batchPages(zone));
    expect(zone.freePages).toBeLessThanOrEqual(min + mm.pcp.batchPages(zone));
    expect(mm.vmstat.alloc_failures).toBe(1);
    expect(mm.vmstat.allocstall).toBe(0);
    expect(allocUntilFailure(() => mm.alloc(0, Gfp.GFP_ATOMIC)).pfns.length).toBeGreaterThan(0);
    expect(mm.audit()).toEqual([]);
  });

  test('stalls once for reclaim when the request may sleep, and succeeds with what it frees', () => {
    const { mm } = freshMachine();
    const { pfns } = allocUntilFailure(() => mm.alloc(4, Gfp.GFP_KERNEL));
    expect(mm.vmstat.allocstall).toBe(1);
    expect(mm.vmstat.kswapd_wakeups).toBeGreaterThan(0);
    mm.free(pfns[0]!, 4);
    expect(mm.alloc(4, Gfp.GFP_KERNEL)).toBe(pfns[0]);
  });

  test('keeps the lowmem reserve of ZONE_DMA from requests that could use more', () => {
    const { mm } = freshMachine({ ramPages: 1 << 18 });
    const dma = mm.zones[ZoneType.DMA]!;
    allocUntilFailure(() => mm.alloc(10, HINT_GFP));
    const reserve = dma.lowmemReservePages[ZoneType.NORMAL]!;
    expect(reserve).toBe(Math.floor(((1 << 18) - 4096) / 256));
    expect(dma.freePages).toBeGreaterThan(reserve);
    expect(mm.alloc(0, HINT_GFP | Gfp.GFP_DMA)).toBeLessThan(4096);
  });

  test('uses ZONE_MOVABLE for movable user memory only', () => {
    const { mm } = freshMachine({ movablePages: 4096 });
    const start = mm.zones[ZoneType.MOVABLE]!.startPfn;
    expect(start).toBe((1 << 14) - 4096);
    expect(mm.alloc(0, Gfp.GFP_HIGHUSER_MOVABLE)).toBeGreaterThanOrEqual(start);
    expect(mm.alloc(0, Gfp.GFP_KERNEL)).toBeLessThan(start);
    expect(mm.vmstat.pgalloc_movable).toBe(1);
  });

  test('hands out neighbouring frames in ascending order on a fresh machine', () => {
    const { mm } = freshMachine();
    const first = mm.alloc(0, Gfp.GFP_HIGHUSER_MOVABLE);
    expect([1, 2, 3].map(() => mm.alloc(0, Gfp.GFP_HIGHUSER_MOVABLE))).toEqual([
      first + 1,
      first + 2,
      first + 3,
    ]);
  });
});

describe('fallback', () => {
  test('steals the largest block and converts its pageblocks', () => {
    const { mm } = freshMachine();
    const pfn = mm.alloc(0, Gfp.GFP_KERNEL);
    expect(mm.pageblocks.typeOf(pfn)).toBe(MigrateType.UNMOVABLE);
    expect(mm.pageblocks.typeOf(pfn ^ PAGEBLOCK_NR_PAGES)).toBe(MigrateType.UNMOVABLE);
    expect(mm.audit()).toEqual([]);
  });

  test('lets a movable request take a small block without its pageblock', () => {
    const { mm } = freshMachine({ ramPages: 1 << 13 });
    for (let block = 0; block < 16; block++) mm.setMigratetype(block, MigrateType.UNMOVABLE);
    for (let pfn = 4096; pfn < 1 << 13; pfn += 2) mm.allocExact(pfn, 0, Gfp.GFP_KERNEL);
    for (let pfn = 1; pfn < 4096; pfn++) mm.allocExact(pfn, 0, Gfp.GFP_KERNEL);
    const pfn = mm.alloc(0, Gfp.GFP_HIGHUSER_MOVABLE);
    expect(pfn).toBeGreaterThanOrEqual(4096);
    expect(mm.pageblocks.typeOf(pfn)).toBe(MigrateType.UNMOVABLE);
  });

  test('never takes from ISOLATE', () => {
    const { mm } = freshMachine({ ramPages: 1 << 13 });
    for (let block = 8; block < 16; block++) mm.setMigratetype(block, MigrateType.ISOLATE);
    const { pfns } = allocUntilFailure(() => mm.alloc(0, Gfp.GFP_HIGHUSER_MOVABLE));
    expect(Math.max(...pfns)).toBeLessThan(4096);
    expect(mm.zones[ZoneType.DMA32]!.freePages).toBe(0);
    expect(mm.freePages()).toBeGreaterThanOrEqual(4096);
    expect(mm.audit()).toEqual([]);
  });
});

describe('page contents', () => {
  const none: string[] = [];
  test.each([
    { id: 'nothing', mm: NO_INIT, gfp: Gfp.GFP_KERNEL, alloc: none, free: none },
    { id: '__GFP_ZERO', mm: NO_INIT, gfp: Gfp.__GFP_ZERO, alloc: ['zero 4+4'], free: none },
    {
      id: 'init_on_alloc',
      mm: { ...NO_INIT, initOnAlloc: true },
      gfp: Gfp.GFP_KERNEL,
      alloc: ['zero 4+4'],
      free: none,
    },
    {
      id: 'init_on_free',
      mm: { ...NO_INIT, initOnFree: true },
      gfp: Gfp.__GFP_ZERO,
      alloc: none,
      free: ['zero 4+4'],
    },
    {
      id: 'page_poison over init_on_*',
      mm: { initOnAlloc: true, initOnFree: true, pagePoison: true },
      gfp: Gfp.GFP_KERNEL,
      alloc: none,
      free: ['poison 4+4'],
    },
    {
      id: 'page_poison and __GFP_ZERO',
      mm: { ...NO_INIT, pagePoison: true },
      gfp: Gfp.__GFP_ZERO,
      alloc: ['zero 4+4'],
      free: ['poison 4+4'],
    },
  ])('$id clears what Linux clears', ({ mm: options, gfp, alloc, free }) => {
    const { mm, cleared } = freshMachine({ mm: options });
    expect(mm.allocExact(4, 2, gfp)).toBe(true);
    expect(cleared).toEqual(alloc);
    cleared.length = 0;
    mm.free(4, 2);
    expect(cleared).toEqual(free);
  });
});

describe('allocExact and free', () => {
  test('changes nothing when one frame is in use', () => {
    const { mm } = freshMachine();
    mm.allocExact(4097, 0, Gfp.GFP_KERNEL);
    const before = mm.freeCountByOrder();
    expect(mm.allocExact(4096, 3, Gfp.GFP_KERNEL)).toBe(false);
    expect(mm.allocExact(4096 + 4, 3, Gfp.GFP_KERNEL)).toBe(false);
    expect(mm.allocExact(1 << 14, 0, Gfp.GFP_KERNEL)).toBe(false);
    expect(mm.freeCountByOrder()).toEqual(before);
  });

  test('gathers a block from buddy and per-CPU lists', () => {
    const { mm } = freshMachine();
    for (let pfn = 4096; pfn < 4100; pfn++) mm.allocExact(pfn, 0, Gfp.GFP_KERNEL);
    for (let pfn = 4096; pfn < 4100; pfn++) mm.free(pfn, 0);
    expect(mm.pcp.countPages(mm.zones[ZoneType.DMA32]!)).toBe(4);
    expect(mm.allocExact(4096, 10, Gfp.GFP_KERNEL)).toBe(true);
    expect(mm.pcp.countPages(mm.zones[ZoneType.DMA32]!)).toBe(0);
    mm.free(4096, 10);
    expect(mm.audit()).toEqual([]);
  });

  test('frees frames that were allocated before the emulation began, at any order', () => {
    const { mm } = freshMachine();
    const bare = freshMachine({ ramPages: 8192 }).mm;
    expect(mm.pages.flags[0]! & PageFlag.ALLOCATED).toBeTruthy();
    bare.allocExact(4096, 10, Gfp.GFP_KERNEL);
    for (let i = 0; i < 1024; i += 8) bare.free(4096 + i, 3);
    bare.drainPcp(0);
    expect(bare.audit()).toEqual([]);
    expect(bare.freePages()).toBe(8191);
  });

  test('a double free is a broken invariant', () => {
    const { mm } = freshMachine();
    const pfn = mm.alloc(0, Gfp.GFP_KERNEL);
    mm.free(pfn, 0);
    expect(() => mm.free(pfn, 0)).toThrow('a block is freed once');
    expect(() => mm.free(pfn & -8, 3)).toThrow('a block is freed once');
  });

  test('adopts per-CPU pages and reserved frames', () => {
    const { mm } = freshMachine({ ramPages: 4096 });
    const free = new Bitmap(4096);
    const onPcp = new Bitmap(4096);
    const reserved = new Bitmap(4096);
    const other = freshMachine({ ramPages: 4096 }).mm;
    for (let pfn = 1; pfn < 4096; pfn++) other.allocExact(pfn, 0, Gfp.GFP_KERNEL);
    free.setRange(1000, 2000);
    onPcp.setRange(10, 3);
    reserved.setRange(0, 8);
    other.adoptFreeSet(free, onPcp, reserved);
    expect(other.freePages()).toBe(2003);
    expect(other.zones[0]!.managedPages).toBe(4088);
    expect([other.isFree(9), other.isFree(10), other.isFree(12), other.isFree(13)]).toEqual([
      false,
      true,
      true,
      false,
    ]);
    expect(other.audit()).toEqual([]);
    expect(mm.freePages()).toBe(4095);
  });
});

describe('metadata', () => {
  test('takes at most 24 bytes a page, and as much as it says', () => {
    const { mm } = freshMachine({ ramPages: 1 << 18 });
    const arrays = Object.values(mm.pages).filter((value) => ArrayBuffer.isView(value));
    const bytes = arrays.reduce((sum, array) => sum + array.byteLength, mm.pageblocks.types.length);
    expect(METADATA_BYTES_PER_PAGE).toBeLessThanOrEqual(24);
    expect(bytes / (1 << 18)).toBeCloseTo(METADATA_BYTES_PER_PAGE, 1);
  });

  test('a frozen reference count admits no new reference', () => {
    const { pages } = freshMachine().mm;
    expect(pages.freeze(0, 2)).toBe(false);
    expect(pages.freeze(0, 1)).toBe(true);
    expect(pages.tryGet(0)).toBe(false);
    pages.unfreeze(0, 1);
    expect([pages.tryGet(0), pages.putTestZero(0), pages.putTestZero(0)]).toEqual([
      true,
      false,
      true,
    ]);
  });
});

describe('audit', () => {
  test.each<[string, (mm: ReturnType<typeof freshMachine>['mm']) => void]>([
    ['a link', (mm) => mm.pages.prev.set([4096], mm.freeLists.first(mm.zones[1]!, 10, 1))],
    ['a count', (mm) => mm.zones[1]!.nrFree[10]!++],
    ['the free pages of a zone', (mm) => mm.zones[1]!.freePages--],
    ['an order', (mm) => mm.pages.order.set([3], mm.freeLists.first(mm.zones[1]!, 10, 1))],
    [
      'a flag',
      (mm) => mm.pages.flags.set([PageFlag.ALLOCATED], mm.freeLists.first(mm.zones[1]!, 10, 1)),
    ],
    ['a tail', (mm) => mm.pages.flags.set([PageFlag.ALLOCATED], 5000)],
    ['a free bit', (mm) => mm.pages.freeBits.set([0], 200)],
    [
      'a block left unmerged',
      (mm) => {
        const zone = mm.zones[1]!;
        const head = mm.freeLists.first(zone, 10, 1);
        mm.freeLists.remove(zone, head);
        for (const at of [0, 256, 512, 768]) mm.freeLists.add(zone, head + at, 8, 1, false, false);
      },
    ],
  ])('finds a corrupted state: %s', (_what, corrupt) => {
    const { mm } = freshMachine();
    expect(mm.audit()).toEqual([]);
    corrupt(mm);
    expect(mm.audit()).not.toEqual([]);
  });
});
