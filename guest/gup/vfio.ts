/**
 * A VFIO container (linux drivers/vfio/vfio_iommu_type1.c): everything that is mapped for a device
 * is pinned for as long as the container is open.
 */
import { Errno } from '../../shared/index.ts';
import type { Kthread } from '../sched/kthread.ts';
import type { Gup, Pinnable } from './gup.ts';

/** VFIO_BATCH_MAX_CAPACITY: page pointers in a page. */
const BATCH_PAGES = 512;

export class VfioContainer {
  /** locked_vm */
  pinnedPages = 0;
  readonly #gup: Gup;
  readonly #batches: Int32Array[] = [];
  #isOpen = true;

  constructor(gup: Gup) {
    this.#gup = gup;
  }

  /**
   * VFIO_IOMMU_MAP_DMA of a range. An error, and nothing of the range is pinned: as of
   * `Gup.pinLongterm`, or ENOENT if the container was closed meanwhile.
   */
  *pinRange(source: Pinnable, start: number, pageCount: number): Kthread<Errno> {
    const batches: Int32Array[] = [];
    for (let done = 0; done < pageCount; ) {
      const batch = new Int32Array(Math.min(BATCH_PAGES, pageCount - done));
      let outcome = yield* this.#gup.pinLongterm(source, start + done, batch);
      if (outcome === Errno.OK) batches.push(batch);
      if (!this.#isOpen) outcome = Errno.ENOENT;
      if (outcome !== Errno.OK) {
        for (const pinned of batches) this.#gup.unpin(pinned, pinned.length);
        return outcome;
      }
      done += batch.length;
    }
    for (const batch of batches) this.#batches.push(batch);
    this.pinnedPages += pageCount;
    return Errno.OK;
  }

  close(): void {
    this.#isOpen = false;
    for (const batch of this.#batches.splice(0)) this.#gup.unpin(batch, batch.length);
    this.pinnedPages = 0;
  }
}
