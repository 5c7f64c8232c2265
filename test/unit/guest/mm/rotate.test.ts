import { describe, expect, test } from 'vitest';
import { FreePageIterator, Gfp, MigrateType, PageAllocator } from '../../../../guest/mm/index.ts';
import { Bitmap, DEFAULT_COSTS } from '../../../../shared/index.ts';

const RAM_PAGES = 65_536;
const ORDER = 10;

function machine() {
  const mm = new PageAllocator(
    {
      ramPages: RAM_PAGES,
      vcpus: 1,
      mm: { initOnAlloc: false, initOnFree: false, pagePoison: false },
    },
    { clearPages: () => undefined },
  );
  const free = new Bitmap(RAM_PAGES);
  free.setRange(1024, RAM_PAGES - 1024);
  mm.adoptFreeSet(free);
  const zone = mm.zones[1]!;
  const list = () => [...mm.freeLists.nodes(zone, ORDER, MigrateType.MOVABLE)];
  return { mm, zone, list };
}

describe('a free list that is rotated', () => {
  test.each([0, 1, 17, -1])('begins with the block at %i and keeps its order', (index) => {
    const { mm, zone, list } = machine();
    const before = list();
    const first = before.at(index)!;
    mm.freeLists.rotateToFront(zone, first);
    const at = before.indexOf(first);
    expect(list()).toEqual([...before.slice(at), ...before.slice(0, at)]);
    expect(mm.audit()).toEqual([]);
    expect(mm.alloc(ORDER, Gfp.GFP_HIGHUSER_MOVABLE)).toBe(first);
  });

  test.each([2, 10, 40])('hides no block from a walk that has made %i steps', (steps) => {
    const { mm, zone, list } = machine();
    const blocks = new Set(list());
    const iterator = new FreePageIterator(mm, DEFAULT_COSTS);
    iterator.start({ zone, minOrder: ORDER });
    const out = { pfns: new Uint32Array(1), orders: new Uint8Array(1) };
    const seen = new Set<number>();
    for (let step = 1; ; step++) {
      const found = iterator.step(1, out);
      if (found.count > 0) seen.add(out.pfns[0]!);
      if (found.done) break;
      // What has not been visited yet comes to lie before the cursor.
      if (step === steps) mm.freeLists.rotateToFront(zone, list().at(-2)!);
      expect(step).toBeLessThan(1000);
    }
    iterator.end();
    expect(seen).toEqual(blocks);
  });
});
