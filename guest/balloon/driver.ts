/**
 * The traditional balloon driver, as linux drivers/virtio/virtio_balloon.c: probe and remove, freeze
 * and restore, the work items of size, statistics and hints. `size.ts` inflates and deflates,
 * `behaviour.ts` has what other operating systems do differently.
 */
import {
  BalloonFeature,
  type BalloonQueueName,
  type FeatureSet,
  hasFeature,
} from '../../protocol/index.ts';
import { Errno, NS_PER_US } from '../../shared/index.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { WorkItem } from '../kernel/work-item.ts';
import type { Kthread } from '../sched/kthread.ts';
import { DRIVER_BEHAVIOURS, type DriverBehaviour } from './behaviour.ts';
import { BalloonBinding } from './binding.ts';
import type { BalloonDriverOptions } from './driver-options.ts';
import { chooseFeatures, poisonVal } from './features.ts';
import { FreePageReport, REPORTING_RING_MIN } from './free-page-report.ts';
import { FreePageHinting } from './hinting.ts';
import { BalloonPages } from './pages.ts';
import type { BalloonQueues } from './queues.ts';
import { BalloonSize } from './size.ts';
import { StatisticsQueue } from './stats.ts';
import { resumeDevice, suspendDevice } from './suspend.ts';

/** When a pass that found only isolated pages tries again: about one page migration later. */
const ISOLATED_RETRY_NS = 50 * NS_PER_US;
/** VIRTIO_BALLOON_OOM_NOTIFY_PRIORITY, and what one notification takes. */
const OOM_NOTIFY_PRIORITY = 80;
const OOM_NOTIFY_PAGES = 256;

export type ProbeState = 'probing' | 'ready' | 'failed' | 'removed' | 'frozen';

export class BalloonDriver {
  readonly counters = {
    balloon_inflate: 0,
    balloon_deflate: 0,
    balloon_migrate: 0,
    balloon_out_of_puff: 0,
    balloon_ack_timeouts: 0,
    balloon_untold_requests: 0,
    balloon_config_changes: 0,
    balloon_bad_config_reads: 0,
    /** Times that the device got its statistics back with fresh figures. */
    balloon_stats_updates: 0,
    /** Times that the device needed a reset and got it. */
    balloon_device_resets: 0,
  };
  state: ProbeState = 'probing';
  /** Why the probe failed, or null. */
  failure: string | null = null;
  hinting: FreePageHinting | null = null;
  readonly #kernel: Kernel;
  readonly #options: BalloonDriverOptions;
  readonly #behaviour: DriverBehaviour;
  readonly #binding: BalloonBinding;
  readonly #pages: BalloonPages;
  readonly #size: BalloonSize;
  readonly #report: FreePageReport;
  readonly #sizeWork: WorkItem;
  readonly #hintWork: WorkItem;
  readonly #statsWork: WorkItem;
  readonly #resetWork: WorkItem;
  #statistics: StatisticsQueue | null = null;
  /** stop_update: interrupts queue no work any more. */
  #isStopped = true;
  #isHinting = false;
  #isReporting = false;
  #unregisterOomNotifier: (() => void) | null = null;

  constructor(kernel: Kernel, options: BalloonDriverOptions) {
    this.#kernel = kernel;
    this.#options = options;
    this.#behaviour = options.behaviour ?? DRIVER_BEHAVIOURS.linux;
    const { canMovePages, leaves, pfnsMax } = this.#behaviour;
    this.#binding = new BalloonBinding({
      kernel,
      transport: options.transport,
      numbering: options.numbering ?? 'dense-by-offered',
      pfnsMax,
      counters: this.counters,
      choose: (offered) => chooseFeatures(offered, this.#behaviour, options),
      callback: (name) => this.#interrupt(name),
    });
    this.#pages = new BalloonPages({
      ...options.memory,
      compaction: options.memory.compaction && canMovePages,
      kernel,
      leaves,
      counters: this.counters,
      migratePage: (dst, src) => this.#size.migratePage(dst, src),
    });
    this.#size = new BalloonSize({
      kernel,
      behaviour: this.#behaviour,
      counters: this.counters,
      pages: this.#pages,
      isLowMemory: options.isLowMemory ?? (() => false),
    });
    this.#report = new FreePageReport(kernel, () => this.#binding.queues);
    this.#sizeWork = new WorkItem(kernel, 'update_balloon_size', () => this.#updateBalloonSize());
    this.#hintWork = new WorkItem(kernel, 'balloon-wq', () => this.hinting!.work());
    this.#statsWork = new WorkItem(kernel, 'update_balloon_stats', () => this.#updateStatistics());
    this.#resetWork = new WorkItem(kernel, 'virtio_reset', () => this.#recover());
  }

  /** What was negotiated. */
  get features(): FeatureSet {
    return this.#binding.features;
  }

  /** Pages in the balloon, as the driver counts them. */
  get numPages(): number {
    return this.#size.numPages;
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
    if (listedPages + isolatedPages !== this.numPages) {
      problems.push(
        `${listedPages} balloon pages are listed and ${isolatedPages} isolated, of ${this.numPages}`,
      );
    }
    return problems;
  }

  /** Binds the driver to its device again. Returns why it could not, or null. */
  *probe(): Kthread<string | null> {
    if (this.state !== 'removed' && this.state !== 'failed') return this.#notNow('probe');
    this.state = 'probing';
    yield* this.#probe();
    return this.failure;
  }

  /** virtballoon_remove. Returns why it could not, or null. Waits as long as the device takes. */
  *remove(): Kthread<string | null> {
    if (this.state !== 'ready') return this.#notNow('remove');
    this.state = 'removed';
    yield* this.#unregister();
    yield* this.#stop();
    yield* this.#empty();
    if (this.#behaviour.writesActualAtRemove) yield* this.#updateActual();
    yield* this.#letGo();
    this.#kernel.log.add(this.#kernel.now, 'balloon_removed', {});
    return null;
  }

  /** virtballoon_freeze: the system is suspended. Returns why it could not, or null. */
  *freeze(): Kthread<string | null> {
    const { suspend } = this.#behaviour;
    if (suspend === null) return `the driver of ${this.#behaviour.name} has no suspend`;
    if (this.state !== 'ready') return this.#notNow('freeze');
    this.state = 'frozen';
    yield* this.#stop();
    if (!(yield* suspendDevice(this.#binding, this.#size))) {
      if (suspend === 'deflate') {
        yield* this.#empty();
        yield* this.#updateActual();
      }
      yield* this.#letGo();
    }
    this.#kernel.log.add(this.#kernel.now, 'balloon_frozen', { pages: this.numPages });
    return null;
  }

  /** virtballoon_restore. Returns why it could not, or null. */
  *restore(): Kthread<string | null> {
    if (this.state !== 'frozen') return this.#notNow('restore');
    const failure = yield* this.#binding.isSuspended ? this.#resume() : this.#attach();
    if (failure === null) yield* this.#updateActual();
    yield* this.#probed(failure, 'balloon_restored');
    return failure;
  }

  *#resume(): Kthread<string | null> {
    const failure = yield* resumeDevice(this.#binding, this.#size);
    if (failure !== null) return failure;
    this.#startWork();
    this.#changed();
    return null;
  }

  *#unregister(): Kthread {
    if (this.#isReporting) yield* this.#options.reporting!.unregister(this.#report);
    this.#isReporting = false;
    this.#unregisterOomNotifier?.();
    this.#unregisterOomNotifier = null;
  }

  #notNow(what: string): string {
    return `cannot ${what} a driver that is ${this.state}`;
  }

  *#probe(): Kthread {
    yield* this.#probed(yield* this.#attach(), 'balloon_ready');
  }

  *#probed(failure: string | null, event: string): Kthread {
    this.failure = failure;
    if (failure === null) {
      this.state = 'ready';
      this.#kernel.log.add(this.#kernel.now, event, { features: `${this.features}` });
      return;
    }
    this.state = 'failed';
    this.#kernel.log.add(this.#kernel.now, 'balloon_probe_failed', { reason: failure });
    yield* this.#binding.fail();
  }

  /** virtballoon_probe. Returns why it failed, or null. */
  *#attach(): Kthread<string | null> {
    const failure = (yield* this.#binding.open()) ?? (yield* this.#setUp());
    if (failure !== null) return failure;
    this.#startWork();
    yield* this.#binding.ready();
    if (this.#options.kicksEarly === false) yield* this.#kickStatistics();
    if ((yield* this.#towardsTarget()) !== 0) this.#changed();
    return null;
  }

  /** What each feature needs between the queues and DRIVER_OK. Returns why it failed, or null. */
  *#setUp(): Kthread<string | null> {
    const queues = this.#binding.queues!;
    this.#size.queues = queues;
    this.#initStatistics(queues);
    if (this.#options.kicksEarly !== false) yield* this.#kickStatistics();
    this.#initHinting(queues);
    this.#pages.adjustsManagedPages = !this.#has(BalloonFeature.DEFLATE_ON_OOM);
    const poisons = this.#has(BalloonFeature.PAGE_POISON);
    if (poisons) yield* this.#binding.writeConfig('poison_val', poisonVal(this.#options.memory));
    if (!this.#has(BalloonFeature.PAGE_REPORTING) || this.#isReporting) return null;
    if (queues.reportingVq!.size < REPORTING_RING_MIN) {
      return `the reporting_vq has less than ${REPORTING_RING_MIN} entries`;
    }
    if (this.#options.reporting!.register(this.#report) !== Errno.OK) {
      return 'free pages are reported to another device';
    }
    this.#isReporting = true;
    return null;
  }

  #initStatistics(queues: BalloonQueues): void {
    const { statsq: queue } = queues;
    const { statistics: tags } = this.#behaviour;
    const read = () => this.#options.statistics!(tags);
    this.#statistics = queue
      ? new StatisticsQueue({ kernel: this.#kernel, queues, queue, read })
      : null;
    this.#statistics?.prime();
  }

  *#kickStatistics(): Kthread {
    if (this.#statistics) yield* this.#statistics.kick();
  }

  #initHinting(queues: BalloonQueues): void {
    this.#isHinting = queues.freePageVq !== null;
    if (!queues.freePageVq) return;
    this.hinting = new FreePageHinting({
      kernel: this.#kernel,
      transport: this.#options.transport,
      queue: queues.freePageVq,
      strategy: this.#options.strategy!,
      observers: this.#options.observers ?? [],
      waitsOnAck: this.#has(BalloonFeature.HINT_WAIT_ON_ACK),
      readCmdId: () => this.#binding.readConfig('free_page_hint_cmd_id'),
      writeCommand: (which, cmdId) => queues.writeCommand(which, cmdId),
      ...(this.hinting ? { counters: this.hinting.counters } : {}),
    });
  }

  #startWork(): void {
    this.#isStopped = false;
    this.#options.transport.onConfigChanged = () => this.#changed();
    this.#sizeWork.start();
    if (this.#isHinting) this.#hintWork.start();
    if (this.#statistics) this.#statsWork.start();
    if (this.#options.onNeedsReset === 'reset') this.#resetWork.start();
    if (!this.#has(BalloonFeature.DEFLATE_ON_OOM) || this.#unregisterOomNotifier) return;
    this.#unregisterOomNotifier =
      this.#options.registerOomNotifier?.(OOM_NOTIFY_PRIORITY, () => this.#oomNotify()) ?? null;
  }

  /** virtballoon_changed: the interrupt does not say which field changed. */
  #changed(): void {
    this.counters.balloon_config_changes++;
    if (this.#options.onNeedsReset === 'reset') this.#resetWork.queue(this.#kernel.now);
    if (this.#isStopped) return;
    const dueAt = this.#kernel.now + this.#kernel.costs.configWorkNs;
    this.#sizeWork.queue(dueAt);
    if (this.#isHinting && this.hinting!.configChanged()) this.#hintWork.queue(dueAt);
  }

  /** Interrupt of a queue. */
  #interrupt(name: BalloonQueueName): void {
    if (name === 'free_page_vq') this.hinting?.queueUsed();
    else if (name !== 'statsq') this.#binding.queues?.acked.wake();
    else if (!this.#isStopped) this.#statsWork.queue(this.#kernel.now);
    if (this.#behaviour.onePassPerInterrupt && !this.#isStopped) {
      this.#sizeWork.queue(this.#kernel.now);
    }
  }

  /** update_balloon_size_func: one pass, then again while a difference remains. */
  *#updateBalloonSize(): Kthread {
    const { onePassPerInterrupt, retryNs } = this.#behaviour;
    const difference = yield* this.#towardsTarget();
    if (difference === 0 && !onePassPerInterrupt) return;
    let moved = 0;
    if (difference > 0) moved = yield* this.#size.fill(difference);
    else if (difference < 0) moved = yield* this.#size.leak(-difference);
    yield* this.#updateActual();
    if (moved === Math.abs(difference) || onePassPerInterrupt || this.#isStopped) return;
    const isIsolated = difference < 0 && moved === 0;
    const isShort = difference > 0 && moved < Math.min(difference, this.#behaviour.pfnsMax);
    const delayNs = isIsolated ? ISOLATED_RETRY_NS : isShort ? retryNs : 0;
    this.#sizeWork.queue(this.#kernel.now + delayNs);
  }

  *#towardsTarget(): Kthread<number> {
    return (yield* this.#binding.readConfig('num_pages')) - this.numPages;
  }

  *#updateActual(): Kthread {
    const { queues } = this.#binding;
    if (queues && !queues.isLost) yield* this.#binding.writeConfig('actual', this.numPages);
  }

  *#updateStatistics(): Kthread {
    if (yield* this.#statistics!.work()) this.counters.balloon_stats_updates++;
  }

  /** virtballoon_oom_notify: the target stays, and is looked at again at the next config interrupt. */
  *#oomNotify(): Kthread<number> {
    const freed = yield* this.#size.leak(OOM_NOTIFY_PAGES);
    yield* this.#updateActual();
    return freed;
  }

  /** DEVICE_NEEDS_RESET: nobody can rely on what the device has not answered; start afresh. */
  *#recover(): Kthread {
    if (this.state !== 'ready' || !(yield* this.#binding.needsReset())) return;
    this.counters.balloon_device_resets++;
    this.state = 'probing';
    this.#kernel.log.add(this.#kernel.now, 'balloon_device_reset', { pages: this.numPages });
    this.#binding.queues?.lose();
    this.hinting?.lose();
    // Before anything is free that the device may still have had its hands on.
    yield* this.#options.transport.reset();
    yield* this.#stop();
    yield* this.#empty();
    yield* this.#letGo();
    yield* this.#probe();
    yield* this.#updateActual();
  }

  /** No work is queued or under way any more. */
  *#stop(): Kthread {
    this.#isStopped = true;
    yield* this.#sizeWork.cancel();
    yield* this.#statsWork.cancel();
    yield* this.#hintWork.cancel();
  }

  /** Every page of the balloon is the guest's again. */
  *#empty(): Kthread {
    while (this.numPages > 0) {
      const moved = yield* this.#size.leak(this.numPages);
      if (moved === 0) yield { kind: 'sleep', ns: ISOLATED_RETRY_NS };
    }
  }

  /** remove_common, from the blocks that are held for hinting on. */
  *#letGo(): Kthread {
    if (this.#isHinting) this.#options.strategy!.release();
    this.#isHinting = false;
    // A report that the device has not acknowledged never will be.
    this.#binding.queues?.lose();
    this.#size.queues = null;
    yield* this.#binding.close();
  }

  #has(feature: BalloonFeature): boolean {
    return hasFeature(this.features, feature);
  }
}
