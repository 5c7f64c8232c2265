/**
 * The traditional memory balloon device, virtio 1.4 §5.5, behaving as QEMU's: queues, target,
 * inflate and deflate, free page hinting. It is called at the time of a notification plus its
 * latency and answers what to post to the guest.
 */
import {
  BALLOON_QUEUES,
  type BalloonConfig,
  BalloonFeature,
  type BalloonQueueName,
  DEVICE_FEATURE_NAMES,
  DEVICE_FEATURES,
  type DeviceFeatures,
  DeviceId,
  Feature,
  type FeatureSet,
  featureMask,
  type Message,
  type QueueNumbering,
  queueIndices,
  u32Bytes,
} from '../../protocol/index.ts';
import {
  assert,
  Bitmap,
  type Costs,
  gpaToPfn,
  type Nanoseconds,
  PAGE_SIZE_BYTES,
} from '../../shared/index.ts';
import { VirtioDevice } from '../virtio/device.ts';
import { AvailCursor, type DeviceQueue } from '../virtio/queue.ts';
import { decodeConfigWrite, encodeConfig } from './config.ts';
import { type HintSink, HintStateMachine, type HintStatus } from './hinting.ts';
import { InflatedSet, RangeBuilder } from './inflate.ts';
import { type BalloonMetrics, countViolation, newBalloonMetrics } from './metrics.ts';

export interface BalloonDeviceOptions extends DeviceFeatures {
  /** Frame numbers are below this. */
  readonly ramPages: number;
  /** The frames that hold RAM; default: all. */
  readonly ram?: Bitmap;
  readonly costs: Costs;
  /**
   * Each accepted hint is discarded at once (Firecracker ≥ 1.14), whether or not the guest has
   * reused the pages by then: a driver that does not wait for the ack can lose data.
   */
  readonly discardHints: boolean;
  readonly numbering: QueueNumbering;
  readonly startReadsAs: 'stop' | 'id';
  readonly acceptLateHints: boolean;
}

export const BALLOON_DEVICE_DEFAULTS = {
  mustTellHost: false,
  statsVq: false,
  deflateOnOom: false,
  freePageHint: true,
  pagePoison: false,
  pageReporting: false,
  hintWaitOnAck: false,
  indirectDesc: false,
  eventIdx: false,
  ringPacked: false,
  inOrder: false,
  ringReset: false,
  suspend: false,
  discardHints: false,
  numbering: 'dense-by-offered',
  startReadsAs: 'stop',
  acceptLateHints: false,
} as const satisfies Partial<BalloonDeviceOptions>;

/** What the device asks of the machine around it. */
export interface BalloonDeviceHooks {
  /** Post to the guest, ahead of what `handleAvail` returns. */
  post(message: Message): void;
  /** A hint of the current round; see `HintSink`. */
  readonly onHint: HintSink;
  /** The driver changed `actual`. */
  onActual?(pages: number): void;
  /** True: inflate must not discard now (another user relies on the backing). */
  discardInhibited?(): boolean;
}

/** Results of one notification: post `used`, then an irq per vector, `costNs` later. */
export interface AvailResult {
  readonly used: readonly Message[];
  readonly irqVectors: readonly number[];
  readonly costNs: Nanoseconds;
}

/** QEMU's queue sizes. */
const QUEUE_SIZES: Readonly<Record<BalloonQueueName, number>> = {
  inflateq: 128,
  deflateq: 128,
  statsq: 128,
  free_page_vq: 1024,
  reporting_vq: 32,
};
const HINT_COMMAND_BYTES = 4;
const NOTHING: AvailResult = { used: [], irqVectors: [], costNs: 0 };

export class BalloonDevice {
  readonly metrics: BalloonMetrics = newBalloonMetrics();
  readonly virtio: VirtioDevice;
  readonly #options: BalloonDeviceOptions;
  readonly #hooks: BalloonDeviceHooks;
  readonly #offered: FeatureSet;
  readonly #hinting: HintStateMachine;
  readonly #inflated: InflatedSet;
  readonly #ram: Bitmap;
  readonly #ramPageCount: number;
  readonly #entered = new RangeBuilder();
  readonly #cursor = new AvailCursor();
  /** Queue names by index: known once the features are, if numbering depends on them. */
  #queueNames: (BalloonQueueName | undefined)[] = [];
  #targetPages = 0;
  #actualPages = 0;
  #poisonVal = 0;

  constructor(options: BalloonDeviceOptions, hooks: BalloonDeviceHooks) {
    this.#options = options;
    this.#hooks = hooks;
    this.#offered = offeredFeatures(options);
    const sink: HintSink = (...hint) => this.#discardHint(...hint);
    this.#hinting = new HintStateMachine(
      options,
      this.metrics,
      options.discardHints ? sink : hooks.onHint,
    );
    this.#ram = options.ram ?? allOf(options.ramPages);
    this.#ramPageCount = this.#ram.count();
    this.#inflated = new InflatedSet(this.#ram, this.metrics);
    this.#nameQueues(this.#offered);
    this.virtio = new VirtioDevice(
      {
        deviceId: DeviceId.BALLOON,
        offeredFeatures: this.#offered,
        maxQueueSizes: Array.from(this.#queueNames, (name) => (name ? QUEUE_SIZES[name] : 0)),
        readConfig: () => encodeConfig(this.#configValues(), this.#offered),
        writeConfig: (offset, data) => this.#writeConfig(offset, data),
        onReset: () => this.#reset(),
        onDriverOk: () => this.#nameQueues(this.virtio.negotiatedFeatures),
      },
      (generation) => hooks.post({ name: 'configChanged', generation }),
    );
  }

  get targetPages(): number {
    return this.#targetPages;
  }

  /** What the driver says is in the balloon. */
  get actualPages(): number {
    return this.#actualPages;
  }

  get poisonVal(): number {
    return this.#poisonVal;
  }

  get hintStatus(): HintStatus {
    return this.#hinting.status;
  }

  get hintCmdId(): number {
    return this.#hinting.cmdId;
  }

  /** One bit per page in the balloon; live. */
  get inflatedPages(): Bitmap {
    return this.#inflated.bits;
  }

  /** Everything that the driver did against the rules. */
  get protocolViolations(): number {
    return this.metrics.protocol_violations + this.virtio.violationCount;
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

  /** Hinting was negotiated. */
  get canHint(): boolean {
    return this.virtio.negotiated(BalloonFeature.FREE_PAGE_HINT);
  }

  /** Start a round under a new id. False: hinting was not negotiated. */
  hintStart(): boolean {
    if (!this.canHint) return false;
    this.#hinting.start();
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
    const queue = this.virtio.queue(message.queue);
    const name = this.#queueNames[message.queue];
    if (!queue || !name || !this.virtio.isLive || !this.#cursor.load(message, queue.size)) {
      // A broken device looks at nothing until it is reset; that is no further offence.
      if (!this.virtio.needsReset) countViolation(this.metrics, 'bad_messages');
      return NOTHING;
    }
    let costNs = 0;
    while (this.virtio.isLive && this.#cursor.next()) costNs += this.#handleChain(name, queue);
    this.#discardEntered();
    const used = queue.takeUsed();
    if (used === null) return { ...NOTHING, costNs };
    return { used: [used], irqVectors: [queue.index], costNs };
  }

  /** Returns what the chain cost. */
  #handleChain(name: BalloonQueueName, queue: DeviceQueue): Nanoseconds {
    const { head } = this.#cursor;
    if (!queue.pop(head)) {
      countViolation(this.metrics, 'bad_heads');
      return this.#options.costs.elementNs;
    }
    let pfnCount = 0;
    if (name === 'free_page_vq') {
      if (!this.#handleHint()) return this.#options.costs.elementNs;
    } else {
      pfnCount = this.#handlePfns(name);
    }
    queue.push(head, 0);
    return this.#options.costs.elementNs + pfnCount * this.#options.costs.balloonPfnNs;
  }

  #handlePfns(name: BalloonQueueName): number {
    const { out, outStart, outBytes, inCount } = this.#cursor;
    if (inCount > 0) {
      countViolation(this.metrics, 'bad_directions');
      return 0;
    }
    if (name === 'inflateq') return this.#inflated.inflate(out, outStart, outBytes, this.#entered);
    if (name === 'deflateq') return this.#inflated.deflate(out, outStart, outBytes);
    return 0;
  }

  /** False: the device is broken, and the chain stays with it. */
  #handleHint(): boolean {
    const { out, outStart, outBytes, inStart, inCount, inGpa, inBytes, atNs } = this.#cursor;
    if (outBytes > 0) {
      if (outBytes !== HINT_COMMAND_BYTES) {
        countViolation(this.metrics, 'bad_lengths');
        this.virtio.setNeedsReset();
        return false;
      }
      this.#hinting.command(out.getUint32(outStart, true));
    }
    for (let i = inStart; i < inStart + inCount; i++) {
      this.#hinting.block(inGpa[i]!, inBytes[i]!, atNs);
    }
    return true;
  }

  /** The hint goes on its way, and what is RAM of it is to be discarded. */
  #discardHint(...[gpa, sizeBytes, cmdId, chainAtNs]: Parameters<HintSink>): void {
    this.#hooks.onHint(gpa, sizeBytes, cmdId, chainAtNs);
    const first = gpaToPfn(gpa);
    const end = first + sizeBytes / PAGE_SIZE_BYTES;
    // One message names no more pages than there are; a driver may hint a page many times.
    if (this.#entered.pageCount + end - first > this.#ramPageCount) this.#discardEntered();
    for (let pfn = this.#ram.nextSet(first); pfn >= 0 && pfn < end; ) {
      const stop = Math.min(this.#ram.nextClear(pfn), end);
      this.#entered.addRange(pfn, stop - pfn);
      pfn = this.#ram.nextSet(stop);
    }
  }

  #discardEntered(): void {
    const pages = this.#entered.pageCount;
    const ranges = this.#entered.take();
    if (ranges === null) return;
    if (this.#hooks.discardInhibited?.()) {
      this.metrics.inhibited_discards += pages;
      return;
    }
    this.metrics.discarded_pages += pages;
    this.#hooks.post({ name: 'discard', ranges: u32Bytes(ranges) });
  }

  #configValues(): BalloonConfig {
    return {
      num_pages: this.#targetPages,
      actual: this.#actualPages,
      free_page_hint_cmd_id: this.#hinting.configValue,
      poison_val: this.#poisonVal,
    };
  }

  #writeConfig(offset: number, data: Uint8Array): boolean {
    const write = decodeConfigWrite(offset, data, this.virtio.negotiatedFeatures);
    if (write === null) return false;
    if (write.field === 'poison_val') {
      this.#poisonVal = write.value;
      return true;
    }
    if (write.value === this.#actualPages) return true;
    this.#actualPages = write.value;
    this.#hooks.onActual?.(write.value);
    return true;
  }

  /** As QEMU: hinting stops, the target and the ids stay. The driver's pages are its own again. */
  #reset(): void {
    this.#hinting.reset();
    this.#inflated.bits.clearAll();
    this.#entered.take();
    this.#poisonVal = 0;
    this.#nameQueues(this.#offered);
  }

  #nameQueues(negotiated: FeatureSet): void {
    const indices = queueIndices(this.#options.numbering, this.#offered, negotiated);
    this.#queueNames = [];
    for (const { name } of BALLOON_QUEUES) {
      const index = indices[name];
      if (index !== null) this.#queueNames[index] = name;
    }
  }
}

/** HINT_WAIT_ON_ACK says how hints are acknowledged: nothing without them. */
function offeredFeatures(options: DeviceFeatures): FeatureSet {
  const names = DEVICE_FEATURE_NAMES.filter(
    (name) => options[name] && (name !== 'hintWaitOnAck' || options.freePageHint),
  );
  return featureMask(Feature.VERSION_1, ...names.map((name) => DEVICE_FEATURES[name]));
}

function allOf(pageCount: number): Bitmap {
  const all = new Bitmap(pageCount);
  all.setAll();
  return all;
}
