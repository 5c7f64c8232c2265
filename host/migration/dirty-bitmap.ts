/**
 * The migration bitmap of guest RAM (RAMBlock.bmap) with its postponed log clears (clear_bmap):
 * initially all ones; `dirtyPages` always equals the number of set bits.
 */
import { assert, Bitmap, type Pfn } from '../../shared/index.ts';

/** 2^18 pages = 1 GiB: QEMU's default clear_bmap_shift. */
export const CLEAR_BITMAP_SHIFT = 18;
/** 64 pages, as KVM_CLEAR_DIRTY_LOG wants it. */
const CLEAR_BITMAP_SHIFT_MIN = 6;

export class DirtyBitmap {
  readonly bits: Bitmap;
  dirtyPages: number;
  /** One bit per chunk whose log must be cleared before its next page is sent. */
  readonly #clearChunks: Bitmap;
  readonly #clearShift: number;
  /** The log as the last sync found it. */
  #syncedLog: Bitmap | null = null;

  /** `ram`: the frames that there are; a hole is never dirty. Chunks have 2^clearShift pages. */
  constructor(ram: Bitmap, clearShift: number = CLEAR_BITMAP_SHIFT) {
    assert(clearShift >= CLEAR_BITMAP_SHIFT_MIN, 'a chunk of the log is whole words');
    this.#clearShift = clearShift;
    this.bits = ram.clone();
    this.dirtyPages = ram.count();
    this.#clearChunks = new Bitmap(Math.ceil(ram.bitCount / 2 ** clearShift));
  }

  /** Adds what the log says; returns how many pages became dirty. */
  sync(log: Bitmap): number {
    const added = this.bits.or(log);
    this.dirtyPages += added;
    return added;
  }

  /** After a sync that did not clear: every chunk's log is cleared when it is first touched. */
  postponeClears(log: Bitmap): void {
    this.#syncedLog = log;
    this.#clearChunks.setAll();
  }

  /**
   * The chunks that these pages touch and whose log is still to be cleared; they count as cleared
   * then. Only what the sync has seen may be cleared: a later write keeps its bit.
   */
  takeClears(first: Pfn, pageCount: number): { firstPfn: Pfn; bits: Uint8Array }[] {
    const log = this.#syncedLog;
    if (!log || pageCount === 0) return [];
    const taken: { firstPfn: Pfn; bits: Uint8Array }[] = [];
    const chunkPages = 2 ** this.#clearShift;
    const last = (first + pageCount - 1) >>> this.#clearShift;
    for (let chunk = first >>> this.#clearShift; chunk <= last; chunk++) {
      if (!this.#clearChunks.get(chunk)) continue;
      this.#clearChunks.clear(chunk);
      const firstByte = (chunk * chunkPages) / 8;
      const bits = log.bytes.subarray(firstByte, firstByte + chunkPages / 8);
      taken.push({ firstPfn: chunk * chunkPages, bits });
    }
    return taken;
  }

  clear(pfn: Pfn): void {
    assert(this.bits.get(pfn), 'a page that is taken from the bitmap was dirty');
    this.bits.clear(pfn);
    this.dirtyPages--;
  }

  /** Those of `pages` that are dirty are so no more. */
  clearAll(pages: Bitmap): void {
    for (let pfn = pages.nextSet(0); pfn >= 0; pfn = pages.nextSet(pfn + 1)) {
      if (this.bits.get(pfn)) this.clear(pfn);
    }
  }
}
