/**
 * The transport to QEMU's device. What is written goes out at once; what must be read makes the
 * thread wait for a device access, with the messages of the channel, and `answer` reads registers.
 * Interrupts are polled, since the guest that they would interrupt is not QEMU's vCPU.
 */
import type { Kernel } from '../../guest/kernel/kernel.ts';
import type { Kthread } from '../../guest/sched/kthread.ts';
import type { DriverQueue } from '../../guest/virtio/queue.ts';
import type { DeviceInfo, VirtioTransport } from '../../guest/virtio/transport.ts';
import {
  balloonConfigBytes,
  Feature,
  type FeatureSet,
  featuresOf,
  featureWords,
  hasFeature,
  type Message,
} from '../../protocol/index.ts';
import { assert } from '../../shared/index.ts';
import { MemoryMirror, MirroredQueue } from './mirror.ts';
import { Isr, type VirtioRegisters } from './registers.ts';

type ReplyName = 'deviceInfo' | 'deviceFeatures' | 'status' | 'config' | 'queue';

interface Attached extends MirroredQueue {
  callback?: () => void;
}

/** Queues that are looked for; the balloon has five. */
const QUEUES_MAX = 8;
const RESET_POLLS_MAX = 64;
/** Polls after which a used buffer is told to the driver although no interrupt came. */
const SILENT_POLLS_MAX = 20;

export class QtestTransport implements VirtioTransport {
  onConfigChanged: (() => void) | null = null;
  readonly counters = {
    queue_interrupts: 0,
    config_interrupts: 0,
    kicks: 0,
    /** Kicks that the device had asked not to get. */
    suppressed_kicks: 0,
    /** Used buffers that the driver was told of without an interrupt. */
    silent_used: 0,
  };
  readonly #registers: VirtioRegisters;
  readonly #mirror: MemoryMirror;
  readonly #queues: (Attached | undefined)[] = [];
  #driverFeatures: FeatureSet = 0n;
  #offered: FeatureSet = 0n;
  #silentPolls = 0;

  constructor(kernel: Kernel, registers: VirtioRegisters) {
    this.#registers = registers;
    this.#mirror = new MemoryMirror(kernel.ram, registers.qtest);
  }

  *getDeviceInfo(): Kthread<DeviceInfo> {
    const reply = yield* access({ name: 'getDeviceInfo' }, 'deviceInfo');
    return {
      deviceId: reply.device_id,
      queueCount: reply.queue_count,
      configSizeBytes: reply.config_size,
    };
  }

  *getDeviceFeatures(): Kthread<FeatureSet> {
    return featuresOf(yield* access({ name: 'getDeviceFeatures' }, 'deviceFeatures'));
  }

  setDriverFeatures(features: FeatureSet): Kthread {
    this.#driverFeatures = features;
    this.#registers.driverFeatures(features);
    return nothing();
  }

  *getStatus(): Kthread<number> {
    return (yield* access({ name: 'getStatus' }, 'status')).status;
  }

  setStatus(status: number): Kthread {
    if (status === 0) this.#queues.length = 0;
    this.#registers.setStatus(status);
    return nothing();
  }

  *reset(): Kthread {
    yield* this.setStatus(0);
    for (let i = 0; i < RESET_POLLS_MAX; i++) {
      if ((yield* this.getStatus()) === 0) return;
    }
  }

  *readConfig(offset: number, lengthBytes: number): Kthread<Uint8Array> {
    const message = { name: 'getConfig', offset, length: lengthBytes } as const;
    return (yield* access(message, 'config')).data;
  }

  writeConfig(offset: number, data: Uint8Array): Kthread {
    this.#registers.writeConfig(offset, data);
    return nothing();
  }

  *getQueueMaxSize(index: number): Kthread<number> {
    return (yield* access({ name: 'getQueue', index }, 'queue')).max_size;
  }

  setQueue(queue: DriverQueue, callback: () => void): Kthread {
    const attached: Attached = new MirroredQueue(
      queue,
      hasFeature(this.#driverFeatures, Feature.RING_PACKED),
    );
    attached.callback = callback;
    this.#mirror.flush(this.#attached());
    this.#queues[queue.index] = attached;
    this.#registers.setQueue(queue.index, queue.size, queue.areas);
    return nothing();
  }

  *resetQueue(index: number): Kthread {
    delete this.#queues[index];
    this.#registers.resetQueue(index);
    for (let i = 0; i < RESET_POLLS_MAX; i++) {
      if (!(yield* access({ name: 'getQueue', index }, 'queue')).enabled) return;
    }
  }

  *notify(queue: DriverQueue): Kthread {
    assert(this.#queues[queue.index] !== undefined, 'a kicked queue was given to the device');
    this.#mirror.flush(this.#attached());
    // A full barrier: what the device says about kicks is read after the chains are there.
    yield* access({ name: 'getQueue', index: queue.index }, 'queue');
    if (queue.kickNeeded()) this.kick(queue.index);
    else this.counters.suppressed_kicks++;
  }

  /** Without asking whether the device wants it. */
  kick(index: number): void {
    this.counters.kicks++;
    this.#registers.notify(index);
  }

  /** The device's answer to what a thread waits for. */
  async answer(message: Message): Promise<Message> {
    const registers = this.#registers;
    switch (message.name) {
      case 'getDeviceInfo':
        return this.#deviceInfo();
      case 'getDeviceFeatures':
        this.#offered = await registers.deviceFeatures();
        return { name: 'deviceFeatures', ...featureWords(this.#offered) };
      case 'getStatus':
        return { name: 'status', status: await registers.status() };
      case 'getConfig':
        return this.#readConfig(message.offset, message.length);
      case 'getQueue': {
        const attached = this.#queues[message.index];
        const state = registers.queue(message.index);
        if (attached) await this.#mirror.readSuppression(attached);
        const { maxSize, enabled } = await state;
        return { name: 'queue', index: message.index, max_size: maxSize, enabled };
      }
      default:
        throw new Error(`no register answers ${message.name}`);
    }
  }

  /** Look for interrupts, and tell the driver. True: something happened. */
  async poll(): Promise<boolean> {
    this.#mirror.flush(this.#attached());
    const attached = [...this.#attached()];
    const interrupts = this.#registers.takeInterrupts();
    await Promise.all(attached.map((queue) => this.#mirror.readUsed(queue)));
    const isr = await interrupts;
    if ((isr & Isr.CONFIG) !== 0) {
      this.counters.config_interrupts++;
      this.onConfigChanged?.();
    }
    const news = attached.filter(({ hasNews }) => hasNews);
    if ((isr & Isr.QUEUE) !== 0) this.counters.queue_interrupts++;
    else if (news.length === 0 || ++this.#silentPolls < SILENT_POLLS_MAX) return isr !== 0;
    else this.counters.silent_used++;
    this.#silentPolls = 0;
    for (const queue of news) {
      queue.hasNews = false;
      queue.callback?.();
    }
    return true;
  }

  #attached(): Attached[] {
    return this.#queues.filter((queue) => queue !== undefined);
  }

  async #deviceInfo(): Promise<Message<'deviceInfo'>> {
    const registers = this.#registers;
    const indices = Array.from({ length: QUEUES_MAX }, (_, index) => index);
    const queues = await Promise.all(indices.map((index) => registers.queue(index)));
    this.#offered = await registers.deviceFeatures();
    return {
      name: 'deviceInfo',
      device_id: await registers.deviceId(),
      queue_count: queues.filter(({ maxSize }) => maxSize > 0).length,
      // Neither transport tells a length; a driver derives it from the features (§5.5.4).
      config_size: balloonConfigBytes(this.#offered),
    };
  }

  /** Again while the generation moves (§2.5.1). */
  async #readConfig(offset: number, length: number): Promise<Message<'config'>> {
    for (;;) {
      const before = this.#registers.configGeneration();
      const data = this.#registers.readConfig(offset, length);
      const after = await this.#registers.configGeneration();
      const generation = await before;
      if (generation === after) return { name: 'config', generation, data: await data };
    }
  }
}

function* access<N extends ReplyName>(message: Message, expected: N): Kthread<Message<N>> {
  const reply = yield { kind: 'access', message };
  assert(reply?.name === expected, 'an access is answered with what belongs to it');
  return reply as Message<N>;
}

/** A posted operation takes effect at the call and no virtual time. */
function* nothing(): Kthread {}
