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
import { RingReader } from './ring-reader.ts';
import type { SplitQueue } from './split-queue.ts';
import type { DeviceInfo, VirtioTransport } from './transport.ts';

type ReplyName = 'deviceInfo' | 'deviceFeatures' | 'status' | 'config' | 'queue';

interface Attached {
  readonly reader: RingReader;
  readonly callback: () => void;
}

/** Device polls of a reset before the driver gives up on it. */
const MAX_RESET_POLLS = 16;

export class ChannelTransport implements VirtioTransport {
  onConfigChanged: (() => void) | null = null;
  readonly counters = {
    /** Host messages that named no queue, no outstanding chain, or disagreed with themselves. */
    protocol_violations: 0,
    avail_chains: 0,
    used_chains: 0,
    broken_queues: 0,
  };
  readonly #kernel: Kernel;
  /**
   * What was read since the last configuration change. The device announces every change before the
   * guest runs on, so reading again could only cost an exit.
   */
  #configGeneration = 0;
  #config: { offset: number; data: Uint8Array }[] = [];
  readonly #queues: (Attached | undefined)[] = [];

  constructor(kernel: Kernel) {
    this.#kernel = kernel;
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

  setQueue(queue: SplitQueue, callback: () => void): Kthread {
    const reader = new RingReader(queue, this.#kernel.ram);
    this.#queues[queue.index] = { reader, callback };
    return this.#post({
      name: 'setQueue',
      index: queue.index,
      size: queue.size,
      desc_gpa: queue.descGpa,
      avail_gpa: queue.availGpa,
      used_gpa: queue.usedGpa,
    });
  }

  notify(queue: SplitQueue): Kthread {
    const reader = this.#queues[queue.index]?.reader;
    assert(reader !== undefined, 'a kicked queue was given to the device');
    if (reader.broken !== null) return nothing();
    this.counters.avail_chains += reader.take(this.#kernel.now);
    if (reader.broken !== null) {
      this.counters.broken_queues++;
      this.#kernel.log.add(this.#kernel.now, 'queue_broken', {
        queue: queue.index,
        reason: reader.broken,
      });
    }
    this.#kernel.notify(queue.index);
    return nothing();
  }

  /** The chains notified since the last call, for the frame that goes out now. */
  drainAvail(): Message<'avail'>[] {
    const messages: Message<'avail'>[] = [];
    for (const attached of this.#queues) {
      const message = attached?.reader.drain();
      if (message) messages.push(message);
    }
    return messages;
  }

  /** What the host posts to the transport. `configChanged` is itself the notification. */
  receive(message: Message<'used' | 'irq' | 'configChanged'>): void {
    switch (message.name) {
      case 'used':
        this.#receiveUsed(message);
        return;
      case 'irq': {
        if (message.vector === CONFIG_VECTOR) this.#configChanged();
        else if (this.#queues[message.vector]) this.#queues[message.vector]!.callback();
        else this.counters.protocol_violations++;
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

  #receiveUsed(message: Message<'used'>): void {
    const reader = this.#queues[message.queue]?.reader;
    const count = message.heads.length / 2;
    if (!reader || !Number.isInteger(count) || message.written_bytes.length !== count * 4) {
      this.counters.protocol_violations++;
      return;
    }
    const bad = reader.complete(message.heads, message.written_bytes);
    this.counters.protocol_violations += bad;
    this.counters.used_chains += count - bad;
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
