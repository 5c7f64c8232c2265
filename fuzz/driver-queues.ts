/**
 * The driver's hand on rings whose used part a hostile device writes: ids that are none, twice, of
 * chains that were never made available, indices and flags that jump, lengths beyond any buffer.
 */
import { Ram } from '../guest/machine/ram.ts';
import { PackedQueue } from '../guest/virtio/packed-queue.ts';
import type { DriverQueue } from '../guest/virtio/queue.ts';
import { ringOptions } from '../guest/virtio/ring-features.ts';
import { SplitQueue } from '../guest/virtio/split-queue.ts';
import {
  Feature,
  featureMask,
  PackedDesc,
  PackedDescFlag,
  UsedElem,
  UsedHeader,
} from '../protocol/index.ts';
import { PAGE_SIZE_BYTES } from '../shared/index.ts';
import { ANY, judge, type Kind, type Outcome, type Session, type Verdict } from './case.ts';
import { Draw } from './draw.ts';

const SIZES = [8, 1, 2, 4, 16, 64, 128];
const PACKED_SIZES = [8, 1, 3, 5, 16, 63, 128];
const RING_PFN = 16;
const DATA_GPA = 100 * PAGE_SIZE_BYTES;
const NEVER_ENDS = 100_000;
const LABELS = [
  'nothing used',
  'ids that are none',
  'any ids',
  'index that jumps',
  'flipped bytes',
] as const;
type Label = (typeof LABELS)[number];

const COUNTED: readonly Outcome[] = ['counted'];
const EXPECTED: Readonly<Record<Label, readonly Outcome[]>> = {
  'nothing used': ['ignored'],
  'ids that are none': COUNTED,
  'any ids': ANY,
  'index that jumps': ANY,
  'flipped bytes': ANY,
};

class DriverQueueSession implements Session {
  trace: string[] = [];
  readonly #isPacked: boolean;
  readonly #make: () => DriverQueue & { readonly view: DataView };
  #queue: DriverQueue & { readonly view: DataView };
  /** Descriptors of each chain that the driver has made available and not got back. */
  readonly #outstanding = new Map<number, number>();
  /** The used index of a split ring. */
  #next = 0;

  constructor(seed: number) {
    const draw = new Draw(seed);
    this.#isPacked = draw.chance(1, 2);
    const bits = [Feature.RING_INDIRECT_DESC, Feature.RING_EVENT_IDX].filter(() =>
      draw.chance(1, 2),
    );
    const options = ringOptions(featureMask(...bits));
    const Queue = this.#isPacked ? PackedQueue : SplitQueue;
    const size = draw.pick(this.#isPacked ? PACKED_SIZES : SIZES);
    const pageCount = Math.ceil(Queue.sizeBytes(size, options) / PAGE_SIZE_BYTES);
    this.#make = () =>
      new Queue(0, size, options, { memory: new Ram(128), pfn: RING_PFN, pageCount });
    this.#queue = this.#make();
  }

  next(draw: Draw): Verdict {
    if (this.#isLost && draw.chance(1, 2)) this.#renew();
    this.#add(draw);
    const label = draw.pick(LABELS);
    const { size } = this.#queue;
    const layout = this.#isPacked ? 'packed' : 'split';
    this.trace = [`${layout} queue of ${size}, ${this.#outstanding.size} chains outstanding`];
    const bad = this.#queue.badUsedCount;
    this.#device(draw, label);
    const taken = this.#take();
    this.#queue.kickNeeded();
    if (draw.chance(1, 2)) this.#queue.disableCallbacks();
    else this.#queue.enableCallbacks();
    const outcome = this.#queue.badUsedCount > bad ? 'counted' : taken > 0 ? 'served' : 'ignored';
    // After something random nobody knows where the driver looks next.
    const isKnown = !this.#isLost && label !== 'flipped bytes' && label !== 'index that jumps';
    if (!isKnown) this.#isLost = true;
    return judge(`${layout}: ${label}`, outcome, isKnown ? EXPECTED[label] : ANY);
  }

  close(): null {
    return null;
  }

  /** The driver looks where this device does not write, or has given the ring up. */
  #isLost = false;

  #renew(): void {
    this.#queue = this.#make();
    this.#outstanding.clear();
    this.#next = 0;
    this.#isLost = false;
  }

  /** Some chains more, of one element or several. */
  #add(draw: Draw): void {
    for (let i = draw.below(4); i > 0; i--) {
      const before = this.#queue.freeCount;
      const count = draw.pick([1, 1, 2, 3]);
      const segments = Array.from({ length: count }, (_, k) => ({
        gpa: DATA_GPA + 64 * k,
        lengthBytes: 64,
      }));
      const head =
        count === 1
          ? this.#queue.addSingle(DATA_GPA, 64, draw.chance(1, 2))
          : this.#queue.addChain({ in: segments });
      if (head < 0) continue;
      if (this.#outstanding.has(head)) throw new Error(`head ${head} was given out twice`);
      this.#outstanding.set(head, before - this.#queue.freeCount);
    }
    this.#queue.flushTouched();
  }

  #device(draw: Draw, label: Label): void {
    const { view } = this.#queue;
    switch (label) {
      case 'nothing used':
        return;
      case 'ids that are none':
        this.#use(draw, [this.#noId(draw)]);
        return;
      case 'any ids':
        this.#use(
          draw,
          Array.from({ length: draw.pick([1, 2, 8]) }, () => this.#anyId(draw)),
        );
        return;
      case 'index that jumps':
        if (this.#isPacked) this.#flip(draw, 4);
        else view.setUint16(this.#usedOffset + UsedHeader.offsets.idx, draw.below(0x10000), true);
        return;
      case 'flipped bytes':
        this.#flip(draw, draw.pick([1, 2, 16]));
        return;
    }
  }

  #flip(draw: Draw, count: number): void {
    const { view } = this.#queue;
    for (let i = 0; i < count; i++) view.setUint8(draw.below(view.byteLength), draw.below(256));
  }

  #noId(draw: Draw): number {
    return draw.pick(
      this.#isPacked ? [0xffff, 0x8000, 1000] : [0xffff_ffff, 0xffff, 0x8000_0000, 1000],
    );
  }

  #anyId(draw: Draw): number {
    const known = [...this.#outstanding.keys()];
    return known.length > 0 && draw.chance(1, 2)
      ? draw.pick(known)
      : draw.below(this.#queue.size + 2);
  }

  get #usedOffset(): number {
    const { areas } = this.#queue;
    return areas.deviceGpa - RING_PFN * PAGE_SIZE_BYTES;
  }

  /** Writes used entries as a device does. */
  #use(draw: Draw, ids: readonly number[]): void {
    for (const id of ids) {
      if (this.#isPacked) this.#usePacked(draw, id);
      else this.#useSplit(draw, id);
    }
  }

  #useSplit(draw: Draw, id: number): void {
    const { view, size } = this.#queue;
    const at =
      this.#usedOffset + UsedHeader.sizeBytes + (this.#next & (size - 1)) * UsedElem.sizeBytes;
    view.setUint32(at + UsedElem.offsets.id, id, true);
    view.setUint32(at + UsedElem.offsets.len, draw.u32(), true);
    this.#next = (this.#next + 1) & 0xffff;
    view.setUint16(this.#usedOffset + UsedHeader.offsets.idx, this.#next, true);
  }

  /** Only the driver knows where it looks next: the entry is everywhere, in one lap or the other. */
  #usePacked(draw: Draw, id: number): void {
    const { view, size } = this.#queue;
    const used = draw.chance(1, 2) ? 0 : PackedDescFlag.AVAIL | PackedDescFlag.USED;
    const lengthBytes = draw.u32();
    for (let at = 0; at < size * PackedDesc.sizeBytes; at += PackedDesc.sizeBytes) {
      view.setUint32(at + PackedDesc.offsets.len, lengthBytes, true);
      view.setUint16(at + PackedDesc.offsets.id, id, true);
      view.setUint16(at + PackedDesc.offsets.flags, used, true);
    }
    this.#isLost = true;
  }

  /** All that the driver takes back: each chain that it has given, once. */
  #take(): number {
    const { size } = this.#queue;
    for (let taken = 0; ; taken++) {
      if (taken > NEVER_ENDS) throw new Error('used chains come for ever');
      const before = this.#queue.freeCount;
      const head = this.#queue.getUsed();
      if (head < 0) return taken;
      const descs = this.#outstanding.get(head);
      if (descs === undefined) throw new Error(`head ${head} was never made available`);
      this.#outstanding.delete(head);
      const freed = this.#queue.freeCount - before;
      if (freed !== descs || this.#queue.freeCount > size) {
        throw new Error(`${freed} descriptors came back of a chain of ${descs}`);
      }
    }
  }
}

export const DRIVER_QUEUES: Kind = {
  name: 'queues',
  direction: 'host-to-guest',
  about: 'what a device writes into split and packed rings, as the hand of the driver reads it',
  weight: 50,
  casesPerSession: 64,
  open: (seed) => new DriverQueueSession(seed),
};
