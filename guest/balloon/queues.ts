/**
 * What the driver shares with the device while it is bound to it: its queues, and one page with the
 * buffers of all of them (linux init_vqs, del_vqs).
 */
import {
  BALLOON_PFN_BYTES,
  BALLOON_QUEUES,
  BalloonFeature,
  type BalloonQueueName,
  BalloonStat,
  type BalloonStatTag,
  type FeatureSet,
  hasFeature,
  type QueueIndices,
} from '../../protocol/index.ts';
import { type Gpa, type Pfn, pfnToGpa } from '../../shared/index.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { Gfp } from '../mm/index.ts';
import { type Kthread, WaitQueue } from '../sched/kthread.ts';
import type { DriverQueue } from '../virtio/queue.ts';
import { allocateQueue, freeQueue } from '../virtio/queue-memory.ts';
import type { VirtioTransport } from '../virtio/transport.ts';

/** One figure of a report; bytes or a count, as its tag says. */
export type MemoryStatistic = readonly [tag: BalloonStatTag, value: number];

/** Where the buffers lie in the page, for the largest request of PFNs. */
interface Layout {
  readonly startId: number;
  readonly stopId: number;
  readonly stats: number;
}

const COMMAND_BYTES = 4;

export class BalloonQueues {
  readonly transport: VirtioTransport;
  inflateq!: DriverQueue;
  deflateq!: DriverQueue;
  statsq: DriverQueue | null = null;
  freePageVq: DriverQueue | null = null;
  reportingVq: DriverQueue | null = null;
  /** Interrupts of inflateq, deflateq and reporting_vq: a buffer was acknowledged. */
  readonly acked = new WaitQueue();
  /** The device was reset under the driver: nobody will use what is outstanding. */
  isLost = false;
  readonly #kernel: Kernel;
  readonly #layout: Layout;
  readonly #found: DriverQueue[] = [];
  #bufferPfn: Pfn = -1;
  #buffer!: DataView;

  /** `pfnsMax`: PFNs of the largest request. */
  constructor(kernel: Kernel, transport: VirtioTransport, pfnsMax: number) {
    this.#kernel = kernel;
    this.transport = transport;
    const startId = pfnsMax * BALLOON_PFN_BYTES;
    const stopId = startId + COMMAND_BYTES;
    this.#layout = { startId, stopId, stats: stopId + COMMAND_BYTES };
  }

  /** Finds and sets up one queue. `callback` runs in interrupt context. */
  *find(
    name: BalloonQueueName,
    indices: QueueIndices,
    features: FeatureSet,
    callback: () => void,
  ): Kthread<DriverQueue | null> {
    const { feature } = BALLOON_QUEUES.find((queue) => queue.name === name)!;
    if (feature !== undefined && !hasFeature(features, feature)) return null;
    const index = indices[name];
    if (index === null) return null;
    const maxSize = yield* this.transport.getQueueMaxSize(index);
    const queue = allocateQueue(this.#kernel, index, maxSize, features);
    if (!queue) return null;
    this.#found.push(queue);
    yield* this.transport.setQueue(queue, callback);
    return queue;
  }

  /** False: there is no memory. */
  allocateBuffers(): boolean {
    const { mm, ram } = this.#kernel;
    const pfn = mm.alloc(0, Gfp.GFP_KERNEL | Gfp.__GFP_ZERO);
    if (pfn < 0) return false;
    this.#bufferPfn = pfn;
    const bytes = ram.bytesOf(pfn, 1);
    this.#buffer = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    return true;
  }

  /** del_vqs: the device knows them no more. */
  free(): void {
    for (const queue of this.#found.splice(0)) freeQueue(this.#kernel, queue);
    if (this.#bufferPfn < 0) return;
    this.#kernel.ram.dropBytes(this.#bufferPfn, 1);
    this.#kernel.mm.free(this.#bufferPfn, 0);
    this.#bufferPfn = -1;
  }

  /** Whoever waits for the device goes on without it. */
  lose(): void {
    this.isLost = true;
    this.acked.wake();
  }

  /** Stores the first `count` of `pfns`; returns where. */
  writePfns(pfns: Int32Array, count: number): Gpa {
    for (let i = 0; i < count; i++) {
      this.#buffer.setUint32(i * BALLOON_PFN_BYTES, pfns[i]!, true);
    }
    return this.#written(0);
  }

  /** Start and stop ids have a buffer each: a slow host must not read the second for the first. */
  writeCommand(which: 'start' | 'stop', cmdId: number): Gpa {
    const offset = which === 'start' ? this.#layout.startId : this.#layout.stopId;
    this.#buffer.setUint32(offset, cmdId, true);
    return this.#written(offset);
  }

  /** Returns where; the length is 10 bytes a figure. */
  writeStatistics(statistics: readonly MemoryStatistic[]): Gpa {
    const { stats } = this.#layout;
    for (const [i, [tag, value]] of statistics.entries()) {
      BalloonStat.write(this.#buffer, stats + i * BalloonStat.sizeBytes, {
        tag,
        val: BigInt(value),
      });
    }
    return this.#written(stats);
  }

  #written(offset: number): Gpa {
    this.#kernel.ram.touchBytes(this.#bufferPfn);
    return pfnToGpa(this.#bufferPfn) + offset;
  }
}

/** Why the driver cannot do with the queues that it has found, or null. */
export function missingQueue(queues: BalloonQueues, features: FeatureSet): string | null {
  if (!queues.statsq && hasFeature(features, BalloonFeature.STATS_VQ)) {
    return 'the device has no statsq';
  }
  if (hasFeature(features, BalloonFeature.FREE_PAGE_HINT)) {
    // One entry is kept for the command id.
    if (!queues.freePageVq || queues.freePageVq.size < 2) {
      return 'the device has no usable free_page_vq';
    }
  }
  if (!queues.reportingVq && hasFeature(features, BalloonFeature.PAGE_REPORTING)) {
    return 'the device has no reporting_vq';
  }
  return null;
}
