/**
 * Free blocks that a run has isolated as targets: cc->freepages, one first-in-first-out list an
 * order, through page->lru. Nobody else knows these blocks: allocated, frozen, on no list of the mm.
 */
import { assert, type Pfn } from '../../shared/index.ts';
import {
  Gfp,
  holdFrozen,
  isolateFreePage,
  MAX_PAGE_ORDER,
  type PageAllocator,
  PageOwner,
  type Zone,
} from '../mm/index.ts';

const NR_ORDERS = MAX_PAGE_ORDER + 1;

/** The free block at a buddy head, for a run. Returns its pages, or 0: see `isolateFreePage`. */
export function isolateTarget(mm: PageAllocator, zone: Zone, head: Pfn): number {
  return isolateFreePage(mm, zone, head, PageOwner.COMPACTION);
}

export class FreePages {
  /** nr_freepages: pages on all lists. */
  pageCount = 0;
  readonly #mm: PageAllocator;
  readonly #first = new Int32Array(NR_ORDERS).fill(-1);
  readonly #last = new Int32Array(NR_ORDERS).fill(-1);

  constructor(mm: PageAllocator) {
    this.#mm = mm;
  }

  /** Appends a block that `isolateTarget` has taken. */
  add(pfn: Pfn, order: number): void {
    const { next } = this.#mm.pages;
    const last = this.#last[order]!;
    if (last < 0) this.#first[order] = pfn;
    else next[last] = pfn;
    next[pfn] = -1;
    this.#last[order] = pfn;
    this.pageCount += 1 << order;
  }

  /** The oldest block of the smallest order that suffices, split to size and with one reference, or −1. */
  take(order: number): Pfn {
    let high = order;
    while (high < NR_ORDERS && this.#first[high]! < 0) high++;
    if (high === NR_ORDERS) return -1;
    const pfn = this.#shift(high);
    while (high > order) {
      high--;
      const upper = pfn + (1 << high);
      holdFrozen(this.#mm, upper, high, PageOwner.COMPACTION);
      this.#unshift(upper, high);
    }
    this.#mm.claimIsolated(pfn, order, Gfp.GFP_HIGHUSER_MOVABLE);
    return pfn;
  }

  /** compaction_free: takes back a block that was not needed, unless somebody still refers to it. */
  giveBack(pfn: Pfn): void {
    const { pages } = this.#mm;
    if (!pages.putTestZero(pfn)) return;
    const order = pages.order[pfn]!;
    holdFrozen(this.#mm, pfn, order, PageOwner.COMPACTION);
    this.#unshift(pfn, order);
  }

  /** release_free_list: everything is free again. Returns the highest frame among it, or −1. */
  release(cpu: number): Pfn {
    let highest = -1;
    for (let order = 0; order < NR_ORDERS; order++) {
      while (this.#first[order]! >= 0) {
        const pfn = this.#shift(order);
        if (pfn > highest) highest = pfn;
        this.#mm.free(pfn, order, cpu);
      }
    }
    assert(this.pageCount === 0, 'the lists of isolated free pages are as long as counted');
    return highest;
  }

  #shift(order: number): Pfn {
    const pfn = this.#first[order]!;
    const next = this.#mm.pages.next[pfn]!;
    this.#first[order] = next;
    if (next < 0) this.#last[order] = -1;
    this.pageCount -= 1 << order;
    return pfn;
  }

  #unshift(pfn: Pfn, order: number): void {
    const first = this.#first[order]!;
    this.#mm.pages.next[pfn] = first;
    this.#first[order] = pfn;
    if (first < 0) this.#last[order] = pfn;
    this.pageCount += 1 << order;
  }
}
