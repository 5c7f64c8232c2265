/**
 * The migration bitmap of guest RAM (RAMBlock.bmap) with its postponed log clears (clear_bmap):
 * initially all ones; `dirtyPages` always equals the number of set bits.
 */
import { assert, Bitmap, type Pfn } from '../../shared/index.ts';

/** 2^18 pages = 1 GiB: QEMU's default clear_bmap_shift. */
export const CLEAR_BITMAP_SHIFT = 18;

export class DirtyBitmap {
  readonly bits: Bitmap;
  dirtyPages: number;
  /** One bit per chunk whose log must be cleared before its next page is sent. */
  readonly #clearChunks: Bitmap;

  constructor(pageCount: number) {
    this.bits = new Bitmap(pageCount);
    this.bits.setAll();
    this.dirtyPages = pageCount;
    this.#clearChunks = new Bitmap(Math.ceil(pageCount / 2 ** CLEAR_BITMAP_SHIFT));
  }

  /** Adds what the log says; returns how many pages became dirty. */
  sync(log: Bitmap): number {
    const added = this.bits.or(log);
    this.dirtyPages += added;
    return added;
  }

  postponeClears(): void {
    this.#clearChunks.setAll();
  }

  /** The chunk of this page, if its log is still to be cleared; it counts as cleared then. */
  takeClear(pfn: Pfn): { pfn: Pfn; pageCount: number } | null {
    const chunk = pfn >>> CLEAR_BITMAP_SHIFT;
    if (!this.#clearChunks.get(chunk)) return null;
    this.#clearChunks.clear(chunk);
    const first = chunk * 2 ** CLEAR_BITMAP_SHIFT;
    return {
      pfn: first,
      pageCount: Math.min(2 ** CLEAR_BITMAP_SHIFT, this.bits.bitCount - first),
    };
  }

  clear(pfn: Pfn): void {
    assert(this.bits.get(pfn), 'a page that is taken from the bitmap was dirty');
    this.bits.clear(pfn);
    this.dirtyPages--;
  }
}
