/**
 * Driver side of a split virtqueue in guest memory (virtio 1.4 §2.7). The ring is one physically
 * contiguous, byte-backed allocation. What the device may write is never trusted: the free list and
 * the length of each chain live in driver memory, as Linux's desc_extra does.
 */

import {
  AvailHeader,
  Desc,
  DescFlag,
  type SplitRingLayout,
  splitRingLayout,
  UsedElem,
  UsedHeader,
  writeLe64,
} from '../../protocol/index.ts';
import { assert, Errno, type Gpa, type Pfn, pfnToGpa } from '../../shared/index.ts';

/** One physically contiguous piece of a chain. */
export interface Segment {
  readonly gpa: Gpa;
  readonly lengthBytes: number;
}

/** Device-readable (`out`) segments come before device-writable (`in`) ones, as the ring demands. */
export interface Chain {
  readonly out?: readonly Segment[];
  readonly in?: readonly Segment[];
}

/** The byte-backed memory that a ring lives in (guest/machine/ram.ts). */
export interface RingMemory {
  bytesOf(pfn: Pfn, pageCount: number): Uint8Array;
  touchBytes(pfn: Pfn, pageCount?: number): void;
}

const U16_MASK = 0xffff;
const NO_HEAD = -1;

export class SplitQueue {
  readonly index: number;
  readonly size: number;
  readonly layout: SplitRingLayout;
  readonly view: DataView;
  readonly #memory: RingMemory;
  readonly #pfn: Pfn;
  readonly #touched: Uint8Array;
  readonly #next: Uint16Array;
  /** Descriptors of the chain that starts here; 0: not the head of an outstanding chain. */
  readonly #chainLength: Uint16Array;
  #freeHead = 0;
  #freeCount: number;
  #availIndex = 0;
  #lastUsedIndex = 0;
  /** Bytes the device wrote into the chain that `getUsed` returned last. */
  usedBytes = 0;
  /** Used entries that named no outstanding chain; ignored. */
  badUsedCount = 0;

  /**
   * `pfn` is the first of `pageCount` contiguous zeroed frames, at least `layout.sizeBytes`;
   * `size` is a power of two.
   */
  constructor(index: number, size: number, pfn: Pfn, pageCount: number, memory: RingMemory) {
    this.index = index;
    this.size = size;
    this.layout = splitRingLayout(size);
    const bytes = memory.bytesOf(pfn, pageCount);
    assert(this.layout.sizeBytes <= bytes.length, 'the ring fits its allocation');
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#memory = memory;
    this.#pfn = pfn;
    this.#touched = new Uint8Array(pageCount);
    this.#next = Uint16Array.from({ length: size }, (_, i) => (i + 1) % size);
    this.#chainLength = new Uint16Array(size);
    this.#freeCount = size;
  }

  get descGpa(): Gpa {
    return pfnToGpa(this.#pfn) + this.layout.descOffset;
  }

  get availGpa(): Gpa {
    return pfnToGpa(this.#pfn) + this.layout.availOffset;
  }

  get usedGpa(): Gpa {
    return pfnToGpa(this.#pfn) + this.layout.usedOffset;
  }

  /** Descriptors that a new chain may take. */
  get freeCount(): number {
    return this.#freeCount;
  }

  /** The driver's `avail.idx`. */
  get availIndex(): number {
    return this.#availIndex;
  }

  /** Make one chain available. Returns its head, −ENOSPC, or −EINVAL for an empty chain. */
  addChain(chain: Chain): number {
    const outCount = chain.out?.length ?? 0;
    const count = outCount + (chain.in?.length ?? 0);
    if (count === 0) return Errno.EINVAL;
    if (count > this.#freeCount) return Errno.ENOSPC;
    const head = this.#freeHead;
    let id = head;
    for (let i = 0; i < count; i++) {
      const segment = i < outCount ? chain.out![i]! : chain.in![i - outCount]!;
      const next = this.#next[id]!;
      const flags = (i < outCount ? 0 : DescFlag.WRITE) | (i + 1 < count ? DescFlag.NEXT : 0);
      this.#writeDesc(id, segment.gpa, segment.lengthBytes, flags, next);
      id = next;
    }
    this.#publish(head, count, id);
    this.flushTouched();
    return head;
  }

  /**
   * Hot path of hinting: a chain of one descriptor, without allocation. The caller calls
   * `flushTouched` before anything else may run. Returns the head or −ENOSPC.
   */
  addSingle(gpa: Gpa, lengthBytes: number, writable: boolean): number {
    if (this.#freeCount === 0) return Errno.ENOSPC;
    const head = this.#freeHead;
    this.#writeDesc(head, gpa, lengthBytes, writable ? DescFlag.WRITE : 0, 0);
    this.#publish(head, 1, this.#next[head]!);
    return head;
  }

  /**
   * Take the next used chain: its head, or −1 when there is none. `usedBytes` is what the device
   * wrote. Entries that name no outstanding chain are counted and passed over.
   */
  getUsed(): number {
    const { view, layout, size } = this;
    const usedIndex = view.getUint16(layout.usedOffset + UsedHeader.offsets.idx, true);
    while (this.#lastUsedIndex !== usedIndex) {
      const slot = this.#lastUsedIndex & (size - 1);
      const at = layout.usedOffset + UsedHeader.sizeBytes + slot * UsedElem.sizeBytes;
      this.#lastUsedIndex = (this.#lastUsedIndex + 1) & U16_MASK;
      const head = view.getUint32(at + UsedElem.offsets.id, true);
      if (head < size && this.#chainLength[head] !== 0) {
        this.usedBytes = view.getUint32(at + UsedElem.offsets.len, true);
        this.#release(head);
        return head;
      }
      this.badUsedCount++;
    }
    return NO_HEAD;
  }

  isOutstanding(head: number): boolean {
    return head < this.size && this.#chainLength[head] !== 0;
  }

  /** Tell the machine which ring pages changed: their dirty-log bits and content tags. */
  flushTouched(): void {
    for (let i = 0; i < this.#touched.length; i++) {
      if (this.#touched[i] === 0) continue;
      this.#touched[i] = 0;
      this.#memory.touchBytes(this.#pfn + i);
    }
  }

  /** A byte of the ring was changed through `view`, by the driver or by the device. */
  markTouched(offset: number): void {
    this.#touched[offset >>> 12] = 1;
  }

  #writeDesc(id: number, gpa: Gpa, lengthBytes: number, flags: number, next: number): void {
    const at = this.layout.descOffset + id * Desc.sizeBytes;
    const { view } = this;
    writeLe64(view, at + Desc.offsets.addr, gpa);
    view.setUint32(at + Desc.offsets.len, lengthBytes, true);
    view.setUint16(at + Desc.offsets.flags, flags, true);
    view.setUint16(at + Desc.offsets.next, next, true);
    this.markTouched(at);
  }

  #publish(head: number, count: number, nextFree: number): void {
    this.#chainLength[head] = count;
    this.#freeHead = nextFree;
    this.#freeCount -= count;
    const { view, layout } = this;
    const slot =
      layout.availOffset + AvailHeader.sizeBytes + (this.#availIndex & (this.size - 1)) * 2;
    view.setUint16(slot, head, true);
    this.#availIndex = (this.#availIndex + 1) & U16_MASK;
    // Ring entry first, index second: the device may look as soon as the index moves.
    view.setUint16(layout.availOffset + AvailHeader.offsets.idx, this.#availIndex, true);
    this.markTouched(slot);
    this.markTouched(layout.availOffset + AvailHeader.offsets.idx);
  }

  #release(head: number): void {
    const count = this.#chainLength[head]!;
    this.#chainLength[head] = 0;
    let tail = head;
    for (let i = 1; i < count; i++) tail = this.#next[tail]!;
    this.#next[tail] = this.#freeHead;
    this.#freeHead = head;
    this.#freeCount += count;
    assert(this.#freeCount <= this.size, 'free descriptors do not exceed the ring');
  }
}
