/** How fragmented free memory is: linux mm/vmstat.c, mm/compaction.c. */
import { NR_PAGE_ORDERS, PAGEBLOCK_ORDER } from './pages.ts';
import type { Zone } from './zone.ts';

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

/**
 * __fragmentation_index(): why an allocation of that order fails. Towards 0 for lack of memory,
 * towards 1000 because of fragmentation; −1000: it would not fail.
 */
export function fragmentationIndex(zone: Zone, order: number): number {
  let freePages = 0;
  let freeBlocks = 0;
  let suitableBlocks = 0;
  for (let o = 0; o < NR_PAGE_ORDERS; o++) {
    const blocks = zone.nrFree[o]!;
    freeBlocks += blocks;
    freePages += blocks << o;
    if (o >= order) suitableBlocks += blocks << (o - order);
  }
  if (freeBlocks === 0) return 0;
  if (suitableBlocks > 0) return -1000;
  const wanted = Math.floor((freePages * 1000) / (1 << order));
  return 1000 - Math.floor((1000 + wanted) / freeBlocks);
}
