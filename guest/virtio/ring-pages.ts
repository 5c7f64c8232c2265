/**
 * The frames that a driver's ring lies in: one physically contiguous, byte-backed allocation, and
 * which of its frames have changed since the machine was told.
 */
import { assert, type Gpa, type Pfn, pfnToGpa } from '../../shared/index.ts';

/** The byte-backed memory that a ring lives in (guest/machine/ram.ts). */
export interface RingMemory {
  bytesOf(pfn: Pfn, pageCount: number): Uint8Array;
  touchBytes(pfn: Pfn, pageCount?: number): void;
}

export interface RingPlace {
  readonly memory: RingMemory;
  /** First of `pageCount` contiguous zeroed frames. */
  readonly pfn: Pfn;
  readonly pageCount: number;
}

export class RingPages {
  readonly view: DataView;
  readonly gpa: Gpa;
  readonly #place: RingPlace;
  /** Set to 1 for each frame of which a byte was changed through `view`. */
  readonly touched: Uint8Array;

  /** `sizeBytes`: what the ring needs of the place. */
  constructor(place: RingPlace, sizeBytes: number) {
    const bytes = place.memory.bytesOf(place.pfn, place.pageCount);
    assert(sizeBytes <= bytes.length, 'the ring fits its allocation');
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.gpa = pfnToGpa(place.pfn);
    this.#place = place;
    this.touched = new Uint8Array(place.pageCount);
  }

  /** Tell the machine which frames changed: their dirty-log bits and content tags. */
  flush(): void {
    for (let i = 0; i < this.touched.length; i++) {
      if (this.touched[i] === 0) continue;
      this.touched[i] = 0;
      this.#place.memory.touchBytes(this.#place.pfn + i);
    }
  }
}
