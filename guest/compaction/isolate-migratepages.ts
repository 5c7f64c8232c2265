/**
 * The migrate scanner within one pageblock: isolate_migratepages_block of linux mm/compaction.c.
 * The numbers at the checks are those of docs/compaction.md; their order is Linux's. Scanning is
 * plain code; it returns to the coroutine around it for what may wait.
 */
import { Errno, type Pfn } from '../../shared/index.ts';
import { Gfp, PAGEBLOCK_NR_PAGES, PAGEBLOCK_ORDER, PageFlag } from '../mm/index.ts';
import { MigrateMode } from '../page-migration/index.ts';
import { type Kthread, preempt } from '../sched/kthread.ts';
import type { CompactContext } from './compact-context.ts';
import { COMPACT_CLUSTER_MAX, type CompactControl } from './compact-control.ts';

/** reclaim_throttle(VMSCAN_THROTTLE_ISOLATED) waits so long: HZ / 50. */
const THROTTLE_NS = 20_000_000;
const BEFORE_CLEAR_LRU = preempt('isolate_migratepages_block: before folio_test_clear_lru');
const COND_RESCHED = preempt('isolate_migratepages_block: cond_resched');

/** Why the plain scan has come back. */
const Stop = {
  /** End of the block, of a cluster, or of a chunk with something in it. */
  END: 0,
  /** A page of a driver with movable_operations. */
  MOVABLE: 1,
  /** An LRU page that has passed all checks, where somebody else may get ahead. */
  LRU: 2,
  /** A page that cannot move, in a chunk of which something is isolated already. */
  CHUNK: 3,
  LRUVEC_LOCK: 4,
  RESCHED: 5,
} as const;
type Stop = (typeof Stop)[keyof typeof Stop];

/** Pages with none of these end at step 6. */
const CANDIDATE = PageFlag.BUDDY | PageFlag.LRU | PageFlag.MOVABLE;

/** One call for one block. */
interface BlockScan {
  low: Pfn;
  readonly end: Pfn;
  /** Asynchronous direct compaction: a chunk with a page that cannot move is of no use. */
  readonly skipOnFailure: boolean;
  /** End of the present chunk. */
  nextSkip: Pfn;
  /** Start of the pageblock if the scan has been there, else −1. */
  validBlock: Pfn;
  skipUpdated: boolean;
  /** Frames passed, frames looked at one by one, pages isolated. */
  scanned: number;
  visited: number;
  isolated: number;
}

export class MigrateScanner {
  readonly #context: CompactContext;

  constructor(context: CompactContext) {
    this.#context = context;
  }

  /**
   * Isolates what can be moved in `lowPfn` … `endPfn`−1, a part of one pageblock, and leaves
   * `cc.migratePfn` where it stopped. EAGAIN: too many pages are isolated already.
   */
  *isolateBlock(cc: CompactControl, lowPfn: Pfn, endPfn: Pfn): Kthread<Errno> {
    const throttled = yield* this.#throttle(cc);
    if (throttled !== Errno.OK) return throttled;
    const skipOnFailure = cc.direct && cc.mode === MigrateMode.ASYNC;
    const scan: BlockScan = {
      low: lowPfn,
      end: endPfn,
      skipOnFailure,
      nextSkip: skipOnFailure ? chunkEnd(lowPfn, cc.order) : 0,
      validBlock: -1,
      skipUpdated: false,
      scanned: 0,
      visited: 0,
      isolated: 0,
    };
    for (;;) {
      const stop = this.#scan(cc, scan);
      if (stop === Stop.END) break;
      if (stop === Stop.MOVABLE) yield* this.#isolateMovable(cc, scan);
      else if (stop === Stop.LRU) yield* this.#isolateSlowly(cc, scan);
      else if (stop === Stop.CHUNK) yield* this.#giveUpChunk(cc, scan);
      else if (stop === Stop.LRUVEC_LOCK) yield* this.#waitForLruvec(cc);
      else yield COND_RESCHED;
      if (scan.isolated > 0 && isClusterFull(cc)) break;
    }
    this.#finish(cc, scan);
    yield* this.#context.pay(cc);
    return Errno.OK;
  }

  /** Step 0, too_many_isolated: half of the LRU is away; less if the caller may enter file systems. */
  *#throttle(cc: CompactControl): Kthread<Errno> {
    const { lruvec } = this.#context.folios;
    const shift = (cc.gfp & Gfp.__GFP_FS) !== 0 ? 4 : 1;
    for (;;) {
      const isolatedPages = lruvec.isolatedAnonPages + lruvec.isolatedFilePages;
      if (isolatedPages <= lruvec.evictablePages >> shift) return Errno.OK;
      if (cc.nrMigratePages > 0 || cc.mode === MigrateMode.ASYNC) return Errno.EAGAIN;
      yield { kind: 'sleep', ns: THROTTLE_NS };
    }
  }

  /** Plain code from `scan.low` to the next thing that is not. */
  #scan(cc: CompactControl, scan: BlockScan): Stop {
    const { folios, kernel } = this.#context;
    const { flags, order } = folios.pages;
    while (scan.low < scan.end) {
      const pfn = scan.low;
      if (scan.skipOnFailure && pfn >= scan.nextSkip) {
        if (scan.isolated > 0) return Stop.END;
        scan.nextSkip = chunkEnd(pfn, cc.order);
      }
      if (scan.validBlock < 0 && isBlockStart(cc, pfn) && !this.#enterBlock(cc, scan)) break;
      const word = flags[pfn]!;
      if ((word & PageFlag.BUDDY) !== 0) {
        // 4. Read without the zone lock in Linux, which must therefore doubt the order.
        advance(scan, 1 << order[pfn]!);
        continue;
      }
      let failedPages = 1;
      if (word !== 0 && order[pfn]! > 0 && isTooLarge(cc, order[pfn]!)) {
        failedPages = 1 << order[pfn]!; // 5.
      } else if ((word & CANDIDATE) === 0) {
        if (!scan.skipOnFailure) failedPages = this.#immobileRun(scan); // 6.
      } else if ((word & PageFlag.LRU) === 0) {
        if ((word & PageFlag.ISOLATED) === 0) return Stop.MOVABLE; // 6.
      } else if (this.#passes(cc, pfn, word)) {
        if (folios.lruvec.lock.isHeld) return Stop.LRUVEC_LOCK;
        if (kernel.isExplored) return Stop.LRU;
        failedPages = this.#take(cc, scan) ? 0 : 1;
        if (failedPages === 0 && isClusterFull(cc)) return Stop.END;
      }
      if (failedPages > 0 && this.#fail(cc, scan, failedPages)) return Stop.CHUNK;
      // 1. An abort of fatal signals is not modelled.
      if (kernel.isExplored && nextCluster(pfn) <= scan.low) return Stop.RESCHED;
    }
    return Stop.END;
  }

  /** 2. False: the block is not to be visited, and the scan is at its end. */
  #enterBlock(cc: CompactControl, scan: BlockScan): boolean {
    if (this.#context.isolationSuitable(cc, scan.low)) {
      scan.validBlock = scan.low;
      return true;
    }
    scan.scanned++;
    scan.low = scan.end;
    return false;
  }

  /** Length of the run of frames at `pfn` that end at step 6. Tails of blocks are such, too. */
  #immobileRun(scan: BlockScan): number {
    const { flags, order } = this.#context.folios.pages;
    let at = scan.low + 1;
    while (at < scan.end) {
      const word = flags[at]!;
      if ((word & CANDIDATE) !== 0 || (word !== 0 && order[at] !== 0)) break;
      at++;
    }
    const pageCount = at - scan.low;
    scan.visited += pageCount - 1;
    return pageCount;
  }

  /** Steps 7 to 14 of an LRU page. */
  #passes(cc: CompactControl, pfn: Pfn, word: number): boolean {
    const { pages, mappings } = this.#context.folios;
    if (pages.refcount[pfn] === 0) return false; // 7.
    if ((word & PageFlag.HWPOISON) !== 0) return false; // 8.
    if (!cc.allocContig && this.#context.isPinned(pfn)) return false; // 9.
    const mapping = mappings.of(pfn);
    const isCache = mapping?.cacheReferences === 1;
    if (isCache && (cc.gfp & Gfp.__GFP_FS) === 0) return false; // 10.
    // 11. The LRU flag was read with the others.
    const isUnevictable = (word & PageFlag.UNEVICTABLE) !== 0;
    if (isUnevictable && !cc.allocContig && !this.#context.unevictableAllowed) return false; // 12.
    const isAsync = cc.mode !== MigrateMode.SYNC;
    if (isAsync && (word & PageFlag.WRITEBACK) !== 0) return false; // 13.
    const isDirty = isAsync && (word & PageFlag.DIRTY) !== 0;
    if (!isDirty && !(isCache && isUnevictable)) return true;
    // 14. Only under its lock a page keeps its mapping, and only a free lock is taken.
    if ((word & PageFlag.LOCKED) !== 0) return false;
    return !isDirty || mapping === undefined || mapping.migratesDirty;
  }

  /** Steps 15 to 17, which nothing interrupts here. False: the page is somebody else's by now. */
  #take(cc: CompactControl, scan: BlockScan): boolean {
    const { folios, skip } = this.#context;
    const pfn = scan.low;
    if (scan.validBlock >= 0 && !scan.skipUpdated) {
      scan.skipUpdated = true;
      // 15. The first one sets the bit; who finds it set by now leaves the block to that one.
      const wasSet = !cc.ignoreSkipHint && skip.get(scan.validBlock);
      if (!cc.ignoreSkipHint && !cc.noSetSkipHint) skip.set(scan.validBlock);
      if (wasSet && !cc.finishPageblock) {
        scan.low = scan.end;
        return true;
      }
    }
    if (!folios.lruvec.isolate(pfn)) return false;
    this.#add(cc, scan, 1 << folios.pages.order[pfn]!);
    return true;
  }

  #add(cc: CompactControl, scan: BlockScan, pageCount: number): void {
    cc.migratePages.add(scan.low);
    cc.nrMigratePages += pageCount;
    scan.isolated += pageCount;
    cc.owedNs += this.#context.kernel.costs.isolatePageNs;
    advance(scan, pageCount);
  }

  /** 15, where every step may be preempted: with a reference, then under the lock. */
  *#isolateSlowly(cc: CompactControl, scan: BlockScan): Kthread {
    const { folios } = this.#context;
    const pfn = scan.low;
    if (folios.pages.tryGet(pfn)) {
      yield BEFORE_CLEAR_LRU;
      yield* folios.lruvec.lock.lock();
      const taken = this.#take(cc, scan);
      folios.lruvec.lock.unlock();
      // May be the last reference.
      folios.put(pfn, cc.cpu);
      if (taken) return;
    }
    if (this.#fail(cc, scan, 1)) yield* this.#giveUpChunk(cc, scan);
  }

  *#isolateMovable(cc: CompactControl, scan: BlockScan): Kthread {
    const { generation } = this.#context.migration;
    if (yield* generation.isolate(scan.low, cc.mode)) this.#add(cc, scan, 1);
    else if (this.#fail(cc, scan, 1)) yield* this.#giveUpChunk(cc, scan);
  }

  *#waitForLruvec(cc: CompactControl): Kthread {
    const { lock } = this.#context.folios.lruvec;
    if (cc.mode === MigrateMode.ASYNC) cc.contended = true;
    yield* lock.lock();
    lock.unlock();
  }

  /** isolate_fail. True: what is isolated of the chunk is to be put back first. */
  #fail(cc: CompactControl, scan: BlockScan, pageCount: number): boolean {
    advance(scan, pageCount);
    if (!scan.skipOnFailure) return false;
    if (scan.isolated > 0) return true;
    leaveChunk(cc, scan);
    return false;
  }

  /** One page that cannot move ruins the chunk: everything of it goes back. */
  *#giveUpChunk(cc: CompactControl, scan: BlockScan): Kthread {
    yield* this.#context.migration.putbackAll(cc.migratePages);
    cc.nrMigratePages = 0;
    scan.isolated = 0;
    leaveChunk(cc, scan);
  }

  #finish(cc: CompactControl, scan: BlockScan): void {
    const { kernel, skip } = this.#context;
    const low = Math.min(scan.low, scan.end);
    if (low === scan.end && (scan.isolated === 0 || cc.finishPageblock)) {
      if (!cc.noSetSkipHint && scan.validBlock >= 0 && !scan.skipUpdated) skip.set(scan.validBlock);
      this.updateCachedMigrate(cc, low);
    }
    cc.owedNs += scan.visited * kernel.costs.scanPfnNs;
    cc.totalMigrateScanned += scan.scanned;
    kernel.mm.vmstat.compact_isolated += scan.isolated;
    cc.migratePfn = low;
  }

  /** update_cached_migrate: nothing to be had below `pfn`, for whoever comes next. */
  updateCachedMigrate(cc: CompactControl, pfn: Pfn): void {
    if (cc.noSetSkipHint) return;
    const cached = this.#context.stateOf(cc.zone).cachedMigratePfn;
    if (pfn > cached[0]) cached[0] = pfn;
    if (cc.mode !== MigrateMode.ASYNC && pfn > cached[1]) cached[1] = pfn;
  }
}

function advance(scan: BlockScan, pageCount: number): void {
  scan.low += pageCount;
  scan.scanned += pageCount;
  scan.visited++;
}

function leaveChunk(cc: CompactControl, scan: BlockScan): void {
  if (scan.low >= scan.nextSkip) return;
  scan.low = scan.nextSkip;
  scan.nextSkip += 1 << cc.order;
}

/** End of the aligned block of that order around `pfn`. */
function chunkEnd(pfn: Pfn, order: number): Pfn {
  return (pfn & -(1 << order)) + (1 << order);
}

function nextCluster(pfn: Pfn): Pfn {
  return (pfn & -COMPACT_CLUSTER_MAX) + COMPACT_CLUSTER_MAX;
}

function isBlockStart(cc: CompactControl, pfn: Pfn): boolean {
  return pfn % PAGEBLOCK_NR_PAGES === 0 || pfn === cc.zone.startPfn;
}

/** skip_isolation_on_order: moving it would gain no more than leaving it. */
function isTooLarge(cc: CompactControl, order: number): boolean {
  if (cc.allocContig) return false;
  return order >= PAGEBLOCK_ORDER || (cc.order >= 0 && order >= cc.order);
}

function isClusterFull(cc: CompactControl): boolean {
  return cc.nrMigratePages >= COMPACT_CLUSTER_MAX && !cc.finishPageblock && !cc.contended;
}
