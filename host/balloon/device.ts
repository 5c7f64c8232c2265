/**
 * The traditional memory balloon device, virtio 1.4 §5.5, behaving as QEMU's unless its options say
 * otherwise: queues, target, inflate and deflate, statistics, free page hinting and reporting. It is
 * called at the time of a notification plus its latency and answers what to post to the guest.
 */
import {
  type BalloonConfig,
  BalloonFeature,
  type BalloonQueueName,
  DeviceId,
  type DeviceQuirk,
  type FeatureSet,
  type HintingStatus,
  type Message,
} from '../../protocol/index.ts';
import { assert, Bitmap, type Nanoseconds } from '../../shared/index.ts';
import type { State, StateFields } from '../state/fields.ts';
import { type DeviceModel, VirtioDevice } from '../virtio/device.ts';
import { AvailCursor, type DeviceQueue } from '../virtio/queue.ts';
import { decodeConfigWrite, encodeConfig } from './config.ts';
import { Discards } from './discards.ts';
import { featuresAgree, offeredFeatures, QueueTable } from './features.ts';
import { HeldNotifications } from './held-notifications.ts';
import { HintQueue } from './hint-queue.ts';
import { type HintSink, HintStateMachine, type HintStatus } from './hinting.ts';
import { InflatedSet, KEPT } from './inflate.ts';
import { type BalloonMetrics, countViolation, loadMetrics, newBalloonMetrics } from './metrics.ts';
import type { AvailResult, BalloonDeviceHooks, BalloonDeviceOptions } from './options.ts';
import { PoisonVal } from './poison-val.ts';
import { Reporting } from './reporting.ts';
import { StatsQueue } from './stats.ts';
import { hasUnmapped } from './unmapped.ts';

export type { AvailResult, BalloonDeviceHooks, BalloonDeviceOptions } from './options.ts';
export { BALLOON_DEVICE_DEFAULTS } from './options.ts';

const NOTHING: AvailResult = { used: [], irqVectors: [], costNs: 0 };

export class BalloonDevice {
  readonly metrics: BalloonMetrics = newBalloonMetrics();
  readonly virtio: VirtioDevice;
  readonly #options: BalloonDeviceOptions;
  readonly #hooks: BalloonDeviceHooks;
  readonly #offered: FeatureSet;
  readonly #hinting: HintStateMachine;
  readonly #hintQueue: HintQueue;
  readonly #inflated: InflatedSet;
  readonly #discards: Discards;
  readonly #reporting: Reporting;
  readonly stats: StatsQueue;
  readonly #ramPageCount: number;
  readonly #cursor = new AvailCursor();
  readonly #queues: QueueTable;
  readonly #held = new HeldNotifications();
  #targetPages = 0;
  #actualPages = 0;
  readonly #poison: PoisonVal;
  readonly #breaksOnUnmapped: boolean;
  readonly #countsActual: boolean;

  constructor(options: BalloonDeviceOptions, hooks: BalloonDeviceHooks) {
    const { quirks, ramPages } = options;
    this.#options = options;
    this.#hooks = hooks;
    this.#offered = offeredFeatures(options);
    this.#queues = new QueueTable(options, this.#offered);
    const ram = options.ram ?? Bitmap.allSet(ramPages);
    this.#ramPageCount = ram.count();
    this.#discards = new Discards(ram, this.metrics, hooks, options.inhibitDiscards);
    const onHint = options.discardHints ? this.#discardingSink() : hooks.onHint;
    this.#hinting = new HintStateMachine(options, this.metrics, onHint);
    this.#hintQueue = new HintQueue(this.#hinting, this.metrics, options);
    this.#inflated = new InflatedSet(ram, this.metrics, quirks);
    this.#poison = new PoisonVal(quirks);
    this.#reporting = new Reporting(this.#poison, ramPages, this.metrics, this.#discards, quirks);
    this.stats = new StatsQueue(options.stats, quirks, this.metrics, {
      now: () => hooks.now?.() ?? 0,
      after: (delayNs, action) => hooks.after?.(delayNs, action),
      use: (head) => this.#useStats(head),
      isServed: () => this.virtio.isLive && this.virtio.negotiated(BalloonFeature.STATS_VQ),
    });
    this.#breaksOnUnmapped = quirks.has('unmapped-segment-breaks');
    this.#countsActual = quirks.has('actual-counted-by-host');
    this.virtio = this.#createVirtio();
  }

  #createVirtio(): VirtioDevice {
    const { quirks, configBytes } = this.#options;
    const model: DeviceModel = {
      deviceId: DeviceId.BALLOON,
      offeredFeatures: this.#offered,
      maxQueueSizes: this.#queues.maxSizes,
      readConfig: () => encodeConfig(this.#configValues(), this.#offered, configBytes),
      writeConfig: (offset, data) => this.#writeConfig(offset, data),
      featuresAgree,
      onFeaturesOk: () => this.#queues.number(this.virtio.negotiatedFeatures),
      onReset: () => this.#reset(),
      onQueueReset: (index) => this.#queueReset(index),
      onDriverOk: () => this.#releaseHeld(),
      onSuspend: () => this.#hooks.flushUsed?.(),
    };
    const onChange = (generation: number) =>
      this.#hooks.post({ name: 'configChanged', generation });
    return new VirtioDevice(model, onChange, {
      unofferedFeaturesAccepted: quirks.has('unoffered-features-accepted'),
      absentConfigReadsOnes: quirks.has('absent-config-reads-ones'),
    });
  }

  get targetPages(): number {
    return this.#targetPages;
  }

  /** What the driver says is in the balloon. */
  get actualPages(): number {
    return this.#actualPages;
  }

  get poisonVal(): number {
    return this.#poison.value;
  }

  get hintStatus(): HintStatus {
    return this.#hinting.status;
  }

  get hintCmdId(): number {
    return this.#hinting.cmdId;
  }

  /** What the host asks for and what the guest said last: Firecracker's hinting status. */
  get hintCommands(): HintingStatus {
    return { host_cmd: this.#hinting.hostCommand, guest_cmd: this.#hinting.driverId };
  }

  /** A round was asked for and the driver has not ended it. */
  get hintingAwaitsDriver(): boolean {
    return this.#hinting.awaitsDriver;
  }

  /** One bit per page in the balloon; live. */
  get inflatedPages(): Bitmap {
    return this.#inflated.bits;
  }

  /** Everything that the driver did against the rules. */
  get protocolViolations(): number {
    return this.metrics.protocol_violations + this.virtio.violationCount;
  }

  /** What of the device travels with its guest (virtio_save, and what belongs to our figures). */
  saveState(): State {
    return {
      virtio: this.virtio.saveState(),
      target_pages: this.#targetPages,
      actual_pages: this.#actualPages,
      poison: this.#poison.saveState(),
      hinting: this.#hinting.saveState(),
      stats: this.stats.saveState(),
      ...this.#inflated.saveState(),
      metrics: { ...this.metrics },
    };
  }

  /** For a new device of the same options. @throws BallastError MESSAGE_INVALID. */
  loadState(fields: StateFields): void {
    this.virtio.loadState(fields.object('virtio'));
    // Which queue has which number follows from the features, once they are chosen.
    const negotiated = this.virtio.negotiatedFeatures;
    if (negotiated !== 0n) this.#queues.number(negotiated);
    this.#targetPages = fields.int('target_pages', this.#ramPageCount);
    this.#actualPages = fields.int('actual_pages', 0xffff_ffff);
    this.#poison.loadState(fields.object('poison'));
    this.#hinting.loadState(fields.object('hinting'));
    this.#inflated.loadState(fields);
    loadMetrics(this.metrics, fields.object('metrics'));
    this.stats.loadState(fields.object('stats'));
  }

  /** Any virtio message but `avail`. Returns the reply, or null for a posted one. */
  handle(message: Message): Message | null {
    return this.virtio.handle(message);
  }

  /** Change the target; clamped to guest memory. */
  setTarget(pages: number): void {
    assert(Number.isInteger(pages) && pages >= 0, 'a balloon target is a whole number of pages');
    const target = Math.min(pages, this.#ramPageCount);
    if (target === this.#targetPages) return;
    this.#targetPages = target;
    this.virtio.configChanged();
  }

  hasQuirk(quirk: DeviceQuirk): boolean {
    return this.#options.quirks.has(quirk);
  }

  /** The device offers STATS_VQ. */
  get hasStats(): boolean {
    return this.#options.statsVq;
  }

  /** Hinting was negotiated. */
  get canHint(): boolean {
    return this.virtio.negotiated(BalloonFeature.FREE_PAGE_HINT);
  }

  /**
   * Start a round under a new id; `acknowledgeOnStop`: the driver's STOP is answered with DONE.
   * False: hinting was not negotiated.
   */
  hintStart(acknowledgeOnStop = false): boolean {
    if (!this.canHint) return false;
    this.#hinting.start(acknowledgeOnStop);
    this.virtio.configChanged();
    return true;
  }

  /** After it returns no hint is accepted until the next round. */
  hintStop(): void {
    if (this.#hinting.stop() && this.canHint) this.virtio.configChanged();
  }

  /** The guest may take back what it hinted. */
  hintDone(): void {
    if (this.canHint && this.#hinting.done()) this.virtio.configChanged();
  }

  /** One `avail` message, at the time the device looks at it. */
  handleAvail(message: Message<'avail'>): AvailResult {
    // A broken device looks at nothing until it is reset; that is no further offence.
    if (this.virtio.needsReset) return NOTHING;
    const queue = this.virtio.queue(message.queue);
    const name = this.#queues.names[message.queue];
    if (!queue || !name) {
      countViolation(this.metrics, 'bad_messages');
      return NOTHING;
    }
    if (!this.#cursor.load(message, queue.size)) {
      countViolation(this.metrics, 'bad_messages');
      this.virtio.setNeedsReset();
      return NOTHING;
    }
    if (!this.virtio.isLive) {
      this.#hold(message);
      return NOTHING;
    }
    let costNs = 0;
    while (this.virtio.isLive && this.#cursor.next()) costNs += this.#handleChain(name, queue);
    this.#discards.flush();
    const used = queue.takeUsed();
    if (used === null) return { ...NOTHING, costNs };
    return { used: [used], irqVectors: [queue.index], costNs };
  }

  /** Returns what the chain cost. */
  #handleChain(name: BalloonQueueName, queue: DeviceQueue): Nanoseconds {
    const { head } = this.#cursor;
    const { elementNs, balloonPfnNs } = this.#options.costs;
    if (!queue.pop(head)) {
      countViolation(this.metrics, 'bad_heads');
      this.virtio.setNeedsReset();
      return elementNs;
    }
    if (this.#breaksOnUnmapped && hasUnmapped(this.#cursor, this.#options.ramPages)) {
      countViolation(this.metrics, 'bad_segments');
      this.virtio.setNeedsReset();
      return elementNs;
    }
    if (!this.#queues.isServed[queue.index]) {
      countViolation(this.metrics, 'declined_queue_chains');
      queue.push(head, 0);
      return elementNs;
    }
    switch (name) {
      case 'inflateq':
      case 'deflateq': {
        const pfnCount = this.#handlePfns(name);
        if (this.#countsActual) this.#setActual(this.#inflated.balance);
        if (pfnCount !== KEPT) queue.push(head, 0);
        return elementNs + Math.max(0, pfnCount) * balloonPfnNs;
      }
      case 'statsq':
        this.#handleStats(queue);
        return elementNs;
      case 'free_page_vq':
        if (this.#hintQueue.handle(this.#cursor, this.virtio)) queue.push(head, 0);
        return elementNs;
      case 'reporting_vq':
        queue.push(head, this.#reporting.handle(this.#cursor));
        return elementNs + this.#cursor.inCount * balloonPfnNs;
    }
  }

  #handlePfns(name: 'inflateq' | 'deflateq'): number {
    const { out, outStart, outBytes, inCount } = this.#cursor;
    if (inCount > 0) {
      countViolation(this.metrics, 'bad_directions');
      return 0;
    }
    if (name === 'deflateq') return this.#inflated.deflate(out, outStart, outBytes);
    const pfnCount = this.#inflated.inflate(out, outStart, outBytes, this.#discards.entered);
    if (this.#options.quirks.has('inflate-keeps-content')) this.#discards.forget();
    return pfnCount;
  }

  /** The buffer stays here until the next question. */
  #handleStats(queue: DeviceQueue): void {
    const { head, out, outStart, outBytes, inCount } = this.#cursor;
    if (inCount > 0) countViolation(this.metrics, 'bad_directions');
    const returned = this.stats.receive(head, out, outStart, outBytes);
    if (returned >= 0) queue.push(returned, 0);
  }

  #useStats(head: number): void {
    const index = this.#queues.names.indexOf('statsq');
    const queue = this.virtio.queue(index);
    assert(queue !== undefined, 'a buffer is held of a queue that is there');
    queue.push(head, 0);
    const used = queue.takeUsed();
    if (used !== null) this.#hooks.post(used);
    this.#hooks.post({ name: 'irq', vector: queue.index });
  }

  /** The hint goes on its way, and what is RAM of it is to be discarded. */
  #discardingSink(): HintSink {
    return (firstPfn, pageCount, origin) => {
      this.#hooks.onHint(firstPfn, pageCount, origin);
      this.#discards.addRange(firstPfn, firstPfn + pageCount);
    };
  }

  #hold(message: Message<'avail'>): void {
    if (this.#held.hold(message, this.#queues.entryCount)) {
      this.metrics.held_notifications++;
      return;
    }
    countViolation(this.metrics, 'bad_messages');
    this.virtio.setNeedsReset();
  }

  #releaseHeld(): void {
    for (const message of this.#held.take()) {
      if (this.#hooks.renotify) {
        this.#hooks.renotify(message);
        continue;
      }
      const { used, irqVectors } = this.handleAvail(message);
      for (const one of used) this.#hooks.post(one);
      for (const vector of irqVectors) this.#hooks.post({ name: 'irq', vector });
    }
  }

  #configValues(): BalloonConfig {
    return {
      num_pages: this.#targetPages,
      actual: this.#actualPages,
      free_page_hint_cmd_id: this.#hinting.configValue,
      poison_val: this.#poison.value,
    };
  }

  #writeConfig(offset: number, data: Uint8Array): boolean {
    const write = decodeConfigWrite(offset, data, this.virtio.negotiatedFeatures);
    if (write === null) return false;
    const { quirks } = this.#options;
    if (write.field === 'poison_val') return this.#poison.write(write.value, this.virtio.status);
    if (quirks.has('poison-returns-after-reset')) this.#poison.restore();
    if (this.#countsActual) return true;
    if (write.value > this.#ramPageCount && !quirks.has('actual-unchecked')) return false;
    this.#setActual(write.value);
    return true;
  }

  #setActual(pages: number): void {
    if (pages === this.#actualPages) return;
    this.#actualPages = pages;
    this.#hooks.onActual?.(pages);
  }

  /** As QEMU: hinting stops, the target and the ids stay. The driver's pages are its own again. */
  #reset(): void {
    this.#hinting.reset();
    this.#inflated.bits.clearAll();
    this.#discards.forget();
    this.#held.take();
    this.stats.reset();
    this.#poison.value = 0;
    this.#queues.number(this.#offered);
    if (!this.#options.quirks.has('state-zeroed-by-reset')) return;
    this.#actualPages = 0;
    this.stats.forgetReports();
  }

  #queueReset(index: number): void {
    this.#held.forgetQueue(index);
    if (this.#queues.names[index] === 'statsq') this.stats.reset();
  }
}
