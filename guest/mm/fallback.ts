/**
 * Fallback between migrate types (Linux 6.1 mm/page_alloc.c: __rmqueue_fallback,
 * steal_suitable_fallback) and the high-order atomic reserve. Watermark boosting is not modelled.
 */

import type { Pfn } from '../../shared/index.ts';
import type { FreeLists } from './free-lists.ts';
import { FALLBACKS, isMergeable, MigrateType } from './migratetype.ts';
import { MAX_PAGE_ORDER, PAGEBLOCK_NR_PAGES, PAGEBLOCK_ORDER, type Pages } from './pages.ts';
import { freeListIndex, type Pageblocks, type Zone } from './zone.ts';

/** What stealing needs of the buddy lists. */
interface FreeMemory {
  readonly pages: Pages;
  readonly pageblocks: Pageblocks;
  readonly lists: FreeLists;
  movePageblock(
    zone: Zone,
    pfn: Pfn,
    type: MigrateType,
    visitUsed?: (head: Pfn, pageCount: number) => void,
  ): number;
}

/**
 * Moves memory of another type onto the lists of `wanted`, so that a retry finds it. Largest
 * blocks first, since one large theft fragments less than many small ones; false if there is none.
 */
export function stealFallback(
  buddy: FreeMemory,
  zone: Zone,
  order: number,
  minOrder: number,
  wanted: MigrateType,
): boolean {
  for (let current = MAX_PAGE_ORDER; current >= minOrder; current--) {
    const victim = findFallback(zone, current, wanted);
    if (victim < 0) continue;
    const stealsBlock = canStealPageblock(current, wanted);
    // A movable request that cannot claim the pageblock breaks up the smallest block instead.
    if (!stealsBlock && wanted === MigrateType.MOVABLE && current > order) {
      return stealSmallest(buddy, zone, order, wanted);
    }
    steal(buddy, zone, buddy.lists.first(zone, current, victim), wanted, stealsBlock);
    return true;
  }
  return false;
}

function stealSmallest(buddy: FreeMemory, zone: Zone, order: number, wanted: MigrateType): boolean {
  for (let current = order; current <= MAX_PAGE_ORDER; current++) {
    const victim = findFallback(zone, current, wanted);
    if (victim < 0) continue;
    const pfn = buddy.lists.first(zone, current, victim);
    steal(buddy, zone, pfn, wanted, canStealPageblock(current, wanted));
    return true;
  }
  return false;
}

function findFallback(zone: Zone, order: number, wanted: MigrateType): number {
  if (zone.nrFree[order] === 0) return -1;
  for (const type of FALLBACKS[wanted]!) {
    if (zone.nrFreeByList[freeListIndex(order, type)]! > 0) return type;
  }
  return -1;
}

/** find_suitable_fallback(only_stealable): whether a block of that order can be had from another type. */
export function canStealBlock(zone: Zone, order: number, wanted: MigrateType): boolean {
  return findFallback(zone, order, wanted) >= 0 && canStealPageblock(order, wanted);
}

/** can_steal_fallback: half of a pageblock's order, or a type whose pages cannot move away later. */
function canStealPageblock(order: number, wanted: MigrateType): boolean {
  return order >= PAGEBLOCK_ORDER >> 1 || wanted !== MigrateType.MOVABLE;
}

function steal(
  buddy: FreeMemory,
  zone: Zone,
  pfn: Pfn,
  wanted: MigrateType,
  stealsBlock: boolean,
): void {
  const { pages, pageblocks, lists } = buddy;
  const order = pages.order[pfn]!;
  const oldType = pageblocks.typeOf(pfn);
  if (oldType !== MigrateType.HIGHATOMIC) {
    if (order >= PAGEBLOCK_ORDER) {
      for (let at = pfn; at < pfn + (1 << order); at += PAGEBLOCK_NR_PAGES) {
        pageblocks.setType(at, wanted);
      }
    } else if (stealsBlock) {
      if (convertPageblock(buddy, zone, pfn, oldType, wanted)) return;
    }
  }
  // Only this block: unless moving the pageblock's free memory took it along already.
  if (pages.migratetype[pfn] !== wanted) lists.move(zone, pfn, wanted);
}

/** Takes the pageblock's free memory; its type too, when half of it is free or of a like kind. */
function convertPageblock(
  buddy: FreeMemory,
  zone: Zone,
  pfn: Pfn,
  oldType: MigrateType,
  wanted: MigrateType,
): boolean {
  let movablePages = 0;
  const freePages = buddy.movePageblock(zone, pfn, wanted, (head, pageCount) => {
    if (buddy.pages.migratetype[head] === MigrateType.MOVABLE) movablePages += pageCount;
  });
  if (freePages === 0) return false;
  let alikePages = 0;
  if (wanted === MigrateType.MOVABLE) alikePages = movablePages;
  else if (oldType === MigrateType.MOVABLE) {
    // What is neither free nor movable there is as good as of the wanted kind.
    alikePages = PAGEBLOCK_NR_PAGES - (freePages + movablePages);
  }
  if (freePages + alikePages >= PAGEBLOCK_NR_PAGES >> 1) buddy.pageblocks.setType(pfn, wanted);
  return true;
}

/** reserve_highatomic_pageblock: at most 1 % of the zone and one pageblock. */
export function reserveHighatomic(buddy: FreeMemory, zone: Zone, pfn: Pfn): void {
  const maxPages = Math.floor(zone.managedPages / 100) + PAGEBLOCK_NR_PAGES;
  if (zone.reservedHighatomicPages >= maxPages) return;
  if (!isMergeable(buddy.pageblocks.typeOf(pfn))) return;
  zone.reservedHighatomicPages += PAGEBLOCK_NR_PAGES;
  buddy.pageblocks.setType(pfn, MigrateType.HIGHATOMIC);
  buddy.movePageblock(zone, pfn, MigrateType.HIGHATOMIC);
}

/** unreserve_highatomic_pageblock: gives one reserved pageblock to `wanted`; false if there is none. */
export function unreserveHighatomic(buddy: FreeMemory, zone: Zone, wanted: MigrateType): boolean {
  for (let order = 0; order <= MAX_PAGE_ORDER; order++) {
    const pfn = buddy.lists.first(zone, order, MigrateType.HIGHATOMIC);
    if (pfn < 0) continue;
    if (buddy.pageblocks.typeOf(pfn) === MigrateType.HIGHATOMIC) {
      zone.reservedHighatomicPages -= Math.min(PAGEBLOCK_NR_PAGES, zone.reservedHighatomicPages);
    }
    buddy.pageblocks.setType(pfn, wanted);
    if (buddy.movePageblock(zone, pfn, wanted) === 0) buddy.lists.move(zone, pfn, wanted);
    return true;
  }
  return false;
}
