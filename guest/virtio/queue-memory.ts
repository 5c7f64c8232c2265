/** Guest memory for rings, allocated as vring_alloc_queue does: contiguous, zeroed, by order. */
import {
  Feature,
  type FeatureSet,
  hasFeature,
  isPackedQueueSize,
  isQueueSize,
} from '../../protocol/index.ts';
import { gpaToPfn, PAGE_SIZE_BYTES } from '../../shared/index.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { Gfp, MAX_PAGE_ORDER } from '../mm/index.ts';
import { PackedQueue } from './packed-queue.ts';
import type { DriverQueue } from './queue.ts';
import { ringOptions } from './ring-features.ts';
import { SplitQueue } from './split-queue.ts';

/**
 * A queue of at most `maxSize` descriptors in fresh memory, of the layout that was negotiated: a
 * smaller ring is tried where a large contiguous block is not to be had. null: the queue does not
 * exist, or there is no memory at all.
 */
export function allocateQueue(
  kernel: Kernel,
  index: number,
  maxSize: number,
  negotiated: FeatureSet = 0n,
): DriverQueue | null {
  const isPacked = hasFeature(negotiated, Feature.RING_PACKED);
  if (!(isPacked ? isPackedQueueSize(maxSize) : isQueueSize(maxSize))) return null;
  const options = ringOptions(negotiated);
  const Queue = isPacked ? PackedQueue : SplitQueue;
  for (let size = maxSize; size >= 1; size >>>= 1) {
    const pageCount = Math.ceil(Queue.sizeBytes(size, options) / PAGE_SIZE_BYTES);
    const order = Math.ceil(Math.log2(pageCount));
    if (order > MAX_PAGE_ORDER) continue;
    const pfn = kernel.mm.alloc(order, Gfp.GFP_KERNEL | Gfp.__GFP_ZERO | Gfp.__GFP_NOWARN);
    if (pfn < 0) continue;
    return new Queue(index, size, options, { memory: kernel.ram, pfn, pageCount });
  }
  return null;
}

/** Give the memory of a queue back that the device no longer knows. */
export function freeQueue(kernel: Kernel, queue: DriverQueue): void {
  const pfn = gpaToPfn(queue.areas.descGpa);
  const order = kernel.mm.pages.order[pfn]!;
  kernel.ram.dropBytes(pfn, 1 << order);
  kernel.mm.free(pfn, order);
}
