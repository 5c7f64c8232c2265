/**
 * The migration bitmap of guest RAM (RAMBlock.bmap) with its postponed log clears (clear_bmap):
 * initially all ones; `dirtyPages` always equals the number of set bits.
 */
import { assert, Bitmap, type Pfn } from '../../shared/index.ts';

/** 2^18 pages = 1 GiB: QEMU's default clear_bmap_shift. */
export const CLEAR_BITMAP_SHIFT = 18;
const CHUNK_PAGES = 2 ** CLEAR_BITMAP_SHIFT;

export class DirtyBitmap {
  readonly bits: Bitmap;
  dirtyPages: number;
  /** One bit per chunk whose log must be cleared before its next page is sent. */
  readonly #clearChunks: Bitmap;
  /** The log as the last sync found it. */
  #syncedLog: Bitmap | null = null;

  /** `ram`: the frames that there are; a hole is never dirty. */
  constructor(ram: Bitmap) {
    this.bits = ram.clone();
    this.dirtyPages = ram.count();
    this.#clearChunks = new Bitmap(Math.ceil(ram.bitCount / CHUNK_PAGES));
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
    const last = (first + pageCount - 1) >>> CLEAR_BITMAP_SHIFT;
    for (let chunk = first >>> CLEAR_BITMAP_SHIFT; chunk <= last; chunk++) {
      if (!this.#clearChunks.get(chunk)) continue;
      this.#clearChunks.clear(chunk);
      const firstByte = (chunk * CHUNK_PAGES) / 8;
      const bits = log.bytes.subarray(firstByte, firstByte + CHUNK_PAGES / 8);
      taken.push({ firstPfn: chunk * CHUNK_PAGES, bits });
    }
    return taken;
  }

  clear(pfn: Pfn): void {
    assert(this.bits.get(pfn), 'a page that is taken from the bitmap was dirty');
    this.bits.clear(pfn);
    this.dirtyPages--;
  }
}
