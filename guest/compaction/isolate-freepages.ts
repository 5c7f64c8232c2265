/**
 * The free scanner: free pages near the top of the zone, for the migrate scanner's pages to go to
 * (isolate_freepages and its parts, linux mm/compaction.c). Plain code: it takes the zone lock in
 * Linux, and nothing may get between.
 */
import type { Pfn } from '../../shared/index.ts';
import { MigrateType, PAGEBLOCK_NR_PAGES, PAGEBLOCK_ORDER, PageFlag } from '../mm/index.ts';
import { MigrateMode } from '../page-migration/index.ts';
import type { CompactContext } from './compact-context.ts';
import { blockStart, COMPACT_CLUSTER_MAX, type CompactControl } from './compact-control.ts';
import { isolateTarget } from './free-pages.ts';

export class FreeScanner {
  readonly #context: CompactContext;

  constructor(context: CompactContext) {
    this.#context = context;
  }

  /** Fills `cc.freePages` for the pages that are to be moved, as far as there is something. */
  isolate(cc: CompactControl): void {
    this.#fastIsolate(cc);
    if (cc.freePages.pageCount > 0) return;
    const low = blockStart(cc.migratePfn) + PAGEBLOCK_NR_PAGES;
    let stride = cc.mode === MigrateMode.ASYNC ? COMPACT_CLUSTER_MAX : 1;
    let start = cc.freePfn;
    for (let block = blockStart(start); block >= low; block -= PAGEBLOCK_NR_PAGES, start = block) {
      if (!this.#isSuitableTarget(cc, block)) continue;
      if (!this.#context.isolationSuitable(cc, block)) continue;
      const end = Math.min(block + PAGEBLOCK_NR_PAGES, cc.zone.endPfn);
      const before = cc.freePages.pageCount;
      start = this.#isolateBlock(cc, start, end, stride);
      if (start >= end) this.#updateSkip(cc, block);
      if (cc.freePages.pageCount >= cc.nrMigratePages) {
        if (start >= end) start = block - PAGEBLOCK_NR_PAGES;
        break;
      }
      // The watermark has stopped it.
      if (start < end) break;
      if (cc.freePages.pageCount > before) stride = 1;
      else stride = Math.min(COMPACT_CLUSTER_MAX, stride << 1);
    }
    cc.freePfn = start;
  }

  /**
   * isolate_freepages_block: free blocks from `start` on until there is one for each page that is to
   * be moved. Returns where it stopped.
   */
  #isolateBlock(cc: CompactControl, start: Pfn, end: Pfn, stride: number): Pfn {
    const { mm, pages } = this.#context.folios;
    const { flags, order } = pages;
    const { freePages } = cc;
    let isolated = 0;
    let scanned = 0;
    let visited = 0;
    let at = start;
    for (; at < end; at += stride) {
      scanned++;
      visited++;
      const word = flags[at]!;
      if ((word & PageFlag.BUDDY) === 0) {
        if (word === 0 || order[at] === 0) continue;
        // The tails of a compound page.
        scanned += (1 << order[at]!) - 1;
        at += (1 << order[at]!) - 1;
        continue;
      }
      const pageCount = isolateTarget(mm, cc.zone, at);
      if (pageCount === 0) break;
      freePages.add(at, order[at]!);
      scanned += pageCount - 1;
      isolated += pageCount;
      if (freePages.pageCount >= cc.nrMigratePages) {
        at += pageCount;
        break;
      }
      at += pageCount - 1;
    }
    this.#count(cc, scanned, visited, isolated);
    return Math.min(at, end);
  }

  #count(cc: CompactControl, scanned: number, visited: number, isolated: number): void {
    const { kernel } = this.#context;
    cc.totalFreeScanned += scanned;
    cc.owedNs += visited * kernel.costs.scanPfnNs;
    kernel.mm.vmstat.compact_isolated += isolated;
  }

  /** suitable_migration_target: a large free block is what compaction is for, not its prey. */
  #isSuitableTarget(cc: CompactControl, block: Pfn): boolean {
    const { mm, pages } = this.#context.folios;
    const wanted = cc.order > 0 ? cc.order : PAGEBLOCK_ORDER;
    const isFree = pages.hasFlag(block, PageFlag.BUDDY);
    if (isFree && pages.order[block]! >= wanted) return false;
    if (cc.ignoreBlockSuitable) return true;
    const type = mm.pageblocks.typeOf(block);
    return type === MigrateType.MOVABLE || type === MigrateType.CMA;
  }

  /** update_pageblock_skip: the block is exhausted. */
  #updateSkip(cc: CompactControl, block: Pfn): void {
    if (cc.noSetSkipHint) return;
    this.#context.skip.set(block);
    const state = this.#context.stateOf(cc.zone);
    const next = block - PAGEBLOCK_NR_PAGES;
    if (next < state.cachedFreePfn) state.cachedFreePfn = next;
  }

  /**
   * fast_isolate_freepages: a frame from the free lists in the top quarter of what is between the
   * scanners, else in the top half, and what is free around it. Searches from the order below the
   * wanted one downwards; without the rotation of lists, and a search that finds nothing leaves the
   * free scanner where it is.
   */
  #fastIsolate(cc: CompactControl): void {
    if (cc.order <= 0) return;
    const { mm, pages } = this.#context.folios;
    const { kernel } = this.#context;
    const distance = cc.freePfn - cc.migratePfn;
    const above = blockStart(cc.migratePfn) + PAGEBLOCK_NR_PAGES;
    const min = Math.max(blockStart(cc.freePfn - (distance >> 1)), above);
    const low = Math.max(blockStart(cc.freePfn - (distance >> 2)), min);
    let limit = cc.freelistScanLimit;
    let scanned = 0;
    let found = -1;
    for (let order = cc.order - 1; order >= 0 && found < 0 && limit > 0; order--) {
      const search = this.#searchList(cc, order, low, min, limit);
      scanned += search.scanned;
      found = search.pfn;
      if (search.scanned >= limit) limit >>= 1;
    }
    this.#count(cc, scanned, scanned, 0);
    if (found < 0) {
      cc.fastSearchFail++;
      return;
    }
    cc.fastSearchFail = 0;
    const pageCount = isolateTarget(mm, cc.zone, found);
    if (pageCount === 0) return;
    cc.freePages.add(found, pages.order[found]!);
    kernel.mm.vmstat.compact_isolated += pageCount;
    this.#isolateAround(cc, found);
  }

  /** One free list, youngest last: a frame from `low` up, or the highest one from `min` up. */
  #searchList(
    cc: CompactControl,
    order: number,
    low: Pfn,
    min: Pfn,
    limit: number,
  ): { pfn: Pfn; scanned: number } {
    const { mm, pages } = this.#context.folios;
    const head = mm.freeLists.headOf(cc.zone, order, MigrateType.MOVABLE);
    let scanned = 0;
    let highest = -1;
    for (let pfn = pages.prev[head]!; pfn !== head && scanned < limit; pfn = pages.prev[pfn]!) {
      scanned++;
      // Beyond the free scanner's block there may be what this run has made free.
      if (blockStart(pfn) > blockStart(cc.freePfn)) continue;
      if (pfn >= low) return { pfn, scanned };
      if (pfn >= min && pfn > highest) highest = pfn;
    }
    return { pfn: highest, scanned };
  }

  /** fast_isolate_around */
  #isolateAround(cc: CompactControl, pfn: Pfn): void {
    if (cc.freePages.pageCount >= cc.nrMigratePages) return;
    if (cc.direct && cc.mode === MigrateMode.ASYNC) return;
    const block = Math.max(blockStart(pfn), cc.zone.startPfn);
    const end = Math.min(blockStart(pfn) + PAGEBLOCK_NR_PAGES, cc.zone.endPfn);
    const stopped = this.#isolateBlock(cc, block, end, 1);
    if (stopped >= end && !cc.noSetSkipHint) this.#context.skip.set(block);
  }
}
