import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { FreePageIterator, Gfp, MigrateType, PageAllocator } from '../../guest/mm/index.ts';
import { Bitmap, DEFAULT_COSTS, Errno } from '../../shared/index.ts';

const RAM_PAGES = 6144;
const GFPS = [
  Gfp.GFP_KERNEL,
  Gfp.GFP_HIGHUSER_MOVABLE,
  Gfp.GFP_KERNEL | Gfp.__GFP_RECLAIMABLE,
  Gfp.GFP_ATOMIC,
  Gfp.__GFP_NORETRY | Gfp.__GFP_NOMEMALLOC,
];

type Operation =
  | {
      kind: 'alloc' | 'exact' | 'free' | 'piece';
      order: number;
      gfp: number;
      at: number;
      cpu: number;
    }
  | { kind: 'type' | 'drain'; at: number; type: MigrateType };

const operation: fc.Arbitrary<Operation> = fc.oneof(
  {
    weight: 12,
    arbitrary: fc.record({
      kind: fc.constantFrom('alloc', 'alloc', 'exact', 'exact', 'free', 'free', 'free', 'piece'),
      order: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 10 })),
      gfp: fc.constantFrom(...GFPS),
      at: fc.nat(RAM_PAGES - 1),
      cpu: fc.nat(1),
    }) as fc.Arbitrary<Operation>,
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constantFrom('type', 'drain'),
      at: fc.nat(RAM_PAGES - 1),
      type: fc.constantFrom(...Object.values(MigrateType)),
    }) as fc.Arbitrary<Operation>,
  },
);

/** The allocator beside a naive model: a set of free frames and a list of allocations. */
class Modelled {
  readonly mm = new PageAllocator(
    {
      ramPages: RAM_PAGES,
      vcpus: 2,
      movablePages: 1024,
      mm: { initOnAlloc: false, initOnFree: false, pagePoison: false },
    },
    { clearPages() {} },
  );
  readonly free = new Set<number>();
  readonly allocations: { pfn: number; order: number }[] = [];

  constructor(boot: readonly { start: number; length: number }[]) {
    const free = new Bitmap(RAM_PAGES);
    for (const { start, length } of boot) {
      free.setRange(start, Math.min(length, RAM_PAGES - start));
    }
    for (let pfn = free.nextSet(0); pfn >= 0; pfn = free.nextSet(pfn + 1)) this.free.add(pfn);
    this.mm.adoptFreeSet(free);
  }

  apply(operation: Operation): void {
    switch (operation.kind) {
      case 'type':
        this.mm.setMigratetype(operation.at >> 9, operation.type);
        return;
      case 'drain':
        this.mm.drainPcp(operation.at & 1);
        return;
      case 'alloc': {
        const pfn = this.mm.alloc(operation.order, operation.gfp, operation.cpu);
        if (pfn >= 0) this.#taken(pfn, operation.order);
        else expect(pfn).toBe(Errno.ENOMEM);
        return;
      }
      case 'exact': {
        const pfn = operation.at & -(1 << operation.order);
        const isFree = frames(pfn, operation.order).every((frame) => this.free.has(frame));
        expect(this.mm.allocExact(pfn, operation.order, operation.gfp)).toBe(isFree);
        if (isFree) this.#taken(pfn, operation.order);
        return;
      }
      case 'free':
      case 'piece':
        this.#release(operation);
    }
  }

  #taken(pfn: number, order: number): void {
    for (const frame of frames(pfn, order)) expect(this.free.delete(frame)).toBe(true);
    this.allocations.push({ pfn, order });
  }

  #release(operation: { kind: string; at: number; cpu: number }): void {
    if (this.allocations.length === 0) return;
    const [victim] = this.allocations.splice(operation.at % this.allocations.length, 1);
    let { pfn, order } = victim!;
    // split_page: half of an allocation is freed, the other half stays allocated.
    if (operation.kind === 'piece' && order > 0) {
      order--;
      this.allocations.push({ pfn: pfn + (1 << order), order });
    }
    this.mm.free(pfn, order, operation.cpu);
    for (const frame of frames(pfn, order)) this.free.add(frame);
  }

  check(): void {
    expect(this.mm.audit()).toEqual([]);
    expect(this.mm.freePages()).toBe(this.free.size);
    const written = new Bitmap(RAM_PAGES);
    this.mm.writeFreeSet(written);
    expect(written.count()).toBe(this.free.size);
    for (const pfn of this.free) if (!written.get(pfn)) expect(pfn).toBe('in the free set');
  }
}

function frames(pfn: number, order: number): number[] {
  return Array.from({ length: 1 << order }, (_, i) => pfn + i);
}

const boot = fc.array(
  fc.record({
    start: fc.nat(RAM_PAGES - 1),
    length: fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 500, max: 4000 })),
  }),
  { minLength: 1, maxLength: 8 },
);

describe('page allocator', () => {
  test('agrees with a set of free frames under any sequence of operations', () => {
    fc.assert(
      fc.property(boot, fc.array(operation, { maxLength: 120 }), (start, operations) => {
        const modelled = new Modelled(start);
        modelled.check();
        operations.forEach((op, index) => {
          modelled.apply(op);
          if (index % 30 === 29) modelled.check();
        });
        modelled.check();
      }),
      { numRuns: 60 },
    );
  });
});

/** Frames on the buddy lists, by walking heads. */
function buddyFrames(mm: PageAllocator): Set<number> {
  const found = new Set<number>();
  for (const zone of mm.zones) {
    for (let order = 0; order <= 10; order++) {
      for (let type = 0; type < 6; type++) {
        for (const pfn of mm.freeLists.nodes(zone, order, type)) {
          for (const frame of frames(pfn, order)) found.add(frame);
        }
      }
    }
  }
  return found;
}

const steps = fc.array(
  fc.record({
    budget: fc.integer({ min: 1, max: 12 }),
    room: fc.integer({ min: 1, max: 12 }),
    operations: fc.array(operation, { maxLength: 6 }),
    takesCursor: fc.boolean(),
  }),
  { minLength: 1, maxLength: 60 },
);

describe('FreePageIterator', () => {
  test('yields every frame that stays free, each block once a generation, within the budget', () => {
    fc.assert(
      fc.property(boot, fc.array(operation, { maxLength: 40 }), steps, (start, before, between) => {
        const modelled = new Modelled(start);
        const { mm } = modelled;
        for (const op of before) modelled.apply(op);
        const stayedFree = buddyFrames(mm);
        const yielded = new Set<number>();
        const inGeneration = new Map<string, Set<number>>();
        const iterator = new FreePageIterator(mm, DEFAULT_COSTS);
        expect(iterator.start()).toBe(Errno.OK);
        const out = { pfns: new Uint32Array(12), orders: new Uint8Array(12) };
        for (let i = 0; ; i++) {
          expect(i).toBeLessThan(20_000);
          const now = between[i] ?? { budget: 50, room: 12, operations: [], takesCursor: false };
          const step = iterator.step(now.budget, {
            pfns: out.pfns.subarray(0, now.room),
            orders: out.orders.subarray(0, now.room),
          });
          expect(step.nodesVisited).toBeLessThanOrEqual(now.budget);
          expect(step.count).toBeLessThanOrEqual(now.room);
          expect(step.generation).toBe(step.zone.generation);
          const key = `${step.zone.name}/${step.generation}`;
          const seen = inGeneration.get(key) ?? new Set<number>();
          inGeneration.set(key, seen);
          const free = buddyFrames(mm);
          for (let k = 0; k < step.count; k++) {
            for (const frame of frames(out.pfns[k]!, out.orders[k]!)) {
              if (!free.has(frame)) expect(frame).toBe('free when the lock was dropped');
              if (seen.has(frame)) expect(frame).toBe('new in its generation');
              seen.add(frame);
              yielded.add(frame);
            }
          }
          if (step.done) break;
          const { cursor } = mm.freeLists.walk;
          const atCursor: Operation[] =
            now.takesCursor && cursor >= 0 && cursor < RAM_PAGES
              ? [{ kind: 'exact', order: 0, gfp: Gfp.GFP_KERNEL, at: cursor, cpu: 0 }]
              : [];
          for (const op of [...atCursor, ...now.operations]) {
            modelled.apply(op);
            const still = buddyFrames(mm);
            for (const frame of stayedFree) if (!still.has(frame)) stayedFree.delete(frame);
          }
        }
        for (const frame of stayedFree) if (!yielded.has(frame)) expect(frame).toBe('yielded');
        iterator.end();
        expect(mm.audit()).toEqual([]);
      }),
      { numRuns: 60 },
    );
  });
});
