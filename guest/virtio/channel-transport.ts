/**
 * The transport over the channel. On a kick it walks the newly available descriptors in guest
 * memory, as vhost does for a remote device, and ships them as one `avail` message per queue; the
 * host's `used` messages are written back to the used ring. A ring that makes no sense breaks its
 * queue, as QEMU's virtio_error does: it is counted, and nothing of it is shipped any more.
 */
import {
  CONFIG_VECTOR,
  type FeatureSet,
  featuresOf,
  featureWords,
  type Message,
} from '../../protocol/index.ts';
import { assert, BallastError } from '../../shared/index.ts';
import type { Kernel } from '../kernel/kernel.ts';
import type { Kthread } from '../sched/kthread.ts';
import { createDeviceRing } from './device-ring.ts';
import { DeviceRings } from './device-rings.ts';
import type { DeviceRing, DriverQueue } from './queue.ts';
import type { DeviceInfo, VirtioTransport } from './transport.ts';

type ReplyName = 'deviceInfo' | 'deviceFeatures' | 'status' | 'config' | 'queue';

/** Polls of a reset of the device or of a queue before the driver gives up on it. */
const MAX_RESET_POLLS = 16;

export class ChannelTransport implements VirtioTransport {
  onConfigChanged: (() => void) | null = null;
  readonly counters = {
    /** Host messages that named no queue, no outstanding chain, or disagreed with themselves. */
    protocol_violations: 0,
    avail_chains: 0,
    used_chains: 0,
    broken_queues: 0,
    /** Kicks that the device had not asked for, and interrupts that the driver had not. */
    suppressed_kicks: 0,
    suppressed_irqs: 0,
  };
  readonly #kernel: Kernel;
  /**
   * What was read since the last configuration change. The device announces every change before the
   * guest runs on, so reading again could only cost an exit.
   */
  #configGeneration = 0;
  #config: { offset: number; data: Uint8Array }[] = [];
  readonly #queues: (DeviceRing | undefined)[] = [];
  readonly #callbacks: (() => void)[] = [];
  readonly #rings: DeviceRings;
  #driverFeatures: FeatureSet = 0n;

  constructor(kernel: Kernel) {
    this.#kernel = kernel;
    this.#rings = new DeviceRings({
      counters: this.counters,
      rings: () => this.#queues,
      post: (message) => kernel.post(message),
      onBroken: (queue, reason) => kernel.log.add(kernel.now, 'queue_broken', { queue, reason }),
    });
  }

  *getDeviceInfo(): Kthread<DeviceInfo> {
    const reply = yield* this.#access({ name: 'getDeviceInfo' }, 'deviceInfo');
    return {
      deviceId: reply.device_id,
      queueCount: reply.queue_count,
      configSizeBytes: reply.config_size,
    };
  }

  *getDeviceFeatures(): Kthread<FeatureSet> {
    return featuresOf(yield* this.#access({ name: 'getDeviceFeatures' }, 'deviceFeatures'));
  }

  setDriverFeatures(features: FeatureSet): Kthread {
    this.#driverFeatures = features;
    return this.#post({ name: 'setDriverFeatures', ...featureWords(features) });
  }

  *getStatus(): Kthread<number> {
    return (yield* this.#access({ name: 'getStatus' }, 'status')).status;
  }

  setStatus(status: number): Kthread {
    this.#config = [];
    if (status === 0) this.#queues.length = 0;
    return this.#post({ name: 'setStatus', status });
  }

  *reset(): Kthread {
    yield* this.setStatus(0);
    for (let i = 0; i < MAX_RESET_POLLS; i++) {
      if ((yield* this.getStatus()) === 0) return;
    }
    this.counters.protocol_violations++;
  }

  *readConfig(offset: number, lengthBytes: number): Kthread<Uint8Array> {
    const known = this.#config.find(
      (read) => read.offset === offset && read.data.length === lengthBytes,
    );
    if (known) return known.data;
    // The reply is one snapshot under one generation: there is nothing to repeat.
    const message = { name: 'getConfig', offset, length: lengthBytes } as const;
    const generation = this.#configGeneration;
    const { data } = yield* this.#access(message, 'config');
    // A change that came with the answer is newer than it.
    const current = generation === this.#configGeneration;
    if (current && data.length === lengthBytes) this.#config.push({ offset, data });
    if (data.length === lengthBytes || data.length === 0) return data;
    this.counters.protocol_violations++;
    return new Uint8Array(0);
  }

  writeConfig(offset: number, data: Uint8Array): Kthread {
    const end = offset + data.length;
    this.#config = this.#config.filter(
      (read) => read.offset >= end || read.offset + read.data.length <= offset,
    );
    return this.#post({ name: 'setConfig', offset, data });
  }

  *getQueueMaxSize(index: number): Kthread<number> {
    return (yield* this.#access({ name: 'getQueue', index }, 'queue')).max_size;
  }

  setQueue(queue: DriverQueue, callback: () => void): Kthread {
    const { index, size, areas } = queue;
    const ring = createDeviceRing({ index, size, areas }, this.#driverFeatures, this.#kernel.ram);
    this.#queues[index] = ring;
    this.#callbacks[index] = callback;
    return this.#post({
      name: 'setQueue',
      index,
      size,
      desc_gpa: areas.descGpa,
      avail_gpa: areas.driverGpa,
      used_gpa: areas.deviceGpa,
    });
  }

  *resetQueue(index: number): Kthread {
    this.#queues[index] = undefined;
    yield* this.#post({ name: 'resetQueue', index });
    for (let i = 0; i < MAX_RESET_POLLS; i++) {
      if (!(yield* this.#access({ name: 'getQueue', index }, 'queue')).enabled) return;
    }
    this.counters.protocol_violations++;
  }

  notify(queue: DriverQueue): Kthread {
    const ring = this.#queues[queue.index];
    assert(ring !== undefined, 'a kicked queue was given to the device');
    if (ring.broken !== null) return nothing();
    if (!queue.kickNeeded()) {
      this.counters.suppressed_kicks++;
      return nothing();
    }
    this.#rings.take(queue.index, ring, this.#kernel.now);
    this.#kernel.notify(queue.index);
    return nothing();
  }

  /** The chains notified since the last call, for the frame that goes out now. */
  drainAvail(): Message<'avail'>[] {
    return this.#rings.drain();
  }

  /** What the host posts to the transport. `configChanged` is itself the notification. */
  receive(message: Message<'used' | 'irq' | 'configChanged'>): void {
    switch (message.name) {
      case 'used':
        this.#rings.use(message);
        return;
      case 'irq': {
        if (message.vector === CONFIG_VECTOR) this.#configChanged();
        else if (this.#rings.wantsInterrupt(message.vector)) this.#callbacks[message.vector]!();
        return;
      }
      case 'configChanged':
        this.#configChanged();
        return;
    }
  }

  #configChanged(): void {
    this.#configGeneration++;
    this.#config = [];
    this.onConfigChanged?.();
  }

  #post(message: Message): Kthread {
    this.#kernel.post(message);
    return nothing();
  }

  *#access<N extends ReplyName>(message: Message, expected: N): Kthread<Message<N>> {
    const reply = yield { kind: 'access', message };
    if (reply?.name !== expected) {
      throw new BallastError(
        'MESSAGE_UNEXPECTED',
        `the host answered ${message.name} with ${reply?.name ?? 'nothing'}, expected ${expected}`,
      );
    }
    return reply as Message<N>;
  }
}

/** A posted operation takes effect at the call and no virtual time. */
function* nothing(): Kthread {}
