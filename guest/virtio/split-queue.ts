/**
 * Driver side of a split virtqueue in guest memory (virtio 1.4 §2.7). What the device may write is
 * never trusted: the free list and the length of each chain live in driver memory, as Linux's
 * desc_extra does.
 */
import {
  AvailFlag,
  AvailHeader,
  Desc,
  DescFlag,
  needsEvent,
  type SplitRingLayout,
  splitRingLayout,
  UsedElem,
  UsedFlag,
  UsedHeader,
  writeLe64,
} from '../../protocol/index.ts';
import { assert, Errno, type Gpa, PAGE_SHIFT } from '../../shared/index.ts';
import { InOrderBatch } from './in-order-batch.ts';
import { IndirectTables } from './indirect-tables.ts';
import { type Chain, type DriverQueue, isChain, type QueueAreas, segmentOf } from './queue.ts';
import type { RingOptions } from './ring-features.ts';
import { RingPages, type RingPlace } from './ring-pages.ts';

// Names of their own: in the hot path each look into a table counts.
const DESC_BYTES = Desc.sizeBytes;
const { len: DESC_LEN, flags: DESC_FLAGS, next: DESC_NEXT } = Desc.offsets;
const { id: USED_ID, len: USED_LEN } = UsedElem.offsets;
const ELEM_BYTES = UsedElem.sizeBytes;
const USED_RING = UsedHeader.sizeBytes;
const USED_IDX = UsedHeader.offsets.idx;
const AVAIL_RING = AvailHeader.sizeBytes;
const AVAIL_IDX = AvailHeader.offsets.idx;
const U16_MASK = 0xffff;
const NO_HEAD = -1;
/** Added to an index: an event that no ring full of entries reaches from there. */
const NEVER = 0x8000;

export class SplitQueue implements DriverQueue {
  readonly index: number;
  readonly size: number;
  readonly layout: SplitRingLayout;
  readonly areas: QueueAreas;
  readonly view: DataView;
  readonly #eventIdx: boolean;
  readonly #pages: RingPages;
  readonly #touched: Uint8Array;
  readonly #tables: IndirectTables | null;
  readonly #inOrder: InOrderBatch | null;
  readonly #next: Uint16Array;
  /** Descriptors of the ring that the chain from here has; 0: not the head of a chain. */
  readonly #chainLength: Uint16Array;
  #freeHead = 0;
  #freeCount: number;
  #availIndex = 0;
  /** `availIndex` when the driver last asked whether to kick. */
  #kickedIndex = 0;
  #lastUsedIndex = 0;
  #callbacksEnabled = true;
  usedBytes = 0;
  badUsedCount = 0;

  /** Bytes of contiguous memory that a ring of `size` descriptors takes. */
  static sizeBytes(size: number, options: RingOptions): number {
    const { sizeBytes } = splitRingLayout(size);
    return options.indirect ? IndirectTables.sizeBytesAfter(sizeBytes) : sizeBytes;
  }

  /** `size` is a power of two. */
  constructor(index: number, size: number, options: RingOptions, place: RingPlace) {
    this.index = index;
    this.size = size;
    this.layout = splitRingLayout(size);
    this.#eventIdx = options.eventIdx;
    this.#pages = new RingPages(place, SplitQueue.sizeBytes(size, options));
    this.view = this.#pages.view;
    this.#touched = this.#pages.touched;
    this.areas = {
      descGpa: this.#pages.gpa + this.layout.descOffset,
      driverGpa: this.#pages.gpa + this.layout.availOffset,
      deviceGpa: this.#pages.gpa + this.layout.usedOffset,
    };
    this.#tables = options.indirect ? new IndirectTables(this.layout.sizeBytes, size) : null;
    this.#inOrder = options.inOrder ? new InOrderBatch(size) : null;
    this.#next = Uint16Array.from({ length: size }, (_, i) => (i + 1) & (size - 1));
    this.#chainLength = new Uint16Array(size);
    this.#freeCount = size;
  }

  get freeCount(): number {
    return this.#freeCount;
  }

  /** The driver's `avail.idx`. */
  get availIndex(): number {
    return this.#availIndex;
  }

  addChain(chain: Chain): number {
    const outCount = chain.out?.length ?? 0;
    const count = outCount + (chain.in?.length ?? 0);
    if (!isChain(chain)) return Errno.EINVAL;
    const table = this.#tables?.fits(count) === true ? this.#tables : null;
    if ((table ? 1 : count) > this.#freeCount) return Errno.ENOSPC;
    const head = this.#freeHead;
    if (table) {
      const offset = table.take(head);
      this.#writeChain(chain, outCount, count, offset);
      const gpa = this.#pages.gpa + offset;
      this.#writeDesc(head * DESC_BYTES, gpa, count * Desc.sizeBytes, DescFlag.INDIRECT, 0);
      this.#publish(head, 1, this.#next[head]!);
    } else {
      this.#publish(head, count, this.#writeChain(chain, outCount, count, -1));
    }
    this.#inOrder?.added(head, chain);
    this.#pages.flush();
    return head;
  }

  addSingle(gpa: Gpa, lengthBytes: number, writable: boolean): number {
    if (this.#freeCount === 0) return Errno.ENOSPC;
    const head = this.#freeHead;
    this.#writeDesc(head * DESC_BYTES, gpa, lengthBytes, writable ? DescFlag.WRITE : 0, 0);
    this.#publish(head, 1, this.#next[head]!);
    if (this.#inOrder !== null) this.#inOrder.addedSingle(head, writable ? lengthBytes : 0);
    return head;
  }

  getUsed(): number {
    if (this.#inOrder?.isActive) return this.#nextOfBatch(this.#inOrder);
    const { view, layout, size } = this;
    const usedIndex = view.getUint16(layout.usedOffset + USED_IDX, true);
    while (this.#lastUsedIndex !== usedIndex) {
      const slot = this.#lastUsedIndex & (size - 1);
      const at = layout.usedOffset + USED_RING + slot * ELEM_BYTES;
      const head = view.getUint32(at + USED_ID, true);
      if (head < size && this.#chainLength[head] !== 0) {
        const usedBytes = view.getUint32(at + USED_LEN, true);
        if (this.#inOrder) {
          this.#inOrder.begin(head, usedBytes, (usedIndex - this.#lastUsedIndex) & U16_MASK);
          return this.#nextOfBatch(this.#inOrder);
        }
        this.usedBytes = usedBytes;
        this.#moveLastUsed();
        this.#release(head);
        return head;
      }
      this.#moveLastUsed();
      this.badUsedCount++;
    }
    if (this.#eventIdx) this.#pages.flush();
    return NO_HEAD;
  }

  isOutstanding(head: number): boolean {
    return head < this.size && this.#chainLength[head] !== 0;
  }

  flushTouched(): void {
    this.#pages.flush();
  }

  kickNeeded(): boolean {
    const { view, layout } = this;
    const before = this.#kickedIndex;
    this.#kickedIndex = this.#availIndex;
    if (!this.#eventIdx) {
      const flags = view.getUint16(layout.usedOffset + UsedHeader.offsets.flags, true);
      return (flags & UsedFlag.NO_NOTIFY) === 0;
    }
    const availEvent = view.getUint16(layout.availEventOffset, true);
    return needsEvent(availEvent, this.#availIndex, before);
  }

  disableCallbacks(): void {
    this.#callbacksEnabled = false;
    if (this.#eventIdx) this.#writeUsedEvent(this.#lastUsedIndex + NEVER);
    else this.#writeAvailFlags(AvailFlag.NO_INTERRUPT);
    this.#pages.flush();
  }

  enableCallbacks(): boolean {
    this.#callbacksEnabled = true;
    if (this.#eventIdx) this.#writeUsedEvent(this.#lastUsedIndex);
    else this.#writeAvailFlags(0);
    this.#pages.flush();
    if (this.#inOrder?.isActive) return false;
    const { view, layout } = this;
    const usedIndex = view.getUint16(layout.usedOffset + USED_IDX, true);
    return usedIndex === this.#lastUsedIndex;
  }

  /**
   * Write all segments: into the table at `tableOffset`, or from the free head on if that is −1.
   * Returns the free descriptor after the last one.
   */
  #writeChain(chain: Chain, outCount: number, count: number, tableOffset: number): number {
    let id = this.#freeHead;
    for (let i = 0; i < count; i++) {
      const segment = segmentOf(chain, i);
      const isLast = i + 1 === count;
      const flags = (i < outCount ? 0 : DescFlag.WRITE) | (isLast ? 0 : DescFlag.NEXT);
      const isDirect = tableOffset < 0;
      const next = isDirect ? this.#next[id]! : i + 1;
      const at = isDirect ? id * DESC_BYTES : tableOffset + i * DESC_BYTES;
      this.#writeDesc(at, segment.gpa, segment.lengthBytes, flags, isLast ? 0 : next);
      if (isDirect) id = next;
    }
    return id;
  }

  /** The table is where the allocation begins, and the tables of chains lie in the same. */
  #writeDesc(at: number, gpa: Gpa, lengthBytes: number, flags: number, next: number): void {
    const { view } = this;
    writeLe64(view, at, gpa);
    view.setUint32(at + DESC_LEN, lengthBytes, true);
    view.setUint16(at + DESC_FLAGS, flags, true);
    view.setUint16(at + DESC_NEXT, next, true);
    this.#touched[at >>> PAGE_SHIFT] = 1;
  }

  #publish(head: number, count: number, nextFree: number): void {
    this.#chainLength[head] = count;
    this.#freeHead = nextFree;
    this.#freeCount -= count;
    const { view } = this;
    const { availOffset } = this.layout;
    const slot = availOffset + AVAIL_RING + (this.#availIndex & (this.size - 1)) * 2;
    view.setUint16(slot, head, true);
    this.#availIndex = (this.#availIndex + 1) & U16_MASK;
    // Ring entry first, index second: the device may look as soon as the index moves.
    view.setUint16(availOffset + AVAIL_IDX, this.#availIndex, true);
    this.#touched[slot >>> PAGE_SHIFT] = 1;
    this.#touched[availOffset >>> PAGE_SHIFT] = 1;
  }

  #writeAvailFlags(flags: number): void {
    const at = this.layout.availOffset + AvailHeader.offsets.flags;
    this.view.setUint16(at, flags, true);
    this.#touched[at >>> PAGE_SHIFT] = 1;
  }

  #writeUsedEvent(index: number): void {
    this.view.setUint16(this.layout.usedEventOffset, index & U16_MASK, true);
    this.#touched[this.layout.usedEventOffset >>> PAGE_SHIFT] = 1;
  }

  #moveLastUsed(): void {
    this.#lastUsedIndex = (this.#lastUsedIndex + 1) & U16_MASK;
    // The interrupt that the driver wants is the one for the entry it has not seen yet.
    if (this.#eventIdx && this.#callbacksEnabled) this.#writeUsedEvent(this.#lastUsedIndex);
  }

  #nextOfBatch(batch: InOrderBatch): number {
    const head = batch.next();
    this.usedBytes = batch.usedBytes;
    // The index says that fewer chains were used than the entry does.
    if (batch.cutShort) this.badUsedCount++;
    this.#moveLastUsed();
    this.#release(head);
    return head;
  }

  #release(head: number): void {
    const count = this.#chainLength[head]!;
    this.#chainLength[head] = 0;
    this.#tables?.release(head);
    this.#freeCount += count;
    assert(this.#freeCount <= this.size, 'free descriptors do not exceed the ring');
    // With IN_ORDER descriptors are taken in ring order for ever (§2.7.5).
    if (this.#inOrder) return;
    let tail = head;
    for (let i = 1; i < count; i++) tail = this.#next[tail]!;
    this.#next[tail] = this.#freeHead;
    this.#freeHead = head;
  }
}
