/** What the device is about to discard: gathered over one notification, posted as one message. */
import { type Message, u32Bytes } from '../../protocol/index.ts';
import type { Bitmap, Pfn } from '../../shared/index.ts';
import type { BalloonMetrics } from './metrics.ts';
import { RangeBuilder } from './range-builder.ts';

export interface DiscardHooks {
  post(message: Message): void;
  /** True: nothing must be discarded now (another user relies on the backing). */
  discardInhibited?(): boolean;
}

export class Discards {
  readonly entered = new RangeBuilder();
  readonly #ram: Bitmap;
  readonly #ramPageCount: number;
  readonly #metrics: BalloonMetrics;
  readonly #hooks: DiscardHooks;

  constructor(ram: Bitmap, metrics: BalloonMetrics, hooks: DiscardHooks) {
    this.#ram = ram;
    this.#ramPageCount = ram.count();
    this.#metrics = metrics;
    this.#hooks = hooks;
  }

  get isInhibited(): boolean {
    return this.#hooks.discardInhibited?.() ?? false;
  }

  /** Whether each of these frames holds RAM. */
  isRam(first: Pfn, end: Pfn): boolean {
    if (end > this.#ram.bitCount) return false;
    if (this.#ramPageCount === this.#ram.bitCount) return true;
    return this.#ram.nextClear(first) >= end;
  }

  /** What of these frames holds RAM. */
  addRange(first: Pfn, end: Pfn): void {
    // One message names no more pages than there are; a driver may name a page many times.
    if (this.entered.pageCount + end - first > this.#ramPageCount) this.flush();
    if (this.#ramPageCount === this.#ram.bitCount) {
      this.entered.addRange(first, Math.min(end, this.#ramPageCount) - first);
      return;
    }
    for (let pfn = this.#ram.nextSet(first); pfn >= 0 && pfn < end; ) {
      const stop = Math.min(this.#ram.nextClear(pfn), end);
      this.entered.addRange(pfn, stop - pfn);
      pfn = this.#ram.nextSet(stop);
    }
  }

  flush(): void {
    const pages = this.entered.pageCount;
    const ranges = this.entered.take();
    if (ranges === null) return;
    if (this.isInhibited) {
      this.#metrics.inhibited_discards += pages;
      return;
    }
    this.#metrics.discarded_pages += pages;
    this.#hooks.post({ name: 'discard', ranges: u32Bytes(ranges) });
  }

  forget(): void {
    this.entered.take();
  }
}
