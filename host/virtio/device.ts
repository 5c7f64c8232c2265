/**
 * What every virtio device does before it is any particular one: status and feature negotiation
 * (virtio 1.4 §2.1, §2.2, §3.1), configuration access, queue set-up, DEVICE_NEEDS_RESET and reset.
 * A step out of order is ignored and counted, never answered by an exception.
 */
import {
  bit,
  DeviceStatus,
  Feature,
  type FeatureSet,
  featuresOf,
  featureWords,
  hasFeature,
  isQueueSize,
  type Message,
  RingAlignment,
} from '../../protocol/index.ts';
import { DeviceQueue } from './queue.ts';

/** What a device type adds. */
export interface DeviceModel {
  readonly deviceId: number;
  readonly offeredFeatures: FeatureSet;
  /** Largest size by queue index; 0: there is no such queue. */
  readonly maxQueueSizes: readonly number[];
  /** The configuration space as the driver reads it now. */
  readConfig(): Uint8Array;
  /** False: the driver may not write there. */
  writeConfig(offset: number, data: Uint8Array): boolean;
  /** The driver reset the device. */
  onReset(): void;
  /** The driver is ready: the features are final. */
  onDriverOk(): void;
}

const ACKNOWLEDGE = bit(DeviceStatus.ACKNOWLEDGE);
const DRIVER = bit(DeviceStatus.DRIVER);
const DRIVER_OK = bit(DeviceStatus.DRIVER_OK);
const FEATURES_OK = bit(DeviceStatus.FEATURES_OK);
const NEEDS_RESET = bit(DeviceStatus.DEVICE_NEEDS_RESET);
const FAILED = bit(DeviceStatus.FAILED);

/** Each bit that a driver may set, and the bits that must be set before it or with it. */
const PREREQUISITES: readonly (readonly [status: number, needs: number])[] = [
  [ACKNOWLEDGE, 0],
  [DRIVER, ACKNOWLEDGE],
  [FEATURES_OK, ACKNOWLEDGE | DRIVER],
  [DRIVER_OK, ACKNOWLEDGE | DRIVER | FEATURES_OK],
  [FAILED, 0],
];
const DRIVER_BITS = PREREQUISITES.reduce((mask, [status]) => mask | status, 0);

export class VirtioDevice {
  readonly #model: DeviceModel;
  readonly #onConfigChanged: (generation: number) => void;
  readonly #queues: (DeviceQueue | undefined)[] = [];
  #status = 0;
  #driverFeatures: FeatureSet = 0n;
  #configGeneration = 0;
  /** Messages and steps that the driver may not send, or not now. */
  violationCount = 0;

  constructor(model: DeviceModel, onConfigChanged: (generation: number) => void) {
    this.#model = model;
    this.#onConfigChanged = onConfigChanged;
  }

  get status(): number {
    return this.#status;
  }

  get configGeneration(): number {
    return this.#configGeneration;
  }

  /** Accepted by both sides; empty until FEATURES_OK. */
  get negotiatedFeatures(): FeatureSet {
    return (this.#status & FEATURES_OK) !== 0 ? this.#driverFeatures : 0n;
  }

  negotiated(feature: number): boolean {
    return hasFeature(this.negotiatedFeatures, feature);
  }

  /** The driver is ready and the device is not broken: queues are served. */
  get isLive(): boolean {
    return (this.#status & (DRIVER_OK | NEEDS_RESET)) === DRIVER_OK;
  }

  get needsReset(): boolean {
    return (this.#status & NEEDS_RESET) !== 0;
  }

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
        // Needs RING_RESET, which no device here offers.
        return this.#check(false);
      default:
        return this.#check(false);
    }
  }

  /** The device changed its configuration space: new generation, and a notification when ready. */
  configChanged(): void {
    this.#configGeneration = (this.#configGeneration + 1) >>> 0;
    if ((this.#status & DRIVER_OK) !== 0) this.#onConfigChanged(this.#configGeneration);
  }

  /** virtio_error: the driver broke the protocol beyond what can be ignored (§2.1.2). */
  setNeedsReset(): void {
    if (this.needsReset) return;
    this.#status |= NEEDS_RESET;
    this.configChanged();
  }

  reset(): void {
    this.#status = 0;
    this.#driverFeatures = 0n;
    this.#queues.length = 0;
    this.#model.onReset();
  }

  #check(allowed: boolean): null {
    if (!allowed) this.violationCount++;
    return null;
  }

  #getConfig(offset: number, length: number): Message<'config'> {
    const space = this.#model.readConfig();
    const inside = length > 0 && offset + length <= space.length;
    if (!inside) this.violationCount++;
    const data = inside ? space.slice(offset, offset + length) : new Uint8Array(0);
    return { name: 'config', generation: this.#configGeneration, data };
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
    // §2.1.1: the driver MUST NOT clear a bit, and only sets those it owns.
    if ((asked & held) !== held || (asked & ~DRIVER_BITS) !== 0) return false;
    for (const [one, needs] of PREREQUISITES) {
      if ((asked & one) !== 0 && (asked & needs) !== needs) return false;
    }
    // FEATURES_OK is granted on its own, so that the driver can read back the answer.
    if ((asked & DRIVER_OK) !== 0 && (held & FEATURES_OK) === 0) return false;
    const added = asked & ~held;
    if ((added & FEATURES_OK) !== 0 && !this.#featuresAreFine()) {
      this.#status |= asked & ~FEATURES_OK;
      return true;
    }
    this.#status |= asked;
    if ((added & DRIVER_OK) !== 0) this.#model.onDriverOk();
    return true;
  }

  #featuresAreFine(): boolean {
    const unknown = this.#driverFeatures & ~this.#model.offeredFeatures;
    return unknown === 0n && hasFeature(this.#driverFeatures, Feature.VERSION_1);
  }

  #setConfig(offset: number, data: Uint8Array): boolean {
    if ((this.#status & DRIVER) === 0) return false;
    return this.#model.writeConfig(offset, data);
  }

  #setQueue(message: Message<'setQueue'>): boolean {
    const { index, size } = message;
    if ((this.#status & (FEATURES_OK | DRIVER_OK)) !== FEATURES_OK) return false;
    if (!isQueueSize(size) || size > (this.#model.maxQueueSizes[index] ?? 0)) return false;
    if (message.desc_gpa % RingAlignment.DESC !== 0) return false;
    if (message.avail_gpa % RingAlignment.AVAIL !== 0) return false;
    if (message.used_gpa % RingAlignment.USED !== 0) return false;
    this.#queues[index] = new DeviceQueue(index, size, {
      descGpa: message.desc_gpa,
      availGpa: message.avail_gpa,
      usedGpa: message.used_gpa,
    });
    return true;
  }
}
