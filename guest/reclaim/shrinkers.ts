/** Caches of the kernel that give pages back under pressure (linux mm/shrinker.c). */
import type { MmVmstat } from '../mm/vmstat.ts';

/** Whatever costs two seeks to make again. */
const DEFAULT_SEEKS = 2;
/** SHRINK_BATCH */
const BATCH_OBJECTS = 128;

export interface Shrinker {
  readonly name: string;
  /** Objects that could be freed, in pages here. */
  count(): number;
  /** Frees about so many of them; returns how many it has freed, 0: no more for now. */
  scan(nr: number): number;
}

export class Shrinkers {
  readonly #vmstat: MmVmstat;
  readonly #shrinkers: { readonly shrinker: Shrinker; deferred: number }[] = [];

  constructor(vmstat: MmVmstat) {
    this.#vmstat = vmstat;
  }

  register(shrinker: Shrinker): void {
    this.#shrinkers.push({ shrinker, deferred: 0 });
  }

  /** shrink_slab: asks each for its share at that priority (12 … 0); returns the pages freed. */
  shrink(priority: number): number {
    let freed = 0;
    for (const entry of this.#shrinkers) {
      const { shrinker } = entry;
      const freeable = shrinker.count();
      const share = ((freeable >> priority) * 4) / DEFAULT_SEEKS;
      let left = Math.min(entry.deferred + share, 2 * freeable);
      // Less than a batch is not worth asking for, unless it is all there is.
      while (left >= Math.min(BATCH_OBJECTS, freeable) && left > 0) {
        const batch = Math.min(BATCH_OBJECTS, left);
        const done = shrinker.scan(batch);
        if (done === 0) break;
        this.#vmstat.slabs_scanned += batch;
        freed += done;
        left -= batch;
      }
      entry.deferred = left;
    }
    return freed;
  }
}
