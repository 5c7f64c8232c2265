/**
 * The balloon as the device that free pages are reported to (linux virtballoon_free_page_report):
 * one buffer of writable ranges, and a wait for the host.
 */
import { Errno, PAGE_SIZE_BYTES, pfnToGpa } from '../../shared/index.ts';
import type { Kernel } from '../kernel/kernel.ts';
import {
  PAGE_REPORTING_CAPACITY,
  type PageReportingDevice,
  type ReportedBlocks,
} from '../page-reporting/page-reporting.ts';
import type { Kthread } from '../sched/kthread.ts';
import type { Segment } from '../virtio/queue.ts';
import type { BalloonQueues } from './queues.ts';

/** Entries that the ring must have for the largest report; fewer fail the probe. */
export const REPORTING_RING_MIN = PAGE_REPORTING_CAPACITY;

export class FreePageReport implements PageReportingDevice {
  readonly #kernel: Kernel;
  readonly #queues: () => BalloonQueues | null;

  /** `queues`: null while there is no device. */
  constructor(kernel: Kernel, queues: () => BalloonQueues | null) {
    this.#kernel = kernel;
    this.#queues = queues;
  }

  /** EIO: there is no device, or it was reset meanwhile. ENOSPC: the ring has no room. */
  *report({ pfns, orders, start, count }: ReportedBlocks): Kthread<Errno> {
    const queues = this.#queues();
    const queue = queues?.reportingVq;
    if (!queues || !queue || queues.isLost) return Errno.EIO;
    const ranges: Segment[] = [];
    for (let i = start; i < start + count; i++) {
      ranges.push({ gpa: pfnToGpa(pfns[i]!), lengthBytes: PAGE_SIZE_BYTES << orders[i]! });
    }
    if (queue.addChain({ in: ranges }) < 0) return Errno.ENOSPC;
    yield* queues.transport.notify(queue);
    yield { kind: 'cpu', ns: count * this.#kernel.costs.queueElementNs };
    while (queue.getUsed() < 0) {
      if (queues.isLost) return Errno.EIO;
      yield { kind: 'wait', queue: queues.acked };
    }
    return Errno.OK;
  }
}
