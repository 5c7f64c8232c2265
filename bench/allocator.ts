/** Allocator cost in nanoseconds an operation, on a machine of 1 GiB; the caller brings the clock. */

import { Gfp, PageAllocator } from '../guest/mm/index.ts';
import { Bitmap, Prng } from '../shared/index.ts';

export interface AllocatorBench {
  /** Order 0, allocated and freed at once: the per-CPU lists. */
  readonly allocFreePairNs: number;
  /** Order 4, allocated and freed at once: split and merge. */
  readonly buddyPairNs: number;
  /** Order 0 frames taken by number and freed, in random order, half of memory at a time. */
  readonly exactNs: number;
}

export function benchAllocator(nowMs: () => number, operations = 1_000_000): AllocatorBench {
  const ramPages = 1 << 18;
  const mm = new PageAllocator(
    { ramPages, vcpus: 1, mm: { initOnAlloc: false, initOnFree: false, pagePoison: false } },
    { clearPages() {} },
  );
  const free = new Bitmap(ramPages);
  free.setAll();
  mm.adoptFreeSet(free);
  const perOperation = (run: () => void, count: number): number => {
    const start = nowMs();
    run();
    return ((nowMs() - start) * 1e6) / count;
  };
  const pairs = (order: number) => () => {
    for (let i = 0; i < operations; i++) mm.free(mm.alloc(order, Gfp.GFP_HIGHUSER_MOVABLE), order);
  };
  pairs(0)();
  const allocFreePairNs = perOperation(pairs(0), operations);
  const buddyPairNs = perOperation(pairs(4), operations);
  const frames = shuffledFrames(ramPages, ramPages >> 1);
  const rounds = Math.max(1, Math.floor(operations / frames.length));
  const exact = () => {
    for (let round = 0; round < rounds; round++) {
      for (const pfn of frames) mm.allocExact(pfn, 0, Gfp.GFP_HIGHUSER_MOVABLE);
      for (const pfn of frames) mm.free(pfn, 0);
    }
  };
  return { allocFreePairNs, buddyPairNs, exactNs: perOperation(exact, rounds * frames.length * 2) };
}

function shuffledFrames(ramPages: number, count: number): Uint32Array {
  const frames = new Uint32Array(ramPages).map((_, index) => index);
  const prng = new Prng(1);
  for (let i = ramPages - 1; i > 0; i--) {
    const j = prng.below(i + 1);
    const frame = frames[i]!;
    frames[i] = frames[j]!;
    frames[j] = frame;
  }
  return frames.slice(0, count);
}
