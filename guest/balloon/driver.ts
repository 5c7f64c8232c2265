/**
 * The traditional balloon driver, as linux drivers/virtio/virtio_balloon.c: probe, size work
 * (fill_balloon, leak_balloon, tell_host), and the work item of free page hinting. Inflated pages
 * are given up only once the host has acknowledged them, and deflated ones are
 * freed only after it has acknowledged that, whether or not MUST_TELL_HOST was negotiated.
 */
import {
  BALLOON_PFN_BYTES,
  BalloonConfig,
  BalloonFeature,
  type BalloonQueueName,
  bit,
  DeviceId,
  DeviceStatus,
  Feature,
  type FeatureSet,
  featureMask,
  hasFeature,
  type QueueIndices,
  type QueueNumbering,
  queueIndices,
  VIRTIO_BALLOON_PFNS_MAX,
} from '../../protocol/index.ts';
import { assert, Errno, NS_PER_MS, NS_PER_US, type Pfn, pfnToGpa } from '../../shared/index.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { startMemoryCost } from '../kernel/memory-cost.ts';
import { Gfp } from '../mm/index.ts';
import { type Kthread, WaitQueue } from '../sched/kthread.ts';
import { Mutex } from '../sched/locks.ts';
import type { DriverQueue } from '../virtio/queue.ts';
import { allocateQueue } from '../virtio/queue-memory.ts';
import type { VirtioTransport } from '../virtio/transport.ts';
import { FreePageHinting, type HintingStrategy, type HintObserver } from './hinting.ts';
import { type BalloonMemory, BalloonPages } from './pages.ts';
import { WorkItem } from './work-item.ts';

/** Features that this driver can use. */
export const DRIVER_FEATURES: FeatureSet = featureMask(
  Feature.VERSION_1,
  BalloonFeature.MUST_TELL_HOST,
  BalloonFeature.DEFLATE_ON_OOM,
  BalloonFeature.FREE_PAGE_HINT,
  BalloonFeature.HINT_WAIT_ON_ACK,
);

/** How long fill_balloon sleeps after a failed allocation. */
const OUT_OF_PUFF_NS = 200 * NS_PER_MS;
/** When leak_balloon that found only isolated pages tries again: about one page migration later. */
const ISOLATED_RETRY_NS = 50 * NS_PER_US;
/** VIRTIO_BALLOON_OOM_NOTIFY_PRIORITY, and the pages that one notification takes. */
const OOM_NOTIFY_PRIORITY = 80;
const OOM_NOTIFY_PAGES = 256;

/** Where the driver's buffers lie in its one page. */
const PFNS_OFFSET = 0;
const START_ID_OFFSET = VIRTIO_BALLOON_PFNS_MAX * BALLOON_PFN_BYTES;
const STOP_ID_OFFSET = START_ID_OFFSET + 4;

export interface BalloonDriverOptions {
  readonly transport: VirtioTransport;
  readonly memory: BalloonMemory;
  /** register_oom_notifier: asked with DEFLATE_ON_OOM; `notify` returns the pages it has freed. */
  readonly registerOomNotifier?: (priority: number, notify: () => Kthread<number>) => void;
  /** null: FREE_PAGE_HINT is declined. */
  readonly strategy: HintingStrategy | null;
  readonly observers?: readonly HintObserver[];
  /** Features to accept at most; all of `DRIVER_FEATURES` by default. */
  readonly features?: FeatureSet;
  readonly numbering?: QueueNumbering;
}

export type ProbeState = 'probing' | 'ready' | 'failed';

export class BalloonDriver {
  readonly counters = {
    balloon_inflate: 0,
    balloon_deflate: 0,
    balloon_migrate: 0,
    balloon_out_of_puff: 0,
    balloon_config_changes: 0,
    balloon_bad_config_reads: 0,
  };
  state: ProbeState = 'probing';
  /** Why the probe failed, or null. */
  failure: string | null = null;
  /** What was negotiated. */
  features: FeatureSet = 0n;
  hinting: FreePageHinting | null = null;
  readonly #kernel: Kernel;
  readonly #options: BalloonDriverOptions;
  readonly #transport: VirtioTransport;
  readonly #pages: BalloonPages;
  /** balloon_lock: who holds it has the buffer of PFNs, and tells the host alone. */
  readonly #lock = new Mutex('balloon_lock');
  /** What fill_balloon has allocated before it takes the lock. */
  readonly #allocated = new Int32Array(VIRTIO_BALLOON_PFNS_MAX);
  /** What leak_balloon has dequeued, while the host is told. Under the lock. */
  readonly #dequeued = new Int32Array(VIRTIO_BALLOON_PFNS_MAX);
  /** The page that is told to the host while one moves. Under the lock. */
  readonly #moved = new Int32Array(1);
  /** Interrupts of inflateq and deflateq: a buffer was acknowledged. */
  readonly #acked = new WaitQueue();
  readonly #sizeWork: WorkItem;
  readonly #hintWork: WorkItem;
  #inflateq!: DriverQueue;
  #deflateq!: DriverQueue;
  #bufferPfn: Pfn = 0;
  #buffer!: DataView;
  /** Pages told to the host: grows before an inflate is told, shrinks before a deflate is. */
  #numPages = 0;

  constructor(kernel: Kernel, options: BalloonDriverOptions) {
    this.#kernel = kernel;
    this.#options = options;
    this.#transport = options.transport;
    this.#pages = new BalloonPages({
      ...options.memory,
      kernel,
      counters: this.counters,
      migratePage: (dst, src) => this.#migratePage(dst, src),
    });
    this.#sizeWork = new WorkItem(kernel, () => this.#updateBalloonSize());
    this.#hintWork = new WorkItem(kernel, () => this.hinting!.work());
  }

  /** Pages in the balloon, as the driver counts them. */
  get numPages(): number {
    return this.#numPages;
  }

  /** Those of them that page migration holds. */
  get isolatedPages(): number {
    return this.#pages.isolatedPages;
  }

  /** Start the probe in a kernel thread of its own. */
  start(): void {
    this.#kernel.spawn('virtballoon_probe', () => this.#probe());
  }

  /** Empty when the driver's books agree with the allocator's. */
  audit(): string[] {
    const problems = this.#pages.audit();
    const { listedPages, isolatedPages } = this.#pages;
    if (listedPages + isolatedPages !== this.#numPages) {
      problems.push(
        `${listedPages} balloon pages are listed and ${isolatedPages} isolated, of ${this.#numPages}`,
      );
    }
    return problems;
  }

  *#probe(): Kthread {
    const failure = yield* this.#negotiate();
    if (failure === null) {
      this.state = 'ready';
      this.#kernel.log.add(this.#kernel.now, 'balloon_ready', { features: `${this.features}` });
      return;
    }
    this.state = 'failed';
    this.failure = failure;
    this.#kernel.log.add(this.#kernel.now, 'balloon_probe_failed', { reason: failure });
    const status = yield* this.#transport.getStatus();
    yield* this.#transport.setStatus(status | bit(DeviceStatus.FAILED));
  }

  /** The initialisation sequence of virtio 1.4 §3.1.1. Returns why it failed, or null. */
  *#negotiate(): Kthread<string | null> {
    const transport = this.#transport;
    const info = yield* transport.getDeviceInfo();
    if (info.deviceId !== DeviceId.BALLOON) return `device ${info.deviceId} is no balloon`;
    yield* transport.reset();
    let status = bit(DeviceStatus.ACKNOWLEDGE);
    yield* transport.setStatus(status);
    status |= bit(DeviceStatus.DRIVER);
    yield* transport.setStatus(status);
    const offered = yield* transport.getDeviceFeatures();
    if (!hasFeature(offered, Feature.VERSION_1)) return 'the device does not offer VERSION_1';
    this.features = this.#choose(offered);
    yield* transport.setDriverFeatures(this.features);
    status |= bit(DeviceStatus.FEATURES_OK);
    yield* transport.setStatus(status);
    const read = yield* transport.getStatus();
    if ((read & bit(DeviceStatus.FEATURES_OK)) === 0) return 'the device refused the features';
    const failure = yield* this.#initQueues(offered);
    if (failure !== null) return failure;
    this.#pages.adjustsManagedPages = !hasFeature(this.features, BalloonFeature.DEFLATE_ON_OOM);
    this.#startWork();
    yield* transport.setStatus(status | bit(DeviceStatus.DRIVER_OK));
    if ((yield* this.#towardsTarget()) !== 0) this.#changed();
    return null;
  }

  #choose(offered: FeatureSet): FeatureSet {
    let accepted = offered & DRIVER_FEATURES & (this.#options.features ?? DRIVER_FEATURES);
    accepted |= featureMask(Feature.VERSION_1);
    const { strategy } = this.#options;
    if (!strategy) accepted &= ~featureMask(BalloonFeature.FREE_PAGE_HINT);
    const hints = hasFeature(accepted, BalloonFeature.FREE_PAGE_HINT);
    if (hints && strategy?.waitsOnAck) return accepted;
    return accepted & ~featureMask(BalloonFeature.HINT_WAIT_ON_ACK);
  }

  *#initQueues(offered: FeatureSet): Kthread<string | null> {
    const { mm, ram } = this.#kernel;
    const numbering = this.#options.numbering ?? 'dense-by-negotiated';
    const indices = queueIndices(numbering, offered, this.features);
    const acked = (): void => this.#acked.wake();
    const inflateq = yield* this.#findQueue('inflateq', indices, acked);
    const deflateq = yield* this.#findQueue('deflateq', indices, acked);
    if (!inflateq || !deflateq) return 'the device has no inflateq or deflateq';
    this.#inflateq = inflateq;
    this.#deflateq = deflateq;
    const pfn = mm.alloc(0, Gfp.GFP_KERNEL | Gfp.__GFP_ZERO);
    if (pfn < 0) return 'out of memory';
    this.#bufferPfn = pfn;
    const bytes = ram.bytesOf(pfn, 1);
    this.#buffer = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    if (!hasFeature(this.features, BalloonFeature.FREE_PAGE_HINT)) return null;
    return yield* this.#initHinting(indices);
  }

  *#initHinting(indices: QueueIndices): Kthread<string | null> {
    const used = (): void => this.hinting?.queueUsed();
    const queue = yield* this.#findQueue('free_page_vq', indices, used);
    if (!queue || queue.size < 2) return 'the device has no usable free_page_vq';
    this.hinting = new FreePageHinting({
      kernel: this.#kernel,
      transport: this.#transport,
      queue,
      strategy: this.#options.strategy!,
      observers: this.#options.observers ?? [],
      waitsOnAck: hasFeature(this.features, BalloonFeature.HINT_WAIT_ON_ACK),
      readCmdId: () => this.#readConfig('free_page_hint_cmd_id'),
      writeCommand: (which, cmdId) => this.#writeCommand(which, cmdId),
    });
    return null;
  }

  *#findQueue(
    name: BalloonQueueName,
    indices: QueueIndices,
    callback: () => void,
  ): Kthread<DriverQueue | null> {
    const index = indices[name];
    if (index === null) return null;
    const maxSize = yield* this.#transport.getQueueMaxSize(index);
    const queue = allocateQueue(this.#kernel, index, maxSize);
    if (queue) yield* this.#transport.setQueue(queue, callback);
    return queue;
  }

  #startWork(): void {
    this.#transport.onConfigChanged = () => this.#changed();
    this.#kernel.spawn('update_balloon_size', () => this.#sizeWork.loop());
    if (this.hinting) this.#kernel.spawn('balloon-wq', () => this.#hintWork.loop());
    if (!hasFeature(this.features, BalloonFeature.DEFLATE_ON_OOM)) return;
    this.#options.registerOomNotifier?.(OOM_NOTIFY_PRIORITY, () => this.#oomNotify());
  }

  /** virtballoon_changed: the interrupt does not say which field changed. */
  #changed(): void {
    this.counters.balloon_config_changes++;
    const dueAt = this.#kernel.now + this.#kernel.costs.configWorkNs;
    this.#sizeWork.queue(dueAt);
    if (this.hinting?.configChanged()) this.#hintWork.queue(dueAt);
  }

  /** update_balloon_size_func: one pass, then again while a difference remains. */
  *#updateBalloonSize(): Kthread {
    const difference = yield* this.#towardsTarget();
    if (difference === 0) return;
    const moved =
      difference > 0 ? yield* this.#fillBalloon(difference) : yield* this.#leakBalloon(-difference);
    yield* this.#updateActual();
    if (moved === Math.abs(difference)) return;
    const isIsolated = difference < 0 && moved === 0;
    this.#sizeWork.queue(this.#kernel.now + (isIsolated ? ISOLATED_RETRY_NS : 0));
  }

  *#towardsTarget(): Kthread<number> {
    return (yield* this.#readConfig('num_pages')) - this.#numPages;
  }

  /** Returns how many pages went into the balloon: at most one buffer full. */
  *#fillBalloon(wanted: number): Kthread<number> {
    // Without the lock: an allocation may reclaim, and the OOM notifier takes it.
    const count = yield* this.#allocate(Math.min(wanted, VIRTIO_BALLOON_PFNS_MAX));
    if (count === 0) return 0;
    yield* this.#lock.lock();
    yield* this.#pages.enqueue(this.#allocated, count);
    this.#numPages += count;
    yield* this.#tellHost(this.#inflateq, this.#allocated, count);
    this.#lock.unlock();
    return count;
  }

  *#allocate(target: number): Kthread<number> {
    const memoryCostNs = startMemoryCost(this.#kernel);
    let count = 0;
    while (count < target) {
      const pfn = this.#pages.alloc();
      if (pfn < 0) break;
      this.#allocated[count++] = pfn;
    }
    const allocNs = Math.max(1, count) * this.#kernel.costs.allocNs;
    yield { kind: 'cpu', ns: allocNs + memoryCostNs() };
    if (count < target) yield* this.#outOfPuff();
    return count;
  }

  *#outOfPuff(): Kthread {
    this.counters.balloon_out_of_puff++;
    this.#kernel.log.add(this.#kernel.now, 'balloon_out_of_puff', { pages: this.#numPages });
    yield { kind: 'sleep', ns: OUT_OF_PUFF_NS };
  }

  /** Returns how many pages left the balloon: at most one buffer full, and none that is isolated. */
  *#leakBalloon(wanted: number): Kthread<number> {
    yield* this.#lock.lock();
    const target = Math.min(wanted, VIRTIO_BALLOON_PFNS_MAX, this.#numPages);
    const count = yield* this.#pages.dequeue(this.#dequeued, target);
    if (count > 0) {
      this.#numPages -= count;
      // The host first, the allocator second: until the ack the page may still be discarded.
      yield* this.#tellHost(this.#deflateq, this.#dequeued, count);
      yield* this.#pages.release(this.#dequeued, count);
      yield { kind: 'cpu', ns: count * this.#kernel.costs.allocNs };
    }
    this.#lock.unlock();
    return count;
  }

  /** virtballoon_oom_notify: the target stays, and is looked at again at the next config interrupt. */
  *#oomNotify(): Kthread<number> {
    const freed = yield* this.#leakBalloon(OOM_NOTIFY_PAGES);
    yield* this.#updateActual();
    return freed;
  }

  /**
   * virtballoon_migratepage: the host takes the new page before it gives back the old one. EAGAIN:
   * the balloon is inflating, deflating or moving another page, perhaps to make room for this move.
   */
  *#migratePage(dst: Pfn, src: Pfn): Kthread<Errno> {
    if (!this.#lock.tryLock()) return Errno.EAGAIN;
    this.#moved[0] = dst;
    yield* this.#tellHost(this.#inflateq, this.#moved, 1);
    this.#moved[0] = src;
    yield* this.#tellHost(this.#deflateq, this.#moved, 1);
    this.#lock.unlock();
    return Errno.OK;
  }

  /** One readable buffer, one kick, and an uninterruptible wait without a timeout. Under the lock. */
  *#tellHost(queue: DriverQueue, pfns: Int32Array, count: number): Kthread {
    for (let i = 0; i < count; i++) {
      this.#buffer.setUint32(PFNS_OFFSET + i * BALLOON_PFN_BYTES, pfns[i]!, true);
    }
    this.#kernel.ram.touchBytes(this.#bufferPfn);
    const gpa = pfnToGpa(this.#bufferPfn) + PFNS_OFFSET;
    const head = queue.addChain({ out: [{ gpa, lengthBytes: count * BALLOON_PFN_BYTES }] });
    assert(head >= 0, 'at most one balloon buffer is outstanding');
    yield* this.#transport.notify(queue);
    yield { kind: 'cpu', ns: this.#kernel.costs.queueElementNs };
    while (queue.getUsed() < 0) yield { kind: 'wait', queue: this.#acked };
  }

  *#updateActual(): Kthread {
    const data = new Uint8Array(4);
    new DataView(data.buffer).setUint32(0, this.#numPages, true);
    yield* this.#transport.writeConfig(BalloonConfig.offsets.actual, data);
  }

  *#readConfig(field: keyof BalloonConfig): Kthread<number> {
    const data = yield* this.#transport.readConfig(BalloonConfig.offsets[field], 4);
    if (data.length === 4) {
      return new DataView(data.buffer, data.byteOffset, 4).getUint32(0, true);
    }
    // A device that promised the field and does not have it: 0 is "no target" and STOP.
    this.counters.balloon_bad_config_reads++;
    return 0;
  }

  #writeCommand(which: 'start' | 'stop', cmdId: number): number {
    const offset = which === 'start' ? START_ID_OFFSET : STOP_ID_OFFSET;
    this.#buffer.setUint32(offset, cmdId, true);
    this.#kernel.ram.touchBytes(this.#bufferPfn);
    return pfnToGpa(this.#bufferPfn) + offset;
  }
}
