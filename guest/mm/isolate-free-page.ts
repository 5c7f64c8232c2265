/**
 * Free blocks that somebody takes off the free lists without allocating them, and puts back
 * (linux mm/page_alloc.c): targets of compaction, and what is reported to the host. Such a block is
 * allocated and frozen, so that nobody else can take a reference to any of its pages.
 */
import { assert, type Pfn } from '../../shared/index.ts';
import { isMergeable, MigrateType } from './migratetype.ts';
import type { PageAllocator } from './page-allocator.ts';
import { PAGEBLOCK_NR_PAGES, PAGEBLOCK_ORDER, PageFlag, type PageOwner } from './pages.ts';
import { AllocFlag, type Zone } from './zone.ts';

/**
 * __isolate_free_page: takes the free block at a buddy head from its list, for `owner`. Returns its
 * pages, or 0 if the zone would fall below its minimum watermark.
 */
export function isolateFreePage(
  mm: PageAllocator,
  zone: Zone,
  head: Pfn,
  owner: PageOwner,
): number {
  const { pages, pageblocks, buddy } = mm;
  const order = pages.order[head]!;
  const type = pageblocks.typeOf(head);
  if (type !== MigrateType.ISOLATE) {
    const mark = zone.watermarkPages[AllocFlag.WMARK_MIN]! + (1 << order);
    if (!zone.watermarkOk(0, mark, 0, AllocFlag.CMA)) return 0;
  }
  buddy.takeExact(zone, head, head, order);
  pages.setFree(head, order, false);
  holdFrozen(mm, head, order, owner);
  if (order >= PAGEBLOCK_ORDER - 1) {
    for (let at = head; at < head + (1 << order); at += PAGEBLOCK_NR_PAGES) {
      if (isMergeable(pageblocks.typeOf(at))) pageblocks.setType(at, MigrateType.MOVABLE);
    }
  }
  return 1 << order;
}

/** __putback_isolated_page: the block is free again, at the tail of its list or as part of a larger one. */
export function putbackIsolatedPage(mm: PageAllocator, zone: Zone, pfn: Pfn, order: number): void {
  const { pages, pageblocks, buddy } = mm;
  assert(pages.refcount[pfn] === 0, 'what is put back was isolated and stayed frozen');
  pages.disown(pfn, order);
  pages.setFree(pfn, order, true);
  buddy.putback(zone, pfn, order, pageblocks.typeOf(pfn));
}

/** An allocated block that nobody can take a reference to. */
export function holdFrozen(mm: PageAllocator, pfn: Pfn, order: number, owner: PageOwner): void {
  const { pages } = mm;
  pages.flags[pfn] = PageFlag.ALLOCATED;
  pages.order[pfn] = order;
  pages.migratetype[pfn] = MigrateType.MOVABLE;
  pages.owner[pfn] = owner;
  pages.refcount[pfn] = 0;
  pages.mapping[pfn] = 0;
}
