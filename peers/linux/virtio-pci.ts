/**
 * A modern virtio-pci function (virtio 1.4 §4.1) whose device is at the other end of the channel.
 * The registers are an I/O BAR. What only the device can answer is asked of it while the processor
 * waits in the middle of its instruction, as a vCPU does between a KVM_EXIT_IO and the next KVM_RUN;
 * so nothing of the device's state is kept here. Its hand on the rings is here, as vhost's would be.
 */
import { createDeviceRing } from '../../guest/virtio/device-ring.ts';
import { DeviceRings } from '../../guest/virtio/device-rings.ts';
import type { DeviceRing, GuestBytes } from '../../guest/virtio/queue.ts';
import type { RingState } from '../../guest/virtio/ring-state.ts';
import {
  CONFIG_VECTOR,
  DeviceId,
  Feature,
  featuresOf,
  hasFeature,
  isPackedQueueSize,
  isQueueSize,
  type Message,
} from '../../protocol/index.ts';
import type { Nanoseconds } from '../../shared/index.ts';
import { pciFunction, REGION } from './pci-space.ts';

/** Slot 11 of the bus: v86's own devices leave it free. */
const PCI_ID = 0x0b << 3;
/** Where the BAR lies until the BIOS moves it. */
const INITIAL_PORT = 0xd800;

/** struct virtio_pci_common_cfg, byte offsets. */
const Common = {
  DEVICE_FEATURE_SELECT: 0x00,
  DEVICE_FEATURE: 0x04,
  DRIVER_FEATURE_SELECT: 0x08,
  DRIVER_FEATURE: 0x0c,
  MSIX_CONFIG: 0x10,
  NUM_QUEUES: 0x12,
  DEVICE_STATUS: 0x14,
  CONFIG_GENERATION: 0x15,
  QUEUE_SELECT: 0x16,
  QUEUE_SIZE: 0x18,
  QUEUE_MSIX_VECTOR: 0x1a,
  QUEUE_ENABLE: 0x1c,
  QUEUE_NOTIFY_OFF: 0x1e,
  QUEUE_DESC: 0x20,
  QUEUE_DRIVER: 0x28,
  QUEUE_DEVICE: 0x30,
  QUEUE_NOTIFY_DATA: 0x38,
  QUEUE_RESET: 0x3a,
} as const;
/** MSI-X is not offered. */
const NO_VECTOR = 0xffff;
/** Bits of the ISR. */
const ISR_QUEUE = 1;
const ISR_CONFIG = 2;
/** No device here has more queues. */
const QUEUES_MAX = 16;

type ReplyName = 'deviceInfo' | 'deviceFeatures' | 'status' | 'config' | 'queue';

/** What is around the function. */
export interface VirtioPciHost {
  readonly memory: GuestBytes;
  /** The processor waits for the device's answer. */
  access<N extends ReplyName>(message: Message, expected: N): Message<N>;
  post(message: Message): void;
  /** A queue was notified: the time for the chains in it. */
  notified(queue: number): Nanoseconds;
  setIrq(pciId: number, raised: boolean): void;
}

interface Queue {
  /** 0: as the device says. */
  size: number;
  /** Halves of the three addresses, in the order of the registers. */
  readonly address: Uint32Array;
  ring: DeviceRing | null;
}

/** What is kept of the registers; the rings' own state goes beside it. */
export interface VirtioPciState {
  readonly deviceFeatureSelect: number;
  readonly driverFeatureSelect: number;
  readonly driverFeatures: readonly [number, number];
  readonly queueSelect: number;
  readonly isr: number;
  readonly queues: readonly {
    readonly size: number;
    readonly address: readonly number[];
    readonly ring: RingState | null;
  }[];
}

export class VirtioPci {
  readonly pci = pciFunction(PCI_ID, DeviceId.BALLOON, INITIAL_PORT);
  readonly initialPort = INITIAL_PORT;
  readonly counters = {
    /** Host messages that named no queue, no outstanding chain, or disagreed with themselves. */
    protocol_violations: 0,
    avail_chains: 0,
    used_chains: 0,
    broken_queues: 0,
    notifications: 0,
    irqs: 0,
    suppressed_irqs: 0,
    register_exits: 0,
  };
  readonly #host: VirtioPciHost;
  #deviceFeatureSelect = 0;
  #driverFeatureSelect = 0;
  #driverFeatures: [number, number] = [0, 0];
  #queueSelect = 0;
  #isr = 0;
  readonly #queues: Queue[] = Array.from({ length: QUEUES_MAX }, newQueue);
  readonly #rings: DeviceRings;

  constructor(host: VirtioPciHost) {
    this.#host = host;
    this.#rings = new DeviceRings({
      counters: this.counters,
      rings: () => this.#queues.map(({ ring }) => ring),
      post: (message) => host.post(message),
    });
  }

  /** A port of the BAR is read; returns an unsigned value. */
  read(offset: number, sizeBytes: number): number {
    const { COMMON, ISR, DEVICE } = REGION;
    if (offset >= DEVICE.offset && offset < DEVICE.offset + DEVICE.lengthBytes) {
      return this.#readConfig(offset - DEVICE.offset, sizeBytes);
    }
    if (offset === ISR.offset) return this.#takeIsr();
    if (offset < COMMON.lengthBytes) return this.#readCommon(offset);
    return ones(sizeBytes);
  }

  write(offset: number, sizeBytes: number, value: number): void {
    const { COMMON, DEVICE, NOTIFY } = REGION;
    if (offset >= NOTIFY.offset) this.#notified((offset - NOTIFY.offset) / NOTIFY.multiplier);
    else if (offset >= DEVICE.offset && offset < DEVICE.offset + DEVICE.lengthBytes) {
      const data = new Uint8Array(sizeBytes);
      for (let i = 0; i < sizeBytes; i++) data[i] = value >>> (8 * i);
      this.#host.post({ name: 'setConfig', offset: offset - DEVICE.offset, data });
    } else if (offset < COMMON.lengthBytes) this.#writeCommon(offset, value);
  }

  /** The chains notified since the last call. */
  drainAvail(): Message<'avail'>[] {
    return this.#rings.drain();
  }

  /** What the host posts to the transport. */
  receive(message: Message<'used' | 'irq' | 'configChanged'>): void {
    if (message.name === 'used') this.#rings.use(message);
    else if (message.name === 'configChanged' || message.vector === CONFIG_VECTOR) {
      this.#raise(ISR_CONFIG);
    } else if (this.#rings.wantsInterrupt(message.vector)) this.#raise(ISR_QUEUE);
  }

  /** Between two slices, with the rings drained. */
  saveState(): VirtioPciState {
    return {
      deviceFeatureSelect: this.#deviceFeatureSelect,
      driverFeatureSelect: this.#driverFeatureSelect,
      driverFeatures: this.#driverFeatures,
      queueSelect: this.#queueSelect,
      isr: this.#isr,
      queues: this.#queues.map(({ size, address, ring }) => {
        return { size, address: [...address], ring: ring?.saveState() ?? null };
      }),
    };
  }

  /** False: no function was ever in this state. The interrupt line is the machine's own state. */
  restoreState(state: VirtioPciState): boolean {
    this.#deviceFeatureSelect = state.deviceFeatureSelect;
    this.#driverFeatureSelect = state.driverFeatureSelect;
    this.#driverFeatures = [...state.driverFeatures];
    this.#queueSelect = state.queueSelect;
    this.#isr = state.isr;
    for (const [index, { size, address, ring }] of state.queues.entries()) {
      const queue: Queue = { size, address: Uint32Array.from(address), ring: null };
      this.#queues[index] = queue;
      if (ring === null) continue;
      queue.ring = this.#createRing(index);
      if (queue.ring?.restoreState(ring) !== true) return false;
    }
    return true;
  }

  #readCommon(offset: number): number {
    const queue = this.#queue;
    switch (offset) {
      case Common.DEVICE_FEATURE_SELECT:
        return this.#deviceFeatureSelect;
      case Common.DEVICE_FEATURE:
        return this.#deviceFeature();
      case Common.DRIVER_FEATURE_SELECT:
        return this.#driverFeatureSelect;
      case Common.DRIVER_FEATURE:
        return this.#driverFeatures[this.#driverFeatureSelect] ?? 0;
      case Common.MSIX_CONFIG:
      case Common.QUEUE_MSIX_VECTOR:
        return NO_VECTOR;
      case Common.NUM_QUEUES:
        return this.#access({ name: 'getDeviceInfo' }, 'deviceInfo').queue_count;
      case Common.DEVICE_STATUS:
        return this.#access({ name: 'getStatus' }, 'status').status;
      case Common.CONFIG_GENERATION:
        return this.#generation();
      case Common.QUEUE_SELECT:
        return this.#queueSelect;
      case Common.QUEUE_SIZE:
        return queue && queue.size > 0 ? queue.size : this.#queueReply().max_size;
      case Common.QUEUE_ENABLE:
        return Number(this.#queueReply().enabled);
      case Common.QUEUE_NOTIFY_OFF:
        return this.#queueSelect;
      case Common.QUEUE_RESET:
        // 1 while the reset is not over.
        return Number(queue?.ring === null && this.#queueReply().enabled);
      case Common.QUEUE_NOTIFY_DATA:
        return 0;
      default:
        return queue?.address[(offset - Common.QUEUE_DESC) >> 2] ?? 0;
    }
  }

  #writeCommon(offset: number, value: number): void {
    const queue = this.#queue;
    switch (offset) {
      case Common.DEVICE_FEATURE_SELECT:
        this.#deviceFeatureSelect = value;
        return;
      case Common.DRIVER_FEATURE_SELECT:
        this.#driverFeatureSelect = value;
        return;
      case Common.DRIVER_FEATURE:
        this.#setDriverFeature(value);
        return;
      case Common.DEVICE_STATUS:
        if (value === 0) this.#reset();
        this.#host.post({ name: 'setStatus', status: value & 0xff });
        return;
      case Common.QUEUE_SELECT:
        this.#queueSelect = value;
        return;
      case Common.QUEUE_SIZE:
        if (queue) queue.size = value;
        return;
      case Common.QUEUE_ENABLE:
        if (value === 1) this.#enableQueue();
        return;
      case Common.QUEUE_RESET:
        if (value === 1) this.#resetQueue();
        return;
      default:
        if (queue && offset >= Common.QUEUE_DESC && offset < Common.QUEUE_NOTIFY_DATA) {
          queue.address[(offset - Common.QUEUE_DESC) >> 2] = value;
        }
    }
  }

  get #queue(): Queue | undefined {
    return this.#queues[this.#queueSelect];
  }

  #queueReply(): Message<'queue'> {
    return this.#access({ name: 'getQueue', index: this.#queueSelect & 0xffff }, 'queue');
  }

  #deviceFeature(): number {
    if (this.#deviceFeatureSelect > 1) return 0;
    const { low, high } = this.#access({ name: 'getDeviceFeatures' }, 'deviceFeatures');
    return this.#deviceFeatureSelect === 0 ? low : high;
  }

  #setDriverFeature(value: number): void {
    if (this.#driverFeatureSelect > 1) return;
    this.#driverFeatures[this.#driverFeatureSelect] = value;
    const [low, high] = this.#driverFeatures;
    this.#host.post({ name: 'setDriverFeatures', low, high });
  }

  /** One byte of the device's counter: the driver reads it around what it reads. */
  #generation(): number {
    const message = { name: 'getConfig', offset: 0, length: 4 } as const;
    return this.#access(message, 'config').generation & 0xff;
  }

  #readConfig(offset: number, sizeBytes: number): number {
    const { data } = this.#access({ name: 'getConfig', offset, length: sizeBytes }, 'config');
    if (data.length !== sizeBytes) return ones(sizeBytes);
    let value = 0;
    for (let i = 0; i < sizeBytes; i++) value += data[i]! * 2 ** (8 * i);
    return value;
  }

  #enableQueue(): void {
    const queue = this.#queue;
    if (!queue) return;
    const index = this.#queueSelect;
    if (queue.size === 0) queue.size = this.#queueReply().max_size;
    queue.ring = this.#createRing(index);
    const { descGpa, driverGpa, deviceGpa } = areasOf(queue);
    this.#host.post({
      name: 'setQueue',
      index,
      size: queue.size,
      desc_gpa: descGpa,
      avail_gpa: driverGpa,
      used_gpa: deviceGpa,
    });
  }

  /** Null: no queue has this size, and the device will not take it either. */
  #createRing(index: number): DeviceRing | null {
    const queue = this.#queues[index]!;
    const [low, high] = this.#driverFeatures;
    const features = featuresOf({ low, high });
    const isSize = hasFeature(features, Feature.RING_PACKED) ? isPackedQueueSize : isQueueSize;
    if (!isSize(queue.size)) return null;
    const setup = { index, size: queue.size, areas: areasOf(queue) };
    return createDeviceRing(setup, features, this.#host.memory);
  }

  #resetQueue(): void {
    if (!this.#queue) return;
    this.#queues[this.#queueSelect] = newQueue();
    this.#host.post({ name: 'resetQueue', index: this.#queueSelect });
  }

  #notified(index: number): void {
    const ring = this.#queues[index]?.ring;
    if (!ring || ring.broken !== null) return;
    this.counters.notifications++;
    this.#rings.take(index, ring, this.#host.notified(index));
  }

  #raise(bits: number): void {
    this.counters.irqs++;
    this.#isr |= bits;
    this.#host.setIrq(PCI_ID, true);
  }

  /** Reading the ISR acknowledges the interrupt. */
  #takeIsr(): number {
    const isr = this.#isr;
    this.#isr = 0;
    this.#host.setIrq(PCI_ID, false);
    return isr;
  }

  #reset(): void {
    this.#takeIsr();
    this.#driverFeatures = [0, 0];
    for (let i = 0; i < QUEUES_MAX; i++) this.#queues[i] = newQueue();
  }

  #access<N extends ReplyName>(message: Message, expected: N): Message<N> {
    this.counters.register_exits++;
    return this.#host.access(message, expected);
  }
}

function newQueue(): Queue {
  return { size: 0, address: new Uint32Array(6), ring: null };
}

function areasOf({ address }: Queue): { descGpa: number; driverGpa: number; deviceGpa: number } {
  const gpa = (i: number) => address[2 * i]! + address[2 * i + 1]! * 2 ** 32;
  return { descGpa: gpa(0), driverGpa: gpa(1), deviceGpa: gpa(2) };
}

function ones(sizeBytes: number): number {
  return 2 ** (8 * sizeBytes) - 1;
}
