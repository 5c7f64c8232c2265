/**
 * Driver side of a packed virtqueue in guest memory (virtio 1.4 §2.8). Of what the device writes
 * only the next used descriptor is read, and only its buffer id, length and flags; how many
 * descriptors a buffer has is kept in driver memory.
 */
import {
  DESC_EVENT_WRAP,
  DescFlag,
  EventSuppress,
  PackedDesc,
  PackedDescFlag,
  type PackedRingLayout,
  packedRingLayout,
  passesEvent,
  RING_EVENT_FLAGS_MASK,
  RingEventFlags,
  writeLe64,
} from '../../protocol/index.ts';
import { assert, Errno, type Gpa, PAGE_SHIFT } from '../../shared/index.ts';
import { InOrderBatch } from './in-order-batch.ts';
import { IndirectTables } from './indirect-tables.ts';
import {
  type Chain,
  type DriverQueue,
  isChain,
  type QueueAreas,
  type Segment,
  segmentOf,
} from './queue.ts';
import type { RingOptions } from './ring-features.ts';
import { RingPages, type RingPlace } from './ring-pages.ts';

const NO_HEAD = -1;
const { AVAIL, USED } = PackedDescFlag;
// Names of their own: in the hot path each look into a table counts.
const DESC_BYTES = PackedDesc.sizeBytes;
const { len: DESC_LEN, id: DESC_ID, flags: DESC_FLAGS } = PackedDesc.offsets;

export class PackedQueue implements DriverQueue {
  readonly index: number;
  readonly size: number;
  readonly layout: PackedRingLayout;
  readonly areas: QueueAreas;
  readonly view: DataView;
  readonly #eventIdx: boolean;
  readonly #pages: RingPages;
  readonly #touched: Uint8Array;
  readonly #tables: IndirectTables | null;
  readonly #inOrder: InOrderBatch | null;
  /** Free buffer ids, each leading to the next. */
  readonly #nextId: Uint16Array;
  #freeId = 0;
  /** Descriptors of the ring that the buffer of this id has; 0: the id is free. */
  readonly #chainLength: Uint16Array;
  #freeCount: number;
  /** Where the next descriptor is made available, and its AVAIL and USED as the wrap counter says. */
  #nextAvail = 0;
  #availFlags: number = AVAIL;
  #addedSinceKick = 0;
  /** Where the next used descriptor appears, and its AVAIL and USED as the wrap counter says. */
  #nextUsed = 0;
  #usedFlags: number = AVAIL | USED;
  #callbacksEnabled = true;
  /** The device used what was never made available: where to look next is not known. */
  #broken = false;
  usedBytes = 0;
  badUsedCount = 0;

  /** Bytes of contiguous memory that a ring of `size` descriptors takes. */
  static sizeBytes(size: number, options: RingOptions): number {
    const { sizeBytes } = packedRingLayout(size);
    return options.indirect ? IndirectTables.sizeBytesAfter(sizeBytes) : sizeBytes;
  }

  constructor(index: number, size: number, options: RingOptions, place: RingPlace) {
    this.index = index;
    this.size = size;
    this.layout = packedRingLayout(size);
    this.#eventIdx = options.eventIdx;
    this.#pages = new RingPages(place, PackedQueue.sizeBytes(size, options));
    this.view = this.#pages.view;
    this.#touched = this.#pages.touched;
    this.areas = {
      descGpa: this.#pages.gpa + this.layout.descOffset,
      driverGpa: this.#pages.gpa + this.layout.driverOffset,
      deviceGpa: this.#pages.gpa + this.layout.deviceOffset,
    };
    this.#tables = options.indirect ? new IndirectTables(this.layout.sizeBytes, size) : null;
    this.#inOrder = options.inOrder ? new InOrderBatch(size) : null;
    this.#nextId = Uint16Array.from({ length: size }, (_, i) => (i + 1) % size);
    this.#chainLength = new Uint16Array(size);
    this.#freeCount = size;
    // Of the first used descriptor the driver wants to hear.
    if (options.eventIdx) this.#writeEvent();
  }

  get freeCount(): number {
    return this.#freeCount;
  }

  addChain(chain: Chain): number {
    const count = (chain.out?.length ?? 0) + (chain.in?.length ?? 0);
    if (!isChain(chain)) return Errno.EINVAL;
    const table = this.#tables?.fits(count) === true ? this.#tables : null;
    const ringDescs = table ? 1 : count;
    if (ringDescs > this.#freeCount) return Errno.ENOSPC;
    const id = this.#freeId;
    if (table) this.#writeTable(chain, count, id, table.take(id));
    else this.#writeChain(chain, count, id);
    this.#inOrder?.added(id, chain);
    this.#advanceAvail(id, ringDescs);
    this.#pages.flush();
    return id;
  }

  addSingle(gpa: Gpa, lengthBytes: number, writable: boolean): number {
    if (this.#freeCount === 0) return Errno.ENOSPC;
    const id = this.#freeId;
    const flags = (writable ? DescFlag.WRITE : 0) | this.#availFlags;
    this.#writeDesc(this.#nextAvail * DESC_BYTES, gpa, lengthBytes, id, flags);
    this.#inOrder?.addedSingle(id, writable ? lengthBytes : 0);
    this.#advanceAvail(id, 1);
    return id;
  }

  getUsed(): number {
    if (this.#inOrder?.isActive) return this.#nextOfBatch(this.#inOrder);
    const { view } = this;
    const at = this.#nextUsed * DESC_BYTES;
    const flags = view.getUint16(at + DESC_FLAGS, true);
    if ((flags & (AVAIL | USED)) !== this.#usedFlags || this.#broken) {
      if (this.#eventIdx) this.#pages.flush();
      return NO_HEAD;
    }
    const id = view.getUint16(at + DESC_ID, true);
    if (!this.isOutstanding(id)) {
      this.badUsedCount++;
      this.#broken = true;
      return NO_HEAD;
    }
    // Without WRITE the device wrote nothing, and the length means nothing (§2.8.5).
    const wrote = (flags & DescFlag.WRITE) !== 0;
    const usedBytes = wrote ? view.getUint32(at + DESC_LEN, true) : 0;
    if (this.#inOrder) {
      this.#inOrder.begin(id, usedBytes, this.size);
      return this.#nextOfBatch(this.#inOrder);
    }
    this.usedBytes = usedBytes;
    this.#release(id);
    return id;
  }

  isOutstanding(head: number): boolean {
    return head < this.size && this.#chainLength[head] !== 0;
  }

  flushTouched(): void {
    this.#pages.flush();
  }

  kickNeeded(): boolean {
    const at = this.layout.deviceOffset;
    const flags = this.view.getUint16(at + EventSuppress.offsets.flags, true);
    const added = this.#addedSinceKick;
    this.#addedSinceKick = 0;
    const mode = flags & RING_EVENT_FLAGS_MASK;
    if (mode !== RingEventFlags.DESC || !this.#eventIdx) {
      return mode !== RingEventFlags.DISABLE;
    }
    const desc = this.view.getUint16(at + EventSuppress.offsets.desc, true);
    const wrap = this.#availFlags === AVAIL;
    return passesEvent(desc, this.#nextAvail, wrap, added, this.size);
  }

  disableCallbacks(): void {
    this.#callbacksEnabled = false;
    this.#writeEventFlags(RingEventFlags.DISABLE);
    this.#pages.flush();
  }

  enableCallbacks(): boolean {
    this.#callbacksEnabled = true;
    if (this.#eventIdx) this.#writeEvent();
    else this.#writeEventFlags(RingEventFlags.ENABLE);
    this.#pages.flush();
    if (this.#inOrder?.isActive) return false;
    const at = this.#nextUsed * DESC_BYTES + DESC_FLAGS;
    return (this.view.getUint16(at, true) & (AVAIL | USED)) !== this.#usedFlags;
  }

  /** All segments into the ring; the first one's flags last, which make the whole list available. */
  #writeChain(chain: Chain, count: number, id: number): void {
    const outCount = chain.out?.length ?? 0;
    let position = this.#nextAvail;
    let wrapFlags = this.#availFlags;
    let firstFlags = 0;
    for (let i = 0; i < count; i++) {
      const { gpa, lengthBytes } = segmentOf(chain, i);
      const flags =
        (i < outCount ? 0 : DescFlag.WRITE) | (i + 1 < count ? DescFlag.NEXT : 0) | wrapFlags;
      const at = position * DESC_BYTES;
      if (i === 0) {
        firstFlags = flags;
        // What is there says used or never available, and stays so until the rest is written.
        this.#writeBody(at, gpa, lengthBytes, id);
      } else this.#writeDesc(at, gpa, lengthBytes, id, flags);
      if (++position === this.size) {
        position = 0;
        wrapFlags ^= AVAIL | USED;
      }
    }
    const at = this.#nextAvail * DESC_BYTES;
    this.view.setUint16(at + DESC_FLAGS, firstFlags, true);
  }

  /** In a table only WRITE means anything: its descriptors are one list in their order (§2.8.7). */
  #writeTable(chain: Chain, count: number, id: number, tableOffset: number): void {
    const outCount = chain.out?.length ?? 0;
    for (let i = 0; i < count; i++) {
      const segment: Segment = segmentOf(chain, i);
      const at = tableOffset + i * DESC_BYTES;
      const flags = i < outCount ? 0 : DescFlag.WRITE;
      this.#writeDesc(at, segment.gpa, segment.lengthBytes, 0, flags);
    }
    const at = this.#nextAvail * DESC_BYTES;
    const flags = DescFlag.INDIRECT | this.#availFlags;
    this.#writeDesc(at, this.#pages.gpa + tableOffset, count * DESC_BYTES, id, flags);
  }

  /** Flags last: they expose the descriptor. */
  #writeDesc(at: number, gpa: Gpa, lengthBytes: number, id: number, flags: number): void {
    this.#writeBody(at, gpa, lengthBytes, id);
    this.view.setUint16(at + DESC_FLAGS, flags, true);
  }

  #writeBody(at: number, gpa: Gpa, lengthBytes: number, id: number): void {
    const { view } = this;
    writeLe64(view, at, gpa);
    view.setUint32(at + DESC_LEN, lengthBytes, true);
    view.setUint16(at + DESC_ID, id, true);
    this.#touched[at >>> PAGE_SHIFT] = 1;
  }

  #advanceAvail(id: number, ringDescs: number): void {
    this.#freeId = this.#nextId[id]!;
    this.#chainLength[id] = ringDescs;
    this.#freeCount -= ringDescs;
    this.#addedSinceKick += ringDescs;
    this.#nextAvail += ringDescs;
    if (this.#nextAvail < this.size) return;
    this.#nextAvail -= this.size;
    this.#availFlags ^= AVAIL | USED;
  }

  #nextOfBatch(batch: InOrderBatch): number {
    const id = batch.next();
    this.usedBytes = batch.usedBytes;
    this.#release(id);
    return id;
  }

  #release(id: number): void {
    const ringDescs = this.#chainLength[id]!;
    this.#chainLength[id] = 0;
    this.#tables?.release(id);
    this.#nextId[id] = this.#freeId;
    this.#freeId = id;
    this.#freeCount += ringDescs;
    assert(this.#freeCount <= this.size, 'free descriptors do not exceed the ring');
    this.#nextUsed += ringDescs;
    if (this.#nextUsed >= this.size) {
      this.#nextUsed -= this.size;
      this.#usedFlags ^= AVAIL | USED;
    }
    if (this.#eventIdx && this.#callbacksEnabled) this.#writeEvent();
  }

  /** The interrupt that the driver wants is the one for the descriptor it has not seen yet. */
  #writeEvent(): void {
    const wrap = this.#usedFlags === 0 ? 0 : DESC_EVENT_WRAP;
    const at = this.layout.driverOffset + EventSuppress.offsets.desc;
    this.view.setUint16(at, this.#nextUsed | wrap, true);
    this.#writeEventFlags(RingEventFlags.DESC);
  }

  #writeEventFlags(flags: number): void {
    const at = this.layout.driverOffset + EventSuppress.offsets.flags;
    this.view.setUint16(at, flags, true);
    this.#touched[at >>> PAGE_SHIFT] = 1;
  }
}
