/**
 * The driver's hand on its device, from reset to DRIVER_OK and back: status, features, queues and
 * configuration space (virtio 1.4 §3.1, §5.5.4, §5.5.5).
 */
import {
  BalloonConfig,
  type BalloonQueueName,
  bit,
  DeviceId,
  DeviceStatus,
  Feature,
  type FeatureSet,
  hasFeature,
  type QueueNumbering,
  queueIndices,
} from '../../protocol/index.ts';
import type { Kernel } from '../kernel/kernel.ts';
import type { Kthread } from '../sched/kthread.ts';
import type { VirtioTransport } from '../virtio/transport.ts';
import { BalloonQueues, missingQueue } from './queues.ts';

export interface BindingOptions {
  readonly kernel: Kernel;
  readonly transport: VirtioTransport;
  readonly numbering: QueueNumbering;
  /** PFNs of the largest request. */
  readonly pfnsMax: number;
  readonly counters: { balloon_bad_config_reads: number };
  /** The features that the driver wants of those offered. */
  readonly choose: (offered: FeatureSet) => FeatureSet;
  /** Interrupt of a queue. */
  readonly callback: (name: BalloonQueueName) => void;
}

const DRIVER_OK = bit(DeviceStatus.DRIVER_OK);
const SUSPEND = bit(DeviceStatus.SUSPEND);
/** A device that takes longer than so many looks at its status does not do it. */
const STATUS_READS_MAX = 16;

export class BalloonBinding {
  /** What was negotiated. */
  features: FeatureSet = 0n;
  /** null: the driver has no device. */
  queues: BalloonQueues | null = null;
  readonly #options: BindingOptions;
  #status = 0;
  /** Of a suspended device: nobody uses them. */
  #suspendedQueues: BalloonQueues | null = null;

  constructor(options: BindingOptions) {
    this.#options = options;
  }

  /** Up to the queues, which the device does not look at before `ready`. Returns why it failed, or null. */
  *open(): Kthread<string | null> {
    const failure = yield* this.#open();
    if (failure !== null) this.#forget();
    return failure;
  }

  *ready(): Kthread {
    yield* this.#addStatus(DeviceStatus.DRIVER_OK);
  }

  /** The driver has given up on the device; the device still knows the queues' memory. */
  *fail(): Kthread {
    const { transport } = this.#options;
    this.#status = yield* transport.getStatus();
    yield* this.#addStatus(DeviceStatus.FAILED);
    this.#forget();
  }

  /** The device forgets the driver, then the driver its queues. */
  *close(): Kthread {
    this.#options.transport.onConfigChanged = null;
    yield* this.#options.transport.reset();
    this.#forget();
  }

  get canSuspend(): boolean {
    return hasFeature(this.features, Feature.SUSPEND);
  }

  get isSuspended(): boolean {
    return this.#suspendedQueues !== null;
  }

  /** False: the device did not do it. */
  *suspend(): Kthread<boolean> {
    yield* this.#options.transport.setStatus(this.#status | SUSPEND);
    if (!(yield* this.#reaches(SUSPEND))) return false;
    this.#suspendedQueues = this.queues;
    this.queues = null;
    return true;
  }

  /** DRIVER_OK ends a suspend. False: the device did not take it. */
  *resume(): Kthread<boolean> {
    yield* this.#options.transport.setStatus(this.#status);
    this.queues = this.#suspendedQueues;
    this.#suspendedQueues = null;
    return yield* this.#reaches(DRIVER_OK);
  }

  /** Reads the status until of DRIVER_OK and SUSPEND this one is set. */
  *#reaches(wanted: number): Kthread<boolean> {
    for (let i = 0; i < STATUS_READS_MAX; i++) {
      const status = yield* this.#options.transport.getStatus();
      if ((status & (DRIVER_OK | SUSPEND)) === wanted) return true;
    }
    return false;
  }

  /** Whether the device cannot go on without a reset. */
  *needsReset(): Kthread<boolean> {
    const status = yield* this.#options.transport.getStatus();
    return (status & bit(DeviceStatus.DEVICE_NEEDS_RESET)) !== 0;
  }

  *readConfig(field: keyof BalloonConfig): Kthread<number> {
    const { transport, counters } = this.#options;
    const data = yield* transport.readConfig(BalloonConfig.offsets[field], 4);
    if (data.length === 4) {
      return new DataView(data.buffer, data.byteOffset, 4).getUint32(0, true);
    }
    // A device that promised the field and does not have it: 0 is "no target" and STOP.
    counters.balloon_bad_config_reads++;
    return 0;
  }

  *writeConfig(field: keyof BalloonConfig, value: number): Kthread {
    const data = new Uint8Array(4);
    new DataView(data.buffer).setUint32(0, value, true);
    yield* this.#options.transport.writeConfig(BalloonConfig.offsets[field], data);
  }

  /** The initialisation sequence of virtio 1.4 §3.1.1, steps 1 to 7 without the device's own. */
  *#open(): Kthread<string | null> {
    const { transport } = this.#options;
    const info = yield* transport.getDeviceInfo();
    if (info.deviceId !== DeviceId.BALLOON) return `device ${info.deviceId} is no balloon`;
    yield* transport.reset();
    this.#status = 0;
    yield* this.#addStatus(DeviceStatus.ACKNOWLEDGE);
    yield* this.#addStatus(DeviceStatus.DRIVER);
    const offered = yield* transport.getDeviceFeatures();
    if (!hasFeature(offered, Feature.VERSION_1)) return 'the device does not offer VERSION_1';
    this.features = this.#options.choose(offered);
    yield* transport.setDriverFeatures(this.features);
    yield* this.#addStatus(DeviceStatus.FEATURES_OK);
    const read = yield* transport.getStatus();
    if ((read & bit(DeviceStatus.FEATURES_OK)) === 0) return 'the device refused the features';
    return yield* this.#findQueues(offered);
  }

  /** init_vqs, without the first buffers. */
  *#findQueues(offered: FeatureSet): Kthread<string | null> {
    const { kernel, transport, numbering, pfnsMax, callback } = this.#options;
    const { features } = this;
    const indices = queueIndices(numbering, offered, features);
    const queues = new BalloonQueues(kernel, transport, pfnsMax);
    this.queues = queues;
    const find = (name: BalloonQueueName) =>
      queues.find(name, indices, features, () => callback(name));
    const inflateq = yield* find('inflateq');
    const deflateq = yield* find('deflateq');
    if (!inflateq || !deflateq) return 'the device has no inflateq or deflateq';
    queues.inflateq = inflateq;
    queues.deflateq = deflateq;
    if (!queues.allocateBuffers()) return 'out of memory';
    queues.statsq = yield* find('statsq');
    queues.freePageVq = yield* find('free_page_vq');
    queues.reportingVq = yield* find('reporting_vq');
    return missingQueue(queues, features);
  }

  *#addStatus(number: DeviceStatus): Kthread {
    this.#status |= bit(number);
    yield* this.#options.transport.setStatus(this.#status);
  }

  #forget(): void {
    (this.queues ?? this.#suspendedQueues)?.free();
    this.queues = null;
    this.#suspendedQueues = null;
  }
}
