/** Allocated pages and the end of their references: the shared ground of LRU, migration and users. */
import { assert, type Pfn } from '../../shared/index.ts';
import { type PageAllocator, PageFlag, PageOwner, type Pages } from '../mm/index.ts';
import { Lruvec } from './lruvec.ts';
import { Mappings } from './mappings.ts';
import { PageLocks } from './page-lock.ts';

export class Folios {
  readonly mm: PageAllocator;
  readonly pages: Pages;
  readonly lruvec: Lruvec;
  readonly locks: PageLocks;
  readonly mappings: Mappings;
  /** num_poisoned_pages */
  poisonedPages = 0;

  constructor(mm: PageAllocator) {
    this.mm = mm;
    this.pages = mm.pages;
    this.lruvec = new Lruvec(mm.pages);
    this.locks = new PageLocks(mm.pages);
    this.mappings = new Mappings(mm.pages);
  }

  /** folio_put: drops a reference; the last one frees the page. True: it was the last. */
  put(pfn: Pfn, cpu = 0): boolean {
    const { pages } = this;
    if (!pages.putTestZero(pfn)) return false;
    if (pages.hasFlag(pfn, PageFlag.LRU)) this.lruvec.remove(pfn);
    this.freeFrozen(pfn, cpu);
    return true;
  }

  /** Frees a page whose count is 0 and which is on no list: free_frozen_pages. */
  freeFrozen(pfn: Pfn, cpu = 0): void {
    const { pages } = this;
    assert(pages.refcount[pfn] === 0, 'what is freed has no references');
    // Poison outlives its user: the frame stays allocated for ever.
    if (pages.hasFlag(pfn, PageFlag.HWPOISON)) pages.setOwner(pfn, PageOwner.POISONED);
    else this.mm.free(pfn, pages.order[pfn]!, cpu);
  }

  /** folio_mark_accessed: two uses make an inactive page active. */
  markAccessed(pfn: Pfn): void {
    const { pages } = this;
    if (pages.testAndSet(pfn, PageFlag.REFERENCED)) return;
    if (pages.hasFlag(pfn, PageFlag.ACTIVE) || !pages.hasFlag(pfn, PageFlag.LRU)) return;
    pages.clearFlag(pfn, PageFlag.REFERENCED);
    this.lruvec.setActive(pfn, true);
    this.mm.vmstat.pgactivate++;
  }

  /** folio_putback_lru: an isolated page goes back to its list, and the isolation's reference is dropped. */
  putbackLru(pfn: Pfn): void {
    this.lruvec.uncountIsolated(pfn);
    this.lruvec.add(pfn);
    this.put(pfn);
  }
}
