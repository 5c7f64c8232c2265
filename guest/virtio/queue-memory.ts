/** Guest memory for rings, allocated as vring_alloc_queue does: contiguous, zeroed, by order. */
import { isQueueSize, splitRingLayout } from '../../protocol/index.ts';
import { PAGE_SIZE_BYTES } from '../../shared/index.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { Gfp, MAX_PAGE_ORDER } from '../mm/index.ts';
import { SplitQueue } from './split-queue.ts';

/**
 * A queue of at most `maxSize` descriptors in fresh memory: a smaller ring is tried where a large
 * contiguous block is not to be had. null: the queue does not exist, or there is no memory at all.
 */
export function allocateQueue(kernel: Kernel, index: number, maxSize: number): SplitQueue | null {
  if (!isQueueSize(maxSize)) return null;
  for (let size = maxSize; size >= 1; size /= 2) {
    const pageCount = Math.ceil(splitRingLayout(size).sizeBytes / PAGE_SIZE_BYTES);
    const order = Math.ceil(Math.log2(pageCount));
    if (order > MAX_PAGE_ORDER) continue;
    const pfn = kernel.mm.alloc(order, Gfp.GFP_KERNEL | Gfp.__GFP_ZERO | Gfp.__GFP_NOWARN);
    if (pfn >= 0) return new SplitQueue(index, size, pfn, pageCount, kernel.ram);
  }
  return null;
}
