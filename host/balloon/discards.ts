/**
 * What the device is about to discard: gathered over one notification, posted as one message, in
 * which each page is named once, however often the driver named it.
 */
import { type Message, u32Bytes } from '../../protocol/index.ts';
import { Bitmap, type Pfn } from '../../shared/index.ts';
import type { BalloonMetrics } from './metrics.ts';
import { RangeBuilder } from './range-builder.ts';

export interface DiscardHooks {
  post(message: Message): void;
  /** True: nothing must be discarded now (another user relies on the backing). */
  discardInhibited?(): boolean;
}

export class Discards {
  /** For who names no page twice; everybody else calls `addRange`. */
  readonly entered = new RangeBuilder();
  /** Pages that `addRange` has entered since the last flush. */
  #named: Bitmap | null = null;
  readonly #ram: Bitmap;
  readonly #ramPageCount: number;
  readonly #metrics: BalloonMetrics;
  readonly #hooks: DiscardHooks;
  readonly #isInhibited: boolean;

  constructor(ram: Bitmap, metrics: BalloonMetrics, hooks: DiscardHooks, isInhibited = false) {
    this.#isInhibited = isInhibited;
    this.#ram = ram;
    this.#ramPageCount = ram.count();
    this.#metrics = metrics;
    this.#hooks = hooks;
  }

  get isInhibited(): boolean {
    return this.#isInhibited || (this.#hooks.discardInhibited?.() ?? false);
  }

  /** Whether each of these frames holds RAM. */
  isRam(first: Pfn, end: Pfn): boolean {
    if (end > this.#ram.bitCount) return false;
    if (this.#ramPageCount === this.#ram.bitCount) return true;
    return this.#ram.nextClear(first) >= end;
  }

  /** What of these frames holds RAM. */
  addRange(first: Pfn, end: Pfn): void {
    if (this.#ramPageCount === this.#ram.bitCount) {
      this.#addRam(first, Math.min(end, this.#ramPageCount));
      return;
    }
    for (let pfn = this.#ram.nextSet(first); pfn >= 0 && pfn < end; ) {
      const stop = Math.min(this.#ram.nextClear(pfn), end);
      this.#addRam(pfn, stop);
      pfn = this.#ram.nextSet(stop);
    }
  }

  #addRam(first: Pfn, end: Pfn): void {
    if (first >= end) return;
    this.#named ??= new Bitmap(this.#ram.bitCount);
    const named = this.#named;
    if (named.countRange(first, end - first) === 0) {
      this.#enter(first, end, named);
      return;
    }
    for (let pfn = named.nextClear(first); pfn < end; ) {
      const next = named.nextSet(pfn, end);
      const stop = next < 0 ? end : next;
      this.#enter(pfn, stop, named);
      pfn = named.nextClear(stop);
    }
  }

  #enter(first: Pfn, end: Pfn, named: Bitmap): void {
    named.setRange(first, end - first);
    this.entered.addRange(first, end - first);
  }

  flush(): void {
    const pages = this.entered.pageCount;
    const ranges = this.#take();
    if (ranges === null) return;
    if (this.isInhibited) {
      this.#metrics.inhibited_discards += pages;
      return;
    }
    this.#metrics.discarded_pages += pages;
    this.#hooks.post({ name: 'discard', ranges: u32Bytes(ranges) });
  }

  forget(): void {
    this.#take();
  }

  #take(): Uint32Array | null {
    const ranges = this.entered.take();
    if (ranges === null || this.#named === null) return ranges;
    for (let i = 0; i < ranges.length; i += 2) this.#named.clearRange(ranges[i]!, ranges[i + 1]!);
    return ranges;
  }
}
