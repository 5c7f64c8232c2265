/**
 * What every virtio device does before it is any particular one: status and feature negotiation
 * (virtio 1.4 §2.1, §2.2, §3.1), configuration access, queue set-up and reset, suspension,
 * DEVICE_NEEDS_RESET and reset. A step out of order is ignored and counted, never answered by an
 * exception.
 */
import {
  bit,
  DeviceStatus,
  Feature,
  type FeatureSet,
  featuresOf,
  featureWords,
  hasFeature,
  isPackedQueueSize,
  isQueueSize,
  type Message,
  PackedRingAlignment,
  RingAlignment,
} from '../../protocol/index.ts';
import { bytesText, type State, type StateFields } from '../state/fields.ts';
import { DeviceQueue } from './queue.ts';

/** What a device type adds. */
export interface DeviceModel {
  readonly deviceId: number;
  readonly offeredFeatures: FeatureSet;
  /** Largest size by queue index, as it is now; 0: there is no such queue. */
  readonly maxQueueSizes: readonly number[];
  /** The configuration space as the driver reads it now. */
  readConfig(): Uint8Array;
  /** False: the driver may not write there. */
  writeConfig(offset: number, data: Uint8Array): boolean;
  /** Whether each accepted feature has the features that it needs. */
  featuresAgree?(features: FeatureSet): boolean;
  /** The features are final. */
  onFeaturesOk?(): void;
  /** The driver reset the device. */
  onReset(): void;
  /** The driver took a queue away from the device. */
  onQueueReset?(index: number): void;
  /** Queues are served from now on: the driver is ready, or resumes a suspended device. */
  onDriverOk(): void;
  /** The device is about to be suspended: what it has used is to be told now. */
  onSuspend?(): void;
}

/** Ways of real devices, all off by default. */
export interface VirtioQuirks {
  /** FEATURES_OK is granted whatever the driver wrote; what was not offered is ignored. */
  readonly unofferedFeaturesAccepted?: boolean;
  /** A configuration field that does not exist reads as all ones. */
  readonly absentConfigReadsOnes?: boolean;
}

const ACKNOWLEDGE = bit(DeviceStatus.ACKNOWLEDGE);
const DRIVER = bit(DeviceStatus.DRIVER);
const DRIVER_OK = bit(DeviceStatus.DRIVER_OK);
const FEATURES_OK = bit(DeviceStatus.FEATURES_OK);
const SUSPEND = bit(DeviceStatus.SUSPEND);
const NEEDS_RESET = bit(DeviceStatus.DEVICE_NEEDS_RESET);
const FAILED = bit(DeviceStatus.FAILED);

/** Each bit that a driver may set, and the bits that must be set before it or with it. */
const PREREQUISITES: readonly (readonly [status: number, needs: number])[] = [
  [ACKNOWLEDGE, 0],
  [DRIVER, ACKNOWLEDGE],
  [FEATURES_OK, ACKNOWLEDGE | DRIVER],
  [DRIVER_OK, ACKNOWLEDGE | DRIVER | FEATURES_OK],
  [SUSPEND, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK],
  [FAILED, 0],
];
const DRIVER_BITS = PREREQUISITES.reduce((mask, [status]) => mask | status, 0);
/** The areas of a packed queue by the names that those of a split one have. */
const PACKED_ALIGNMENT = {
  DESC: PackedRingAlignment.DESC,
  AVAIL: PackedRingAlignment.DRIVER,
  USED: PackedRingAlignment.DEVICE,
};
/** More queues than any balloon has, and a longer configuration space. */
const QUEUES_MAX = 16;
const CONFIG_TEXT_MAX = 4096;
/** The widest access to an absent field that still reads as ones. */
const ABSENT_FIELD_BYTES_MAX = 8;

export class VirtioDevice {
  readonly #model: DeviceModel;
  readonly #onConfigChanged: (generation: number) => void;
  readonly #quirks: VirtioQuirks;
  readonly #queues: (DeviceQueue | undefined)[] = [];
  #status = 0;
  #driverFeatures: FeatureSet = 0n;
  #configGeneration = 0;
  /** What the driver reads while the device is suspended. */
  #suspendedConfig: Uint8Array | null = null;
  #changedWhileSuspended = false;
  /** Messages and steps that the driver may not send, or not now. */
  violationCount = 0;

  constructor(
    model: DeviceModel,
    onConfigChanged: (generation: number) => void,
    quirks: VirtioQuirks = {},
  ) {
    this.#model = model;
    this.#onConfigChanged = onConfigChanged;
    this.#quirks = quirks;
  }

  get status(): number {
    return this.#status;
  }

  get configGeneration(): number {
    return this.#configGeneration;
  }

  /** Accepted by both sides; empty until FEATURES_OK. */
  get negotiatedFeatures(): FeatureSet {
    if ((this.#status & FEATURES_OK) === 0) return 0n;
    return this.#driverFeatures & this.#model.offeredFeatures;
  }

  negotiated(feature: number): boolean {
    return hasFeature(this.negotiatedFeatures, feature);
  }

  /** The driver is ready and the device neither broken nor suspended: queues are served. */
  get isLive(): boolean {
    return (this.#status & (DRIVER_OK | NEEDS_RESET)) === DRIVER_OK;
  }

  get isSuspended(): boolean {
    return (this.#status & SUSPEND) !== 0;
  }

  get needsReset(): boolean {
    return (this.#status & NEEDS_RESET) !== 0;
  }

  /** Another object after each reset and set-up: what belongs to an earlier life shows by it. */
  queue(index: number): DeviceQueue | undefined {
    return this.#queues[index];
  }

  /** The driver's virtio messages, `avail` excepted. Returns the reply, or null for a posted one. */
  handle(message: Message): Message | null {
    switch (message.name) {
      case 'getDeviceInfo':
        return {
          name: 'deviceInfo',
          device_id: this.#model.deviceId,
          queue_count: this.#model.maxQueueSizes.length,
          config_size: this.#model.readConfig().length,
        };
      case 'getDeviceFeatures':
        return { name: 'deviceFeatures', ...featureWords(this.#model.offeredFeatures) };
      case 'getStatus':
        return { name: 'status', status: this.#status };
      case 'getConfig':
        return this.#getConfig(message.offset, message.length);
      case 'getQueue': {
        const max_size = this.#model.maxQueueSizes[message.index] ?? 0;
        const enabled = this.#queues[message.index] !== undefined;
        return { name: 'queue', index: message.index, max_size, enabled };
      }
      case 'setDriverFeatures':
        return this.#check(this.#setDriverFeatures(featuresOf(message)));
      case 'setStatus':
        return this.#check(this.#setStatus(message.status));
      case 'setConfig':
        return this.#check(this.#setConfig(message.offset, message.data));
      case 'setQueue':
        return this.#check(this.#setQueue(message));
      case 'resetQueue':
        return this.#check(this.#resetQueue(message.index));
      case 'queueBroken':
        return this.#check(this.#queueBroken(message.queue));
      default:
        return this.#check(false);
    }
  }

  /**
   * The device changed its configuration space: new generation, and a notification when ready. Of a
   * suspended device the driver learns both when it resumes.
   */
  configChanged(): void {
    if (this.isSuspended) {
      this.#changedWhileSuspended = true;
      return;
    }
    this.#configGeneration = (this.#configGeneration + 1) >>> 0;
    if ((this.#status & DRIVER_OK) !== 0) this.#onConfigChanged(this.#configGeneration);
  }

  /** virtio_error: the driver broke the protocol beyond what can be ignored (§2.1.2). */
  setNeedsReset(): void {
    if (this.needsReset) return;
    this.#status |= NEEDS_RESET;
    this.configChanged();
  }

  /** The hand on the ring found nonsense there, whatever it was; counted as the driver's fault. */
  #queueBroken(index: number): boolean {
    if (this.isLive && this.#queues[index]) this.setNeedsReset();
    return false;
  }

  reset(): void {
    this.#status = 0;
    this.#driverFeatures = 0n;
    this.#queues.length = 0;
    this.#suspendedConfig = null;
    this.#changedWhileSuspended = false;
    this.#model.onReset();
  }

  saveState(): State {
    const { low, high } = featureWords(this.#driverFeatures);
    return {
      status: this.#status,
      features_low: low,
      features_high: high,
      config_generation: this.#configGeneration,
      suspended_config: this.#suspendedConfig && bytesText(this.#suspendedConfig),
      changed_while_suspended: this.#changedWhileSuspended,
      violations: this.violationCount,
      // Sparse: a queue that is not set up is null.
      queues: Array.from(this.#queues, (queue) => queue?.saveState() ?? null),
    };
  }

  /** For a new device. @throws BallastError MESSAGE_INVALID. */
  loadState(fields: StateFields): void {
    this.#status = fields.int('status', 0xff);
    this.#driverFeatures = featuresOf({
      low: fields.int('features_low', 0xffff_ffff),
      high: fields.int('features_high', 0xffff_ffff),
    });
    this.#configGeneration = fields.int('config_generation', 0xffff_ffff);
    const config = fields.textOrNull('suspended_config', CONFIG_TEXT_MAX);
    this.#suspendedConfig = config === null ? null : new Uint8Array(Buffer.from(config, 'base64'));
    this.#changedWhileSuspended = fields.bool('changed_while_suspended');
    this.violationCount = fields.int('violations', Number.MAX_SAFE_INTEGER);
    this.#queues.length = 0;
    fields.list('queues', QUEUES_MAX).forEach((queue, index) => {
      this.#queues[index] = queue ? DeviceQueue.of(index, queue) : undefined;
    });
  }

  #check(allowed: boolean): null {
    if (!allowed) this.violationCount++;
    return null;
  }

  #getConfig(offset: number, length: number): Message<'config'> {
    const space = this.#suspendedConfig ?? this.#model.readConfig();
    const inside = length > 0 && offset + length <= space.length;
    if (!inside) this.violationCount++;
    return {
      name: 'config',
      generation: this.#configGeneration,
      data: inside ? space.slice(offset, offset + length) : this.#absentConfig(length),
    };
  }

  #absentConfig(length: number): Uint8Array {
    const reads = this.#quirks.absentConfigReadsOnes && length <= ABSENT_FIELD_BYTES_MAX;
    return new Uint8Array(reads ? length : 0).fill(0xff);
  }

  #setDriverFeatures(features: FeatureSet): boolean {
    // Features are chosen once, between DRIVER and FEATURES_OK.
    if ((this.#status & (DRIVER | FEATURES_OK)) !== DRIVER) return false;
    this.#driverFeatures = features;
    return true;
  }

  #setStatus(status: number): boolean {
    if (status === 0) {
      this.reset();
      return true;
    }
    const asked = status & ~NEEDS_RESET;
    const held = this.#status & ~NEEDS_RESET;
    if ((held & SUSPEND) !== 0) return this.#setSuspendedStatus(asked, held);
    // §2.1.1: the driver MUST NOT clear a bit, and only sets those it owns.
    if ((asked & held) !== held || (asked & ~DRIVER_BITS) !== 0) return false;
    for (const [one, needs] of PREREQUISITES) {
      if ((asked & one) !== 0 && (asked & needs) !== needs) return false;
    }
    // FEATURES_OK is granted on its own, so that the driver can read back the answer.
    if ((asked & DRIVER_OK) !== 0 && (held & FEATURES_OK) === 0) return false;
    if ((asked & SUSPEND) !== 0) return this.#suspend(asked);
    const added = asked & ~held;
    if ((added & FEATURES_OK) !== 0 && !this.#featuresAreFine()) {
      this.#status |= asked & ~FEATURES_OK;
      return true;
    }
    this.#status |= asked;
    if ((added & FEATURES_OK) !== 0) this.#model.onFeaturesOk?.();
    if ((added & DRIVER_OK) !== 0) this.#model.onDriverOk();
    return true;
  }

  /** §3.4: only a device that runs is suspended. Then SUSPEND is set and DRIVER_OK is not. */
  #suspend(asked: number): boolean {
    if (!this.isLive || !this.negotiated(Feature.SUSPEND)) return false;
    this.#model.onSuspend?.();
    this.#suspendedConfig = this.#model.readConfig();
    this.#status = asked & ~DRIVER_OK;
    return true;
  }

  /** §3.4: DRIVER_OK resumes. The driver writes it over what it read, so with SUSPEND or without. */
  #setSuspendedStatus(asked: number, held: number): boolean {
    const kept = held & ~SUSPEND;
    if ((asked & kept) !== kept || (asked & ~DRIVER_BITS) !== 0) return false;
    this.#status |= asked & FAILED;
    if ((asked & DRIVER_OK) === 0) return (asked & SUSPEND) !== 0;
    this.#status = (this.#status & ~SUSPEND) | DRIVER_OK;
    this.#suspendedConfig = null;
    if (this.#changedWhileSuspended) {
      this.#changedWhileSuspended = false;
      this.configChanged();
    }
    if (this.isLive) this.#model.onDriverOk();
    return true;
  }

  #featuresAreFine(): boolean {
    if (this.#quirks.unofferedFeaturesAccepted) return true;
    const features = this.#driverFeatures;
    if ((features & ~this.#model.offeredFeatures) !== 0n) return false;
    if (!hasFeature(features, Feature.VERSION_1)) return false;
    return this.#model.featuresAgree?.(features) ?? true;
  }

  #setConfig(offset: number, data: Uint8Array): boolean {
    if ((this.#status & DRIVER) === 0 || this.isSuspended) return false;
    return this.#model.writeConfig(offset, data);
  }

  #setQueue(message: Message<'setQueue'>): boolean {
    const { index, size } = message;
    if (!this.#mayConfigure(index)) return false;
    const isPacked = this.negotiated(Feature.RING_PACKED);
    if (!(isPacked ? isPackedQueueSize(size) : isQueueSize(size))) return false;
    if (size > (this.#model.maxQueueSizes[index] ?? 0)) return false;
    const alignment = isPacked ? PACKED_ALIGNMENT : RingAlignment;
    if (message.desc_gpa % alignment.DESC !== 0) return false;
    if (message.avail_gpa % alignment.AVAIL !== 0) return false;
    if (message.used_gpa % alignment.USED !== 0) return false;
    this.#queues[index] = new DeviceQueue(index, size, {
      descGpa: message.desc_gpa,
      availGpa: message.avail_gpa,
      usedGpa: message.used_gpa,
    });
    return true;
  }

  /** Before DRIVER_OK; of a running device only a queue that was reset (§2.6.1.2). */
  #mayConfigure(index: number): boolean {
    const status = this.#status & (FEATURES_OK | DRIVER_OK | SUSPEND);
    if (status === FEATURES_OK) return true;
    if (status !== (FEATURES_OK | DRIVER_OK) || !this.negotiated(Feature.RING_RESET)) return false;
    return this.#queues[index] === undefined;
  }

  /** §2.6.1: the device forgets the queue and every chain of it, at once. */
  #resetQueue(index: number): boolean {
    if (!this.negotiated(Feature.RING_RESET) || this.isSuspended) return false;
    if (this.#queues[index] === undefined) return false;
    this.#queues[index] = undefined;
    this.#model.onQueueReset?.(index);
    return true;
  }
}
