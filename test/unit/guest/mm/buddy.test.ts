import { describe, expect, test } from 'vitest';
import { Gfp, MigrateType, type PageAllocator, ZoneType } from '../../../../guest/mm/index.ts';
import { freshMachine } from './machine.ts';

const ORDER = 4;
const BLOCK = 1 << ORDER;

/** All of one order-10 block allocated in blocks of order 4, which bypass the per-CPU lists. */
function chequered(): { mm: PageAllocator; base: number; list: () => number[] } {
  const { mm } = freshMachine();
  const base = 8192;
  for (let at = 0; at < 1024; at += BLOCK) mm.allocExact(base + at, ORDER, Gfp.GFP_KERNEL);
  const zone = mm.zones[ZoneType.DMA32]!;
  const list = () =>
    [...mm.freeLists.nodes(zone, ORDER, MigrateType.MOVABLE)].map((pfn) => (pfn - base) / BLOCK);
  return { mm, base, list };
}

describe('placement of freed blocks', () => {
  test('at the head of the list', () => {
    const { mm, base, list } = chequered();
    for (const index of [0, 8, 16]) mm.free(base + index * BLOCK, ORDER);
    expect(list()).toEqual([16, 8, 0]);
  });

  test('at the tail when the next larger buddy is free and a merge is likely', () => {
    const { mm, base, list } = chequered();
    mm.free(base + 8 * BLOCK, ORDER);
    mm.free(base + 2 * BLOCK, ORDER);
    mm.free(base + 3 * BLOCK, ORDER);
    mm.free(base, ORDER);
    expect(list()).toEqual([8, 0]);
  });

  test('at the tail, ascending, at boot', () => {
    const { mm } = freshMachine();
    const heads = [...mm.freeLists.nodes(mm.zones[ZoneType.DMA32]!, 10, MigrateType.MOVABLE)];
    expect(heads).toEqual([...heads].sort((a, b) => a - b));
    expect(heads.length).toBe(12);
  });
});

describe('merging', () => {
  test('joins all buddies up to order 10', () => {
    const { mm, base } = chequered();
    const before = mm.freeCountByOrder()[10]!;
    for (let at = 0; at < 1024; at += BLOCK) mm.free(base + at, ORDER);
    expect(mm.freeCountByOrder()[10]).toBe(before + 1);
  });

  test.each([
    [MigrateType.UNMOVABLE, 1],
    [MigrateType.CMA, 0],
    [MigrateType.ISOLATE, 0],
  ])('of pageblocks MOVABLE and type %i gives %i block of order 10', (type, blocks) => {
    const { mm } = freshMachine({ ramPages: 1024 });
    mm.setMigratetype(1, type);
    mm.allocExact(1, 0, Gfp.GFP_KERNEL);
    mm.free(1, 0);
    mm.free(0, 0);
    mm.drainPcp(0);
    expect(mm.freeCountByOrder()[10]).toBe(blocks);
    expect(mm.audit()).toEqual([]);
  });
});

describe('per-CPU lists', () => {
  test('give back the page that was freed last', () => {
    const { mm } = freshMachine();
    const [first, second] = [mm.alloc(0, Gfp.GFP_USER), mm.alloc(0, Gfp.GFP_USER)];
    mm.free(first, 0);
    mm.free(second, 0);
    expect([mm.alloc(0, Gfp.GFP_USER), mm.alloc(0, Gfp.GFP_USER)]).toEqual([second, first]);
  });

  test('of one CPU are not those of another', () => {
    const { mm } = freshMachine({ vcpus: 2 });
    const pfn = mm.alloc(0, Gfp.GFP_USER, 0);
    mm.free(pfn, 0, 1);
    expect(mm.alloc(0, Gfp.GFP_USER, 0)).not.toBe(pfn);
    expect(mm.alloc(0, Gfp.GFP_USER, 1)).toBe(pfn);
  });

  test('never hold more than high once a free has drained them', () => {
    const { mm } = freshMachine({ ramPages: 1 << 16 });
    const zone = mm.zones[ZoneType.DMA32]!;
    for (let pfn = 8192; pfn < 12_288; pfn++) mm.allocExact(pfn, 0, Gfp.GFP_KERNEL);
    for (let pfn = 8192; pfn < 12_288; pfn++) {
      mm.free(pfn, 0);
      expect(mm.pcp.countPages(zone)).toBeLessThanOrEqual(mm.pcp.highPages(zone));
    }
    expect(mm.pcp.countPages(zone)).toBeGreaterThan(0);
    expect(mm.audit()).toEqual([]);
  });
});
