/**
 * Pages that were sent with content in vain. Of each pass: sent in it with content, and free both when
 * it began and when it was over, so that a hint at its beginning would have spared them. A page that
 * was wasted in two passes counts twice.
 */
import { Bitmap, type Pfn } from '../../shared/index.ts';

export class Waste {
  readonly #sent: Bitmap;
  #freeAtStart: Bitmap | null = null;
  #pages = 0;

  constructor(pageCount: number) {
    this.#sent = new Bitmap(pageCount);
  }

  /** A pass begins with these free pages; the one before is over. */
  passStarted(free: Bitmap): void {
    this.#pages = this.pagesUntil(free);
    this.#freeAtStart = free;
    this.#sent.clearAll();
  }

  sentWithContent(pfn: Pfn): void {
    this.#sent.set(pfn);
  }

  /** All passes, if the present one were over with these free pages. */
  pagesUntil(free: Bitmap): number {
    if (!this.#freeAtStart) return this.#pages;
    const vain = this.#sent.clone();
    vain.and(this.#freeAtStart);
    return this.#pages + vain.countAnd(free);
  }
}
