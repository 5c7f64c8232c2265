/**
 * The migration bitmap of guest RAM (RAMBlock.bmap): initially all ones; `dirtyPages` always equals
 * the number of set bits.
 */
import { assert, type Bitmap, type Pfn } from '../../shared/index.ts';

export class DirtyBitmap {
  readonly bits: Bitmap;
  dirtyPages: number;
  /** `ram`: the frames that there are; a hole is never dirty. */
  constructor(ram: Bitmap) {
    this.bits = ram.clone();
    this.dirtyPages = ram.count();
  }

  /** Adds what the log says; returns how many pages became dirty. */
  sync(log: Bitmap): number {
    const added = this.bits.or(log);
    this.dirtyPages += added;
    return added;
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
