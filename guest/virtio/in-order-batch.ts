/**
 * IN_ORDER on the driver's side: which chains are outstanding, in order, and the batch of them that
 * one used entry stands for. The entry names the last chain; those before it count as used
 * completely (virtio 1.4 §2.7.9, §2.8.8).
 */
import type { Chain } from './queue.ts';

export class InOrderBatch {
  /** Outstanding heads and the writable bytes of each, as a ring. */
  readonly #heads: Uint16Array;
  readonly #writableBytes: Float64Array;
  #oldest = 0;
  #count = 0;
  #lastHead = 0;
  #lastBytes = 0;
  /** Entries left of the batch, at most. */
  #left = 0;
  /** Bytes the device wrote into the chain that `next` returned last. */
  usedBytes = 0;
  /** The batch ended before the chain that it was to end with. */
  cutShort = false;

  constructor(size: number) {
    this.#heads = new Uint16Array(size);
    this.#writableBytes = new Float64Array(size);
  }

  /** There is a batch under way. */
  get isActive(): boolean {
    return this.#left > 0;
  }

  added(head: number, chain: Chain): void {
    let bytes = 0;
    for (const { lengthBytes } of chain.in ?? []) bytes += lengthBytes;
    this.addedSingle(head, bytes);
  }

  addedSingle(head: number, writableBytes: number): void {
    const at = (this.#oldest + this.#count++) % this.#heads.length;
    this.#heads[at] = head;
    this.#writableBytes[at] = writableBytes;
  }

  /** A used entry names the outstanding `head`; the device moved on by `entries` at most. */
  begin(head: number, usedBytes: number, entries: number): void {
    this.#lastHead = head;
    this.#lastBytes = usedBytes;
    this.#left = entries;
    this.cutShort = false;
  }

  /** The next chain of the batch. */
  next(): number {
    const head = this.#heads[this.#oldest]!;
    const isLast = head === this.#lastHead;
    this.usedBytes = isLast ? this.#lastBytes : this.#writableBytes[this.#oldest]!;
    this.#oldest = (this.#oldest + 1) % this.#heads.length;
    this.#count--;
    this.#left = isLast ? 0 : this.#left - 1;
    this.cutShort = !isLast && this.#left === 0;
    return head;
  }
}
