/**
 * compact_zone of linux mm/compaction.c: a cluster is isolated from below, moved to free pages from
 * above, and so on until the scanners meet or what is wanted is there. Capture of a freed block for
 * the waiting allocation is left out, and so are the per-CPU batches of the LRU.
 */
import { assert, Errno, type Pfn } from '../../shared/index.ts';
import {
  canStealBlock,
  fragmentationScore,
  freeListIndex,
  highestZoneOf,
  MAX_PAGE_ORDER,
  MigrateType,
  PAGEBLOCK_NR_PAGES,
  PAGEBLOCK_ORDER,
  type Zone,
} from '../mm/index.ts';
import { MigrateMode, type MigrateRequest } from '../page-migration/index.ts';
import type { Kthread } from '../sched/kthread.ts';
import { Isolated, SourceChooser } from './choose-block.ts';
import type { CompactContext } from './compact-context.ts';
import { blockStart, type CompactControl, NO_ORDER } from './compact-control.ts';
import { FreeScanner } from './isolate-freepages.ts';
import { CompactResult } from './result.ts';
import { suitOrder } from './suitability.ts';

/** Freed sources are on the lists of this CPU: page migration frees there. */
const FREEING_CPU = 0;
/** No block has had pages taken from it lately. */
const NONE = -1;

export class ZoneCompactor {
  /** kswapd_is_running: proactive compaction gives way to it. */
  isKswapdRunning: () => boolean = () => false;
  readonly #context: CompactContext;
  readonly #source: SourceChooser;
  readonly #targets: FreeScanner;

  constructor(context: CompactContext) {
    this.#context = context;
    this.#source = new SourceChooser(context);
    this.#targets = new FreeScanner(context);
  }

  /** One run. Never CONTINUE; nothing is isolated any more when it returns. */
  *compact(cc: CompactControl, allocFlags: number): Kthread<CompactResult> {
    const { zone } = cc;
    const state = this.#context.stateOf(zone);
    if (cc.order !== NO_ORDER) {
      const suited = suitOrder(zone, cc.order, highestZoneOf(cc.gfp), allocFlags);
      if (suited !== CompactResult.CONTINUE) return suited;
      if (state.isRestarting(cc.order)) this.#context.skip.reset(state);
    }
    this.#setOut(cc);
    const result = yield* this.#loop(cc);
    this.#release(cc);
    const { vmstat } = this.#context.kernel.mm;
    vmstat.compact_migrate_scanned += cc.totalMigrateScanned;
    vmstat.compact_free_scanned += cc.totalFreeScanned;
    assert(cc.nrMigratePages === 0, 'nothing is isolated after a run');
    yield* this.#context.pay(cc);
    return result;
  }

  /** Where the scanners begin: at the ends of the zone, or where they were. */
  #setOut(cc: CompactControl): void {
    const { zone } = cc;
    const state = this.#context.stateOf(zone);
    if (cc.wholeZone) {
      cc.migratePfn = zone.startPfn;
      cc.freePfn = state.lastBlock;
      return;
    }
    const sync = cc.mode === MigrateMode.ASYNC ? 0 : 1;
    cc.migratePfn = state.cachedMigratePfn[sync];
    cc.freePfn = state.cachedFreePfn;
    if (cc.freePfn < zone.startPfn || cc.freePfn >= zone.endPfn) {
      cc.freePfn = state.lastBlock;
      state.cachedFreePfn = cc.freePfn;
    }
    if (cc.migratePfn < zone.startPfn || cc.migratePfn >= zone.endPfn) {
      cc.migratePfn = zone.startPfn;
      state.setCachedMigrate(zone.startPfn);
    }
    if (cc.migratePfn <= state.initMigratePfn) cc.wholeZone = true;
  }

  *#loop(cc: CompactControl): Kthread<CompactResult> {
    const { zone } = cc;
    const state = this.#context.stateOf(zone);
    const request = this.#requestOf(cc);
    const cached = state.cachedMigratePfn;
    // As long as nothing was found, who waits need not come here either.
    let updatesCached = cc.mode !== MigrateMode.ASYNC && cached[0] === cached[1];
    let lastMigrated: Pfn = NONE;
    for (;;) {
      const finished = this.#finished(cc);
      if (finished !== CompactResult.CONTINUE) return finished;
      cc.finishPageblock = lastMigrated === Math.max(zone.startPfn, blockStart(cc.migratePfn));
      for (let again = true; again; ) {
        again = false;
        const isolated = yield* this.#source.isolate(cc);
        if (isolated === Isolated.ABORT) {
          yield* this.#putback(cc);
          return CompactResult.CONTENDED;
        }
        if (isolated === Isolated.NONE) {
          if (updatesCached) cached[1] = cached[0];
          break;
        }
        updatesCached = false;
        lastMigrated = Math.max(zone.startPfn, blockStart(cc.migratePfn - 1));
        const outcome = yield* this.#migrate(cc, request);
        if (outcome === Errno.ENOMEM && !haveMet(cc)) return CompactResult.CONTENDED;
        if (outcome === Errno.OK || !mustFinishBlock(cc)) continue;
        // Some page of the block could not be moved: what is left of it is not worth another visit.
        cc.finishPageblock = true;
        if (cc.order === PAGEBLOCK_ORDER) lastMigrated = NONE;
        again = true;
      }
      lastMigrated = this.#drainBehind(cc, lastMigrated);
    }
  }

  /** Moves what is isolated; puts back what could not be. Returns as `PageMigration.migrate`. */
  *#migrate(cc: CompactControl, request: MigrateRequest): Kthread<number> {
    const outcome = yield* this.#context.migration.migrate(cc.migratePages, request);
    yield* this.#putback(cc);
    yield* this.#context.pay(cc);
    return outcome;
  }

  *#putback(cc: CompactControl): Kthread {
    yield* this.#context.migration.putbackAll(cc.migratePages);
    cc.nrMigratePages = 0;
  }

  /** compaction_alloc, compaction_free. */
  #requestOf(cc: CompactControl): MigrateRequest {
    const { freePages, mode } = cc;
    return {
      mode,
      reason: 'compaction',
      target: {
        alloc: (_src, order) => {
          const pfn = freePages.take(order);
          if (pfn >= 0) return pfn;
          this.#targets.isolate(cc);
          const isolated = freePages.take(order);
          return isolated >= 0 ? isolated : Errno.ENOMEM;
        },
        free: (dst) => freePages.giveBack(dst),
      },
    };
  }

  /**
   * Behind a block of the wanted order: what was freed must be able to merge. Linux does so only if
   * there is a wanted order; here proactive compaction does so behind each pageblock, since that is
   * how much it was seen to move in a recorded guest (docs/compaction.md).
   */
  #drainBehind(cc: CompactControl, lastMigrated: Pfn): Pfn {
    const order = cc.proactive ? PAGEBLOCK_ORDER : cc.order;
    if (order <= 0 || lastMigrated === NONE) return lastMigrated;
    if (lastMigrated >= (cc.migratePfn & -(1 << order))) return lastMigrated;
    this.#context.kernel.mm.drainPcp(FREEING_CPU);
    return NONE;
  }

  /** compact_finished */
  #finished(cc: CompactControl): CompactResult {
    const state = this.#context.stateOf(cc.zone);
    if (haveMet(cc)) {
      state.resetCursors();
      // The bits have done their work; kswapd will clear them when it sleeps.
      if (cc.direct) state.blockskipFlush = true;
      return cc.wholeZone ? CompactResult.COMPLETE : CompactResult.PARTIAL_SKIPPED;
    }
    let result: CompactResult = CompactResult.CONTINUE;
    if (cc.proactive) {
      if (this.isKswapdRunning()) return CompactResult.PARTIAL_SKIPPED;
      if (fragmentationScore(cc.zone) <= this.#context.marks.low) result = CompactResult.SUCCESS;
    } else if (cc.order === NO_ORDER || cc.migratePfn % PAGEBLOCK_NR_PAGES !== 0) {
      // A pageblock is always finished: half of one is of no use.
      return CompactResult.CONTINUE;
    } else if (hasBlock(cc.zone, cc.order, cc.migratetype as MigrateType)) {
      return CompactResult.SUCCESS;
    }
    return cc.contended ? CompactResult.CONTENDED : result;
  }

  /** Free pages that were not needed; the next free scanner begins where they are. */
  #release(cc: CompactControl): void {
    const highest = cc.freePages.release(cc.cpu);
    const state = this.#context.stateOf(cc.zone);
    if (highest >= 0 && blockStart(highest) > state.cachedFreePfn) {
      state.cachedFreePfn = blockStart(highest);
    }
  }

  /** The scanner for alloc_contig_range, which goes through a range by itself. */
  get scanner() {
    return this.#source.scanner;
  }
}

/** compact_scanners_met */
function haveMet(cc: CompactControl): boolean {
  return blockStart(cc.freePfn) <= blockStart(cc.migratePfn);
}

function mustFinishBlock(cc: CompactControl): boolean {
  if (cc.migratePfn % PAGEBLOCK_NR_PAGES === 0) return false;
  return !cc.ignoreSkipHint && !cc.finishPageblock && cc.mode < MigrateMode.SYNC;
}

/** On a list that a request of this type may use, or can take from. */
function hasBlock(zone: Zone, order: number, migratetype: MigrateType): boolean {
  for (let o = order; o <= MAX_PAGE_ORDER; o++) {
    if (zone.nrFree[o] === 0) continue;
    if (zone.nrFreeByList[freeListIndex(o, migratetype)]! > 0) return true;
    const cmaBlocks = zone.nrFreeByList[freeListIndex(o, MigrateType.CMA)]!;
    if (migratetype === MigrateType.MOVABLE && cmaBlocks > 0) return true;
    if (canStealBlock(zone, o, migratetype)) return true;
  }
  return false;
}
