/**
 * Memory for indirect tables, behind the ring in the queue's own allocation. There are few of them:
 * a chain that finds none free, or needs a larger one, goes into the ring itself, as it does in
 * Linux when the allocation of a table fails.
 */
import { Desc, RingAlignment } from '../../protocol/index.ts';

/** As many as one report of free pages has segments (PAGE_REPORTING_CAPACITY of Linux). */
const TABLE_DESCS = 32;
const TABLE_BYTES = TABLE_DESCS * Desc.sizeBytes;
/** Together one page. */
const TABLE_COUNT = 8;
const NO_TABLE = -1;

export class IndirectTables {
  readonly #offset: number;
  readonly #maxDescs: number;
  readonly #free = Uint8Array.from({ length: TABLE_COUNT }, (_, i) => i);
  #freeCount = TABLE_COUNT;
  /** Table of each head, or −1. */
  readonly #tableOf: Int8Array;

  /** Bytes of a ring and of the tables behind it. */
  static sizeBytesAfter(ringBytes: number): number {
    return alignUp(ringBytes) + TABLE_COUNT * TABLE_BYTES;
  }

  /** `ringBytes`: the ring at the start of the allocation. */
  constructor(ringBytes: number, queueSize: number) {
    this.#offset = alignUp(ringBytes);
    // No chain may be longer than the queue, in a table or not (virtio 1.4 §2.7.5.3.1).
    this.#maxDescs = Math.min(TABLE_DESCS, queueSize);
    this.#tableOf = new Int8Array(queueSize).fill(NO_TABLE);
  }

  /** Whether a chain of this many descriptors would get a table now. */
  fits(descCount: number): boolean {
    return descCount > 1 && descCount <= this.#maxDescs && this.#freeCount > 0;
  }

  /** Offset of a table that belongs to `head` from now on; asked only after `fits`. */
  take(head: number): number {
    const table = this.#free[--this.#freeCount]!;
    this.#tableOf[head] = table;
    return this.#offset + table * TABLE_BYTES;
  }

  /** The chain came back: its table, if it had one, is free again. */
  release(head: number): void {
    const table = this.#tableOf[head]!;
    if (table === NO_TABLE) return;
    this.#tableOf[head] = NO_TABLE;
    this.#free[this.#freeCount++] = table;
  }
}

function alignUp(offset: number): number {
  return Math.ceil(offset / RingAlignment.DESC) * RingAlignment.DESC;
}
