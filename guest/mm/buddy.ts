/**
 * The buddy allocator of Linux 6.1 (mm/page_alloc.c: __free_one_page, expand, __rmqueue): where a
 * block is placed, when blocks merge, and which block an allocation takes.
 */

import type { Pfn } from '../../shared/index.ts';
import { stealFallback } from './fallback.ts';
import { FreeLists } from './free-lists.ts';
import { isMergeable, MigrateType } from './migratetype.ts';
import {
  MAX_PAGE_ORDER,
  PAGEBLOCK_NR_PAGES,
  PAGEBLOCK_ORDER,
  PageFlag,
  type Pages,
} from './pages.ts';
import { AllocFlag, type Pageblocks, type Zone } from './zone.ts';

export class Buddy {
  readonly pages: Pages;
  readonly pageblocks: Pageblocks;
  readonly lists: FreeLists;
  /** page_reporting_notify_free: sees the order of each block that a free results in. */
  onFree: ((order: number) => void) | null = null;

  constructor(pages: Pages, pageblocks: Pageblocks) {
    this.pages = pages;
    this.pageblocks = pageblocks;
    this.lists = new FreeLists(pages);
  }

  /**
   * __free_one_page: merges upwards and inserts. `toTail` asks for the tail; otherwise the head,
   * unless the block will probably merge soon and is better left alone.
   */
  free(zone: Zone, pfn: Pfn, order: number, migratetype: number, toTail = false): void {
    const merged = this.#merge(zone, pfn, order, migratetype, toTail);
    if (this.onFree !== null) this.onFree(merged);
  }

  /** __putback_isolated_page: to the tail, and no news to anybody. */
  putback(zone: Zone, pfn: Pfn, order: number, migratetype: number): void {
    this.#merge(zone, pfn, order, migratetype, true);
  }

  /** Returns the order of the block that is on a list now. */
  #merge(zone: Zone, pfn: Pfn, order: number, migratetype: number, toTail: boolean): number {
    const { lists } = this;
    let head = pfn;
    let merged = order;
    // A block that is freed during a walk owes it nothing; what it merges with may.
    let pending = false;
    while (merged < MAX_PAGE_ORDER) {
      const buddy = head ^ (1 << merged);
      if (!this.#isBuddy(buddy, merged)) break;
      if (merged >= PAGEBLOCK_ORDER && !this.#mayMerge(migratetype, buddy)) break;
      pending ||= lists.isPending(buddy);
      lists.remove(zone, buddy);
      head &= buddy;
      merged++;
    }
    lists.add(
      zone,
      head,
      merged,
      migratetype,
      toTail || this.#mergeIsLikely(head, merged),
      pending,
    );
    return merged;
  }

  /**
   * __rmqueue: the smallest block of the type, then CMA for movable requests, then a steal from
   * another type. The result is a block of nobody. −1 if there is none.
   */
  take(zone: Zone, order: number, migratetype: MigrateType, allocFlags: number): Pfn {
    const mayUseCma = (allocFlags & AllocFlag.CMA) !== 0;
    // Balances the movable load, so that CMA is not the last memory left.
    if (mayUseCma && zone.freeCmaPages > zone.freePages >> 1) {
      const pfn = this.takeSmallest(zone, order, MigrateType.CMA);
      if (pfn >= 0) return pfn;
    }
    for (;;) {
      let pfn = this.takeSmallest(zone, order, migratetype);
      if (pfn < 0 && mayUseCma) pfn = this.takeSmallest(zone, order, MigrateType.CMA);
      if (pfn >= 0) return pfn;
      const minOrder = (allocFlags & AllocFlag.NOFRAGMENT) !== 0 ? PAGEBLOCK_ORDER : order;
      if (!stealFallback(this, zone, order, minOrder, migratetype)) return -1;
    }
  }

  /** __rmqueue_smallest: one list type only. */
  takeSmallest(zone: Zone, order: number, migratetype: MigrateType): Pfn {
    for (let current = order; current <= MAX_PAGE_ORDER; current++) {
      if (zone.nrFree[current] === 0) continue;
      const pfn = this.lists.first(zone, current, migratetype);
      if (pfn < 0) continue;
      this.takeExact(zone, pfn, pfn, order);
      return pfn;
    }
    return -1;
  }

  /** Takes the aligned block at `pfn` out of the free block at `head`; the rest stays free. */
  takeExact(zone: Zone, head: Pfn, pfn: Pfn, order: number): void {
    const { lists, pages } = this;
    const migratetype = pages.migratetype[head]!;
    const pending = lists.isPending(head);
    let high = pages.order[head]!;
    let start = head;
    lists.remove(zone, head);
    while (high > order) {
      high--;
      const upper = start + (1 << high);
      if (pfn < upper) {
        lists.add(zone, upper, high, migratetype, false, pending);
      } else {
        lists.add(zone, start, high, migratetype, false, pending);
        start = upper;
      }
    }
  }

  /**
   * move_freepages_block: all free blocks of a pageblock go to the lists of a type. Returns the
   * free pages moved; `onAllocated` sees the allocated blocks (head, pages within the pageblock).
   */
  movePageblock(
    zone: Zone,
    pfn: Pfn,
    migratetype: MigrateType,
    onAllocated?: (head: Pfn, pageCount: number) => void,
  ): number {
    const { pages, lists } = this;
    const start = Math.max(pfn & -PAGEBLOCK_NR_PAGES, zone.startPfn);
    const end = Math.min((pfn & -PAGEBLOCK_NR_PAGES) + PAGEBLOCK_NR_PAGES, zone.endPfn);
    let movedPages = 0;
    let at = start;
    while (at < end) {
      const flags = pages.flags[at]!;
      // Inside a block whose head is in the pageblock below: nothing here is a head.
      if (flags === 0) return movedPages;
      const pageCount = 1 << pages.order[at]!;
      if ((flags & PageFlag.BUDDY) !== 0) {
        lists.move(zone, at, migratetype);
        movedPages += pageCount;
      } else if ((flags & PageFlag.ALLOCATED) !== 0) {
        onAllocated?.(at, Math.min(pageCount, end - at));
      }
      at += pageCount;
    }
    return movedPages;
  }

  #isBuddy(pfn: Pfn, order: number): boolean {
    return (this.pages.flags[pfn]! & PageFlag.BUDDY) !== 0 && this.pages.order[pfn] === order;
  }

  #mayMerge(migratetype: number, buddy: Pfn): boolean {
    const other = this.pageblocks.typeOf(buddy);
    return migratetype === other || (isMergeable(migratetype) && isMergeable(other));
  }

  /** buddy_merge_likely: the buddy of the next larger block is free and waits for this one. */
  #mergeIsLikely(pfn: Pfn, order: number): boolean {
    if (order >= MAX_PAGE_ORDER - 1) return false;
    const parent = pfn & ~(1 << order);
    return this.#isBuddy(parent ^ (1 << (order + 1)), order + 1);
  }
}
