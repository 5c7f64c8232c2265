/**
 * A driver without a will of its own: each test moves it step by step, over the transport of the
 * machine, with the rings of the real driver. Buffers lie in a few byte-backed pages.
 */
import type { Kthread } from '../../guest/sched/kthread.ts';
import { WaitQueue } from '../../guest/sched/kthread.ts';
import type { DriverQueue, Segment } from '../../guest/virtio/queue.ts';
import { allocateQueue } from '../../guest/virtio/queue-memory.ts';
import type { ConformanceMachine } from '../../peers/conformance-machine.ts';
import {
  BalloonConfig,
  BalloonFeature,
  type BalloonQueueName,
  bit,
  DeviceStatus,
  Feature,
  type FeatureSet,
  featureMask,
  hasFeature,
  queueIndices,
} from '../../protocol/index.ts';
import { assert, PAGE_SIZE_BYTES, type Pfn, pfnToGpa } from '../../shared/index.ts';

export const ACKNOWLEDGE = bit(DeviceStatus.ACKNOWLEDGE);
export const DRIVER = bit(DeviceStatus.DRIVER);
export const FEATURES_OK = bit(DeviceStatus.FEATURES_OK);
export const DRIVER_OK = bit(DeviceStatus.DRIVER_OK);
export const NEEDS_RESET = bit(DeviceStatus.DEVICE_NEEDS_RESET);
export const READY = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;

const BUFFER_ORDER = 3;
const BUFFER_BYTES = PAGE_SIZE_BYTES << BUFFER_ORDER;
const QUEUE_SIZE = 128;
/** Of every queue that there is, whatever the device allows. */
export const GFP_TEST = 0;

export interface BootOptions {
  /** Accept these at most. Default: all that is offered. */
  readonly accept?: FeatureSet;
  /** Leave out, of what is offered. */
  readonly decline?: FeatureSet;
  /** Descriptors of each queue, at most. */
  readonly queueSize?: number;
  /** Written before DRIVER_OK. */
  readonly poisonVal?: number;
}

export interface Buffer {
  /** Device-readable pieces, one descriptor each. */
  readonly out?: readonly Uint8Array[];
  /** Device-writable pieces. */
  readonly in?: readonly Segment[];
}

export class Puppet {
  readonly machine: ConformanceMachine;
  readonly queues = new Map<BalloonQueueName, DriverQueue>();
  offered: FeatureSet = 0n;
  features: FeatureSet = 0n;
  /** Used buffers and configuration changes. */
  readonly news = new WaitQueue();
  configChanges = 0;
  readonly #bufferPfn: Pfn;
  readonly #bytes: Uint8Array;
  #bufferAt = 0;

  constructor(machine: ConformanceMachine) {
    this.machine = machine;
    const { mm, ram } = machine.system;
    this.#bufferPfn = mm.alloc(BUFFER_ORDER, GFP_TEST);
    assert(this.#bufferPfn >= 0, 'there is memory for buffers');
    this.#bytes = ram.bytesOf(this.#bufferPfn, 1 << BUFFER_ORDER);
  }

  /** Reset, ACKNOWLEDGE, DRIVER. */
  *greet(): Kthread {
    const { transport } = this.machine;
    this.queues.clear();
    yield* transport.reset();
    yield* transport.setStatus(ACKNOWLEDGE);
    yield* transport.setStatus(ACKNOWLEDGE | DRIVER);
    this.offered = yield* transport.getDeviceFeatures();
  }

  /** Up to FEATURES_OK. Returns the status that the device shows then. */
  *negotiate(options: BootOptions = {}): Kthread<number> {
    const { transport } = this.machine;
    yield* this.greet();
    this.features = this.offered & (options.accept ?? this.offered) & ~(options.decline ?? 0n);
    this.features |= featureMask(Feature.VERSION_1);
    yield* transport.setDriverFeatures(this.features);
    yield* transport.setStatus(ACKNOWLEDGE | DRIVER | FEATURES_OK);
    return yield* transport.getStatus();
  }

  /** All of it: DRIVER_OK with every queue that the accepted features have. */
  *boot(options: BootOptions = {}): Kthread<this> {
    const { transport } = this.machine;
    const status = yield* this.negotiate(options);
    assert((status & FEATURES_OK) !== 0, 'the device accepts the features');
    yield* this.setUpQueues(options.queueSize);
    if (options.poisonVal !== undefined) yield* this.write('poison_val', options.poisonVal);
    transport.onConfigChanged = () => {
      this.configChanges++;
      this.news.wake();
    };
    yield* transport.setStatus(READY);
    return this;
  }

  *setUpQueues(queueSize = QUEUE_SIZE): Kthread {
    for (const name of [
      'inflateq',
      'deflateq',
      'statsq',
      'free_page_vq',
      'reporting_vq',
    ] as const) {
      const feature = FEATURE_OF[name];
      if (feature === undefined || hasFeature(this.features, feature)) {
        yield* this.setUpQueue(name, queueSize);
      }
    }
  }

  *setUpQueue(name: BalloonQueueName, queueSize = QUEUE_SIZE): Kthread<DriverQueue> {
    const { transport, system } = this.machine;
    const index = this.indexOf(name);
    const maxSize = yield* transport.getQueueMaxSize(index);
    const size = Math.min(maxSize, queueSize);
    const queue = allocateQueue(system.kernel, index, size, this.features);
    assert(queue !== null, `the device has a ${name}`);
    this.queues.set(name, queue);
    yield* transport.setQueue(queue, () => this.news.wake());
    return queue;
  }

  /** Every device under test counts the queues of the features that it offers. */
  indexOf(name: BalloonQueueName): number {
    const index = queueIndices('dense-by-offered', this.offered, this.features)[name];
    assert(index !== null, `${name} belongs to an offered feature`);
    return index;
  }

  queue(name: BalloonQueueName): DriverQueue {
    const queue = this.queues.get(name);
    assert(queue !== undefined, `${name} was set up`);
    return queue;
  }

  /** Make one buffer available, without a kick. Returns its head. */
  add(name: BalloonQueueName, { out = [], in: writable = [] }: Buffer): number {
    const head = this.queue(name).addChain({
      out: out.map((data) => this.#place(data)),
      in: writable,
    });
    assert(head >= 0, 'the ring has room');
    return head;
  }

  *kick(name: BalloonQueueName): Kthread {
    yield* this.machine.transport.notify(this.queue(name));
  }

  *send(name: BalloonQueueName, buffer: Buffer): Kthread<number> {
    const head = this.add(name, buffer);
    yield* this.kick(name);
    return head;
  }

  /** The next used buffer: its head; `usedBytes` of the queue says how long. */
  *used(name: BalloonQueueName): Kthread<number> {
    const queue = this.queue(name);
    for (;;) {
      const head = queue.getUsed();
      if (head >= 0) return head;
      if (queue.enableCallbacks()) yield { kind: 'wait', queue: this.news };
    }
  }

  /** Send, and wait until it was used. Returns the used length. */
  *exchange(name: BalloonQueueName, buffer: Buffer): Kthread<number> {
    yield* this.send(name, buffer);
    yield* this.used(name);
    return this.queue(name).usedBytes;
  }

  /** Inflate or deflate, one buffer. */
  *tell(name: 'inflateq' | 'deflateq', pfns: readonly Pfn[]): Kthread<number> {
    return yield* this.exchange(name, { out: [le32s(pfns)] });
  }

  /** What the device says now: the transport may remember what it said before. */
  *read(field: keyof BalloonConfig): Kthread<number> {
    const message = { name: 'getConfig', offset: BalloonConfig.offsets[field], length: 4 } as const;
    const reply = yield { kind: 'access', message };
    assert(reply?.name === 'config' && reply.data.length === 4, `the device has ${field}`);
    const { data } = reply;
    return new DataView(data.buffer, data.byteOffset, 4).getUint32(0, true);
  }

  *write(field: keyof BalloonConfig, value: number): Kthread {
    yield* this.machine.transport.writeConfig(BalloonConfig.offsets[field], le32s([value]));
  }

  /** Sleep until the field has another value than this one; returns it. */
  *change(field: keyof BalloonConfig, from: number): Kthread<number> {
    for (;;) {
      const seen = this.configChanges;
      const value = yield* this.read(field);
      if (value !== from) return value;
      while (seen === this.configChanges) yield { kind: 'wait', queue: this.news };
    }
  }

  /** Whole frames for a test, filled so that each has content of its own. */
  pages(order: number): Pfn {
    const pfn = this.machine.system.mm.alloc(order, GFP_TEST);
    assert(pfn >= 0, 'there is memory for a test');
    for (let i = 0; i < 1 << order; i++) this.machine.fill(pfn + i, 1, contentWord(pfn + i));
    return pfn;
  }

  segment(pfn: Pfn, pageCount = 1): Segment {
    return { gpa: pfnToGpa(pfn), lengthBytes: pageCount * PAGE_SIZE_BYTES };
  }

  #place(data: Uint8Array): Segment {
    // Round and round: far more room than all rings have buffers outstanding.
    if (this.#bufferAt + data.length > BUFFER_BYTES) this.#bufferAt = 0;
    const at = this.#bufferAt;
    this.#bytes.set(data, at);
    this.#bufferAt += Math.ceil(data.length / 8) * 8;
    this.machine.system.ram.touchBytes(this.#bufferPfn, 1 << BUFFER_ORDER);
    return { gpa: pfnToGpa(this.#bufferPfn) + at, lengthBytes: data.length };
  }
}

const FEATURE_OF: Readonly<Record<BalloonQueueName, BalloonFeature | undefined>> = {
  inflateq: undefined,
  deflateq: undefined,
  statsq: BalloonFeature.STATS_VQ,
  free_page_vq: BalloonFeature.FREE_PAGE_HINT,
  reporting_vq: BalloonFeature.PAGE_REPORTING,
};

/** What `pages` writes into a frame. */
export function contentWord(pfn: Pfn): number {
  return 0x5000_0000 + pfn;
}

export function le32s(values: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(values.length * 4);
  const view = new DataView(bytes.buffer);
  values.forEach((value, i) => {
    view.setUint32(i * 4, value, true);
  });
  return bytes;
}

export function range(first: number, count: number): number[] {
  return Array.from({ length: count }, (_, i) => first + i);
}

/** As the transport's own queue registers say. */
export function* isEnabled(index: number): Kthread<boolean> {
  const reply = yield { kind: 'access', message: { name: 'getQueue', index } };
  return reply?.name === 'queue' && reply.enabled;
}
