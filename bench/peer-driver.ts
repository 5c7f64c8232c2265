/** The driver of the comparison with QEMU: it does nothing but keep a ring full. */
import type { Kthread } from '../guest/sched/kthread.ts';
import { WaitQueue } from '../guest/sched/kthread.ts';
import type { Chain, DriverQueue } from '../guest/virtio/queue.ts';
import { allocateQueue } from '../guest/virtio/queue-memory.ts';
import type { ConformanceMachine } from '../peers/conformance-machine.ts';
import {
  BALLOON_PFN_BYTES,
  BALLOON_QUEUES,
  BalloonConfig,
  type BalloonQueueName,
  Feature,
  type FeatureSet,
  hasFeature,
  queueIndices,
  VIRTIO_BALLOON_PFNS_MAX,
} from '../protocol/index.ts';
import { assert, MIB, PAGE_SIZE_BYTES, type Pfn, pfnToGpa } from '../shared/index.ts';

export interface Work {
  readonly name: string;
  readonly queue: BalloonQueueName;
  /** Pages, hints or ranges in a chain: what is counted. */
  readonly perChain: number;
  /** Pages of one of them. */
  readonly elementPages: number;
  /** What the work takes away is written again before each round, while the clock stands. */
  readonly rounds: number;
  readonly chainsPerRound: number;
}

/** Elements lie side by side from the first page on, again and again if memory ends. */
export const WORKS: readonly Work[] = [
  {
    name: 'one-page hints',
    queue: 'free_page_vq',
    perChain: 1,
    elementPages: 1,
    rounds: 8,
    chainsPerRound: 512 * 1024,
  },
  {
    name: `pages inflated, ${VIRTIO_BALLOON_PFNS_MAX} a buffer`,
    queue: 'inflateq',
    perChain: VIRTIO_BALLOON_PFNS_MAX,
    elementPages: 1,
    rounds: 8,
    chainsPerRound: 128,
  },
  {
    name: 'ranges of 4 KiB reported',
    queue: 'reporting_vq',
    perChain: 32,
    elementPages: 1,
    rounds: 8,
    chainsPerRound: 512,
  },
  {
    name: 'ranges of 2 MiB reported',
    queue: 'reporting_vq',
    perChain: 32,
    elementPages: 512,
    rounds: 8,
    chainsPerRound: 14,
  },
];

/** How a work lies in a ring of so many descriptors: it never waits for its last batch alone. */
export function ringOf(
  { queue, perChain }: Work,
  size: number,
): { readonly descriptors: number; readonly chains: number; readonly batch: number } {
  const descriptors = queue === 'reporting_vq' ? perChain : 1;
  const chains = size / descriptors;
  return { descriptors, chains, batch: Math.max(1, chains / 2) };
}

const FIRST_PFN = 1 << 15;
/** Below them, so that a slow migration has not come to its end when everything else is hinted. */
const BUSY_PAGES = 1 << 12;
const READY = 15;
const BUFFER_BYTES = VIRTIO_BALLOON_PFNS_MAX * BALLOON_PFN_BYTES;
/** Pages for buffers of PFNs: one for each descriptor of the inflate queue. */
const BUFFER_ORDER = 5;

export class PeerDriver<M extends ConformanceMachine = ConformanceMachine> {
  readonly machine: M;
  readonly queues = new Map<BalloonQueueName, DriverQueue>();
  readonly #news = new WaitQueue();
  readonly #bufferPfn: Pfn;
  readonly #buffers: DataView;

  private constructor(machine: M) {
    const { mm, ram } = machine.system;
    this.machine = machine;
    this.#bufferPfn = mm.alloc(BUFFER_ORDER, 0);
    const bytes = ram.bytesOf(this.#bufferPfn, 1 << BUFFER_ORDER);
    this.#buffers = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  static async boot<M extends ConformanceMachine>(machine: M): Promise<PeerDriver<M>> {
    const driver = new PeerDriver(machine);
    await machine.run(() => driver.#boot());
    return driver;
  }

  /** Pages that are touched, and an open round of hinting where it is needed. */
  async prepare(work: Work): Promise<void> {
    const { machine } = this;
    await this.touch(work);
    if (work.queue !== 'free_page_vq') return;
    await machine.control.migrate({ bandwidthBytesPerS: MIB / 4, downtimeLimitMs: 1 });
    let id = 0;
    await machine.until(async () => {
      id = await machine.run(() => this.#cmdId());
      return id !== 0;
    }, 'a round of hinting');
    await machine.run(() => this.#sendId(id));
  }

  /** The guest writes every page that the work names. */
  async touch({ chainsPerRound, perChain, elementPages }: Work): Promise<void> {
    const { machine } = this;
    const named = chainsPerRound * perChain * elementPages;
    const pages = Math.min(named, machine.ramPages - FIRST_PFN);
    machine.fill(FIRST_PFN - BUSY_PAGES, BUSY_PAGES + pages, 0x5555);
    await machine.settle();
  }

  /** Seconds of wall time. */
  async measure(work: Work): Promise<number> {
    let seconds = 0;
    for (let round = 0; round < work.rounds; round++) {
      if (round > 0) await this.touch(work);
      seconds += await this.machine.run(() => this.#timed(work));
    }
    return seconds;
  }

  *#timed(work: Work): Kthread<number> {
    const startMs = performance.now();
    yield* this.#drive(work);
    return (performance.now() - startMs) / 1e3;
  }

  /** Fill the ring, kick, take back what there is. */
  *#drive(work: Work): Kthread {
    const { transport } = this.machine;
    const queue = this.queue(work.queue);
    const total = work.chainsPerRound;
    const { descriptors } = ringOf(work, queue.size);
    let [added, done] = [0, 0];
    while (done < total) {
      const free = Math.floor(queue.freeCount / descriptors);
      const batch = Math.min(free, total - added);
      for (let i = 0; i < batch; i++) this.#add(work, added++);
      queue.flushTouched();
      if (batch > 0) yield* transport.notify(queue);
      const before = done;
      while (queue.getUsed() >= 0) done++;
      if (done === before && queue.enableCallbacks()) yield { kind: 'wait', queue: this.#news };
    }
  }

  queue(name: BalloonQueueName): DriverQueue {
    const queue = this.queues.get(name);
    assert(queue !== undefined, `there is a ${name}`);
    return queue;
  }

  /** Makes the `index`-th chain of the work available. */
  #add(work: Work, index: number): void {
    const queue = this.queue(work.queue);
    if (work.queue === 'free_page_vq') {
      queue.addSingle(pfnToGpa(this.#pfnOf(work, index)), PAGE_SIZE_BYTES, true);
    } else queue.addChain(this.chain(work, index));
  }

  /** The `index`-th chain of the work; its readable buffer, if it has one, is filled. */
  chain(work: Work, index: number): Chain {
    const pfn = this.#pfnOf(work, index);
    return work.queue === 'inflateq' ? this.#pfnBuffer(index, pfn) : ranges(work, pfn);
  }

  /** What a chain's readable part holds. */
  bytesOf({ out = [] }: Chain): Uint8Array {
    const { ram } = this.machine.system;
    return Buffer.concat(out.map(({ gpa, lengthBytes }) => ram.readBytes(gpa, lengthBytes)!));
  }

  #pfnOf({ perChain, elementPages }: Work, index: number): Pfn {
    const pages = perChain * elementPages;
    const places = Math.floor((this.machine.ramPages - FIRST_PFN) / pages);
    return FIRST_PFN + (index % places) * pages;
  }

  #pfnBuffer(index: number, pfn: Pfn): Chain {
    const at = (index * BUFFER_BYTES) % this.#buffers.byteLength;
    for (let i = 0; i < VIRTIO_BALLOON_PFNS_MAX; i++) {
      this.#buffers.setUint32(at + i * BALLOON_PFN_BYTES, pfn + i, true);
    }
    this.machine.system.ram.touchBytes(this.#bufferPfn + Math.floor(at / PAGE_SIZE_BYTES));
    return { out: [{ gpa: pfnToGpa(this.#bufferPfn) + at, lengthBytes: BUFFER_BYTES }] };
  }

  *#boot(): Kthread {
    const { transport, system } = this.machine;
    yield* transport.reset();
    yield* transport.setStatus(3);
    const offered = yield* transport.getDeviceFeatures();
    const features = offered & ~RING_OPTIONS;
    yield* transport.setDriverFeatures(features);
    yield* transport.setStatus(11);
    const indices = queueIndices('dense-by-offered', offered, features);
    for (const { name, feature } of BALLOON_QUEUES) {
      if (feature !== undefined && !hasFeature(features, feature)) continue;
      const index = indices[name]!;
      const size = Math.min(yield* transport.getQueueMaxSize(index), SIZE_OF[name] ?? 128);
      const queue = allocateQueue(system.kernel, index, size, features);
      assert(queue !== null, 'there is memory for rings');
      this.queues.set(name, queue);
      yield* transport.setQueue(queue, () => this.#news.wake());
    }
    yield* transport.setStatus(READY);
  }

  *#cmdId(): Kthread<number> {
    const offset = BalloonConfig.offsets.free_page_hint_cmd_id;
    const reply = yield { kind: 'access', message: { name: 'getConfig', offset, length: 4 } };
    assert(reply?.name === 'config', 'the device has the field');
    return new DataView(reply.data.buffer, reply.data.byteOffset, 4).getUint32(0, true);
  }

  *#sendId(id: number): Kthread {
    const queue = this.queue('free_page_vq');
    this.#buffers.setUint32(0, id, true);
    this.machine.system.ram.touchBytes(this.#bufferPfn);
    queue.addChain({ out: [{ gpa: pfnToGpa(this.#bufferPfn), lengthBytes: 4 }] });
    yield* this.machine.transport.notify(queue);
    while (queue.getUsed() < 0) yield { kind: 'wait', queue: this.#news };
  }
}

const RING_OPTIONS: FeatureSet =
  (1n << BigInt(Feature.RING_INDIRECT_DESC)) | (1n << BigInt(Feature.RING_EVENT_IDX));
const SIZE_OF: Partial<Record<BalloonQueueName, number>> = { free_page_vq: 1024, reporting_vq: 32 };

function ranges({ perChain, elementPages }: Work, pfn: Pfn): Chain {
  const lengthBytes = elementPages * PAGE_SIZE_BYTES;
  return {
    in: Array.from({ length: perChain }, (_, i) => ({
      gpa: pfnToGpa(pfn + i * elementPages),
      lengthBytes,
    })),
  };
}
