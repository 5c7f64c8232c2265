/**
 * What compaction remembers of zones and pageblocks between runs: where its scanners stopped, how
 * often it failed, which pageblocks are not worth a visit (linux struct zone, PB_migrate_skip).
 */
import type { Pfn } from '../../shared/index.ts';
import {
  MigrateType,
  PAGEBLOCK_NR_PAGES,
  PAGEBLOCK_ORDER,
  type PageAllocator,
  PageFlag,
  type Zone,
} from '../mm/index.ts';

/** COMPACT_MAX_DEFER_SHIFT: at most 2^6 attempts are left out in a row. */
export const MAX_DEFER_SHIFT = 6;
/** A block is sampled at every eighth frame when it is to be found out whether it deserves a visit. */
const SAMPLE_PAGES = 8;

export class CompactZoneState {
  readonly zone: Zone;
  /** compact_cached_migrate_pfn of asynchronous and of synchronous runs. */
  readonly cachedMigratePfn: [async: Pfn, sync: Pfn];
  cachedFreePfn: Pfn;
  /** compact_init_migrate_pfn: a run that begins here or below has covered the whole zone. */
  initMigratePfn: Pfn;
  /** compact_blockskip_flush: the skip bits are to be cleared when kswapd goes to sleep. */
  blockskipFlush = false;
  /** compact_considered, compact_defer_shift, compact_order_failed. */
  considered = 0;
  deferShift = 0;
  orderFailed = 0;

  constructor(zone: Zone) {
    this.zone = zone;
    this.cachedMigratePfn = [zone.startPfn, zone.startPfn];
    this.cachedFreePfn = this.lastBlock;
    this.initMigratePfn = zone.startPfn;
  }

  /** First frame of the last pageblock. */
  get lastBlock(): Pfn {
    return (this.zone.endPfn - 1) & -PAGEBLOCK_NR_PAGES;
  }

  setCachedMigrate(pfn: Pfn): void {
    this.cachedMigratePfn[0] = pfn;
    this.cachedMigratePfn[1] = pfn;
  }

  /** reset_cached_positions */
  resetCursors(): void {
    this.setCachedMigrate(this.zone.startPfn);
    this.cachedFreePfn = this.lastBlock;
  }

  /** defer_compaction: after a run through all that there is, in vain. */
  defer(order: number): void {
    this.considered = 0;
    this.deferShift = Math.min(this.deferShift + 1, MAX_DEFER_SHIFT);
    if (order < this.orderFailed) this.orderFailed = order;
  }

  /** compaction_deferred: counts the attempt; true if it is to be left out. */
  isDeferred(order: number): boolean {
    const limit = 1 << this.deferShift;
    if (order < this.orderFailed) return false;
    if (++this.considered < limit) return true;
    this.considered = limit;
    return false;
  }

  /** compaction_defer_reset; `allocated`: the block that was wanted has been got, too. */
  resetDefer(order: number, allocated: boolean): void {
    if (allocated) {
      this.considered = 0;
      this.deferShift = 0;
    }
    if (order >= this.orderFailed) this.orderFailed = order + 1;
  }

  /** compaction_restarting: the first attempt after the longest deferral. */
  isRestarting(order: number): boolean {
    if (order < this.orderFailed) return false;
    return this.deferShift === MAX_DEFER_SHIFT && this.considered >= 1 << MAX_DEFER_SHIFT;
  }
}

/** PB_migrate_skip: one bit a pageblock. */
export class SkipBits {
  readonly #mm: PageAllocator;
  readonly #bits: Uint8Array;

  constructor(mm: PageAllocator) {
    this.#mm = mm;
    this.#bits = new Uint8Array(mm.pageblocks.types.length);
  }

  get(pfn: Pfn): boolean {
    return this.#bits[pfn >>> PAGEBLOCK_ORDER] === 1;
  }

  set(pfn: Pfn): void {
    this.#bits[pfn >>> PAGEBLOCK_ORDER] = 1;
  }

  /**
   * __reset_isolation_suitable: visits the blocks from both ends, clears the bits of those that look
   * as if there was something to take, and puts the cursors to the first of them on either side.
   */
  reset(state: CompactZoneState): void {
    const { zone } = state;
    state.blockskipFlush = false;
    let source = -1;
    let target = -1;
    let low: Pfn = zone.startPfn;
    let high: Pfn = state.lastBlock;
    for (; low <= high; low += PAGEBLOCK_NR_PAGES, high -= PAGEBLOCK_NR_PAGES) {
      if (this.#resetBlock(zone, low, true, source >= 0) && source < 0) source = low;
      if (this.#resetBlock(zone, high, target >= 0, true) && target < 0) target = high;
    }
    if (source >= 0 && target >= 0 && source < target) {
      state.initMigratePfn = source;
      state.setCachedMigrate(source);
      state.cachedFreePfn = target;
    } else {
      // Nothing to do: the next run finds that its scanners have met.
      state.setCachedMigrate(low);
      state.cachedFreePfn = high;
    }
  }

  /** __reset_isolation_pfn: true if the block is worth a visit. Movable pages off the LRU go unseen. */
  #resetBlock(zone: Zone, block: Pfn, asSource: boolean, asTarget: boolean): boolean {
    if (asSource && asTarget && !this.get(block)) return true;
    const { pages, pageblocks } = this.#mm;
    if (!asSource && pageblocks.typeOf(block) !== MigrateType.MOVABLE) return false;
    const sought = (asSource ? PageFlag.LRU : 0) | (asTarget ? PageFlag.BUDDY : 0);
    const end = Math.min(block + PAGEBLOCK_NR_PAGES, zone.endPfn);
    for (let pfn = block; pfn < end; pfn += SAMPLE_PAGES) {
      if (!pages.hasFlag(pfn, sought)) continue;
      this.#bits[block >>> PAGEBLOCK_ORDER] = 0;
      return true;
    }
    return false;
  }
}
