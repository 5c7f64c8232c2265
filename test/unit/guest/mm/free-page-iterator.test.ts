import { describe, expect, test } from 'vitest';
import {
  FreePageIterator,
  Gfp,
  MigrateType,
  type PageAllocator,
  recordUnusedPages,
  ZoneType,
} from '../../../../guest/mm/index.ts';
import { DEFAULT_COSTS, Errno } from '../../../../shared/index.ts';
import { freshMachine } from './machine.ts';

const BASE = 8192;

/** Every other frame of 1024 is free: 512 blocks of order 0. */
function fragmented(): PageAllocator {
  const { mm } = freshMachine();
  for (let pfn = BASE; pfn < BASE + 1024; pfn += 2) mm.allocExact(pfn, 0, Gfp.GFP_KERNEL);
  return mm;
}

function buffer(length: number): { pfns: Uint32Array; orders: Uint8Array } {
  return { pfns: new Uint32Array(length), orders: new Uint8Array(length) };
}

describe('FreePageIterator', () => {
  test('walks high orders first and stops at the minimum order', () => {
    const iterator = new FreePageIterator(fragmented(), DEFAULT_COSTS);
    const out = buffer(2000);
    const orders: number[] = [];
    iterator.start({ minOrder: 1 });
    for (let done = false; !done; ) {
      const step = iterator.step(2000, out);
      if (step.zone.name === 'DMA32') orders.push(...out.orders.subarray(0, step.count));
      done = step.done;
    }
    expect(orders).toEqual(new Array(11).fill(10));
  });

  test('charges a hold for its lock and its nodes, and bounds it by the budget', () => {
    const mm = fragmented();
    const iterator = new FreePageIterator(mm, DEFAULT_COSTS);
    iterator.start({ zone: mm.zones[ZoneType.DMA32]! });
    const out = buffer(100);
    let blocks = 0;
    let step = iterator.step(10, out);
    for (blocks += step.count; !step.done; blocks += step.count) step = iterator.step(10, out);
    expect(blocks).toBe(11 + 512);
    const held = iterator.end();
    expect(held.maxNodes).toBe(10);
    expect(held.nodes).toBe(blocks);
    expect(held.maxNs).toBe(DEFAULT_COSTS.zoneLockNs + 10 * DEFAULT_COSTS.listNodeNs);
    expect(held.totalNs).toBe(
      held.holds * DEFAULT_COSTS.zoneLockNs + blocks * DEFAULT_COSTS.listNodeNs,
    );
  });

  test('goes on with the successor when the node under the cursor vanishes', () => {
    const mm = fragmented();
    const iterator = new FreePageIterator(mm, DEFAULT_COSTS);
    iterator.start({ zone: mm.zones[ZoneType.DMA32]!, maxOrder: 0 });
    const out = buffer(1);
    iterator.step(1, out);
    const [, second, third] = [...mm.freeLists.nodes(mm.zones[ZoneType.DMA32]!, 0, 1)];
    mm.allocExact(second!, 0, Gfp.GFP_KERNEL);
    iterator.step(1, out);
    expect(out.pfns[0]).toBe(third);
  });

  test('finds a block that merged into a list behind the cursor', () => {
    const { mm } = freshMachine();
    const zone = mm.zones[ZoneType.DMA32]!;
    mm.allocExact(BASE, 4, Gfp.GFP_KERNEL);
    const iterator = new FreePageIterator(mm, DEFAULT_COSTS);
    const out = buffer(11);
    iterator.start({ zone });
    expect(iterator.step(11, out).done).toBe(false);
    mm.free(BASE, 4);
    const step = iterator.step(11, out);
    expect([step.count, out.pfns[0], out.orders[0], step.done]).toEqual([1, BASE, 10, true]);
  });

  test('finds a block that is appended to a list whose end the cursor has reached', () => {
    const { mm } = freshMachine();
    mm.setMigratetype((BASE + 512) >> 9, MigrateType.RECLAIMABLE);
    for (let at = 0; at < 1024; at += 16) mm.allocExact(BASE + at, 4, Gfp.GFP_KERNEL);
    for (const at of [0, 64, 512]) mm.free(BASE + at, 4);
    const iterator = new FreePageIterator(mm, DEFAULT_COSTS);
    const out = buffer(1);
    iterator.start({ zone: mm.zones[ZoneType.DMA32]!, minOrder: 4, maxOrder: 4 });
    iterator.step(1, out);
    expect(out.pfns[0]).toBe(BASE + 64);
    mm.allocExact(BASE, 4, Gfp.GFP_KERNEL);
    mm.setMigratetype((BASE + 512) >> 9, MigrateType.MOVABLE);
    expect(iterator.step(1, out).count).toBe(1);
    expect(out.pfns[0]).toBe(BASE + 512);
  });

  test('is out of date after any change of the zone', () => {
    const mm = fragmented();
    const iterator = new FreePageIterator(mm, DEFAULT_COSTS);
    iterator.start({ zone: mm.zones[ZoneType.DMA32]! });
    const step = iterator.step(5, buffer(5));
    expect(step.validUntil).toBe('lock dropped');
    expect(step.zone.generation).toBe(step.generation);
    mm.allocExact(BASE + 1, 0, Gfp.GFP_KERNEL);
    expect(step.zone.generation).not.toBe(step.generation);
  });

  test('refuses impossible orders and a second walk', () => {
    const mm = fragmented();
    const iterator = new FreePageIterator(mm, DEFAULT_COSTS);
    expect(iterator.start({ minOrder: 5, maxOrder: 4 })).toBe(Errno.EINVAL);
    expect(iterator.start({ maxOrder: 11 })).toBe(Errno.EINVAL);
    expect(iterator.start()).toBe(Errno.OK);
    expect(new FreePageIterator(mm, DEFAULT_COSTS).start()).toBe(Errno.EBUSY);
    iterator.end();
    expect(new FreePageIterator(mm, DEFAULT_COSTS).start()).toBe(Errno.OK);
  });
});

describe('recordUnusedPages', () => {
  const record = (order: number, sizeLe64: number, offset: number, partFill: boolean) => {
    const mm = fragmented();
    const buf = new BigUint64Array(sizeLe64);
    const zone = mm.zones[ZoneType.DMA32]!;
    return { buf, ...recordUnusedPages(mm, DEFAULT_COSTS, zone, order, buf, offset, partFill) };
  };

  test('writes chunks of base and size with the reserved bits zero', () => {
    const { buf, status, offset } = record(10, 30, 2, false);
    expect([status, offset]).toEqual([Errno.OK, 24]);
    expect([...buf.subarray(0, 4)]).toEqual([0n, 0n, 4096n << 12n, 1024n << 12n]);
    expect(buf[24]).toBe(0n);
  });

  test.each([
    { id: 'order below 0', order: -1, size: 10, offset: 0 },
    { id: 'order above 10', order: 11, size: 10, offset: 0 },
    { id: 'empty buffer', order: 0, size: 0, offset: 0 },
    { id: 'offset beyond the buffer', order: 0, size: 10, offset: 11 },
  ])('answers EINVAL: $id', ({ order, size, offset }) => {
    expect(record(order, size, offset, true).status).toBe(Errno.EINVAL);
  });

  test.each([
    { id: 'refused up front', size: 511, partFill: false, offset: 0, nodes: 0 },
    {
      id: 'passes the check in blocks, ends in the middle',
      size: 513,
      partFill: false,
      offset: 512,
      nodes: 257,
    },
    { id: 'partial fill keeps what fitted', size: 100, partFill: true, offset: 100, nodes: 51 },
  ])('answers ENOSPC: $id', ({ size, partFill, offset, nodes }) => {
    const result = record(0, size, 0, partFill);
    expect([result.status, result.offset, result.nodesVisited]).toEqual([
      Errno.ENOSPC,
      offset,
      nodes,
    ]);
    expect(result.holdNs).toBe(DEFAULT_COSTS.zoneLockNs + nodes * DEFAULT_COSTS.listNodeNs);
  });

  test('holds the lock for a whole list, however long', () => {
    expect(record(0, 1024, 0, false).nodesVisited).toBe(512);
  });
});
