/** How fragmented free memory is, and who can help: linux mm/vmstat.c, mm/compaction.c. */
import type { Pfn } from '../../shared/index.ts';
import { NR_PAGE_ORDERS, PAGEBLOCK_ORDER } from './pages.ts';
import type { Zone } from './zone.ts';

/** Who knows which frames may be moved, and must hear of it when one was. */
export interface MovablePages {
  isMovable(pfn: Pfn): boolean;
  /** Copies the page, and from now on means `to` where it meant `from`. */
  move(from: Pfn, to: Pfn): void;
}

/** extfrag_for_order(COMPACTION_HPAGE_ORDER): per cent of free memory in blocks that are too small. */
export function fragmentationScore(zone: Zone): number {
  let freePages = 0;
  let suitablePages = 0;
  for (let order = 0; order < NR_PAGE_ORDERS; order++) {
    const pages = zone.nrFree[order]! << order;
    freePages += pages;
    if (order >= PAGEBLOCK_ORDER) suitablePages += pages;
  }
  return freePages === 0 ? 0 : Math.floor(((freePages - suitablePages) * 100) / freePages);
}
