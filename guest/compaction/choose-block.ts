/**
 * Which pageblock the migrate scanner visits next: isolate_migratepages, fast_find_migrateblock and
 * suitable_migration_source of linux mm/compaction.c.
 */
import { Errno, type Pfn } from '../../shared/index.ts';
import {
  MigrateType,
  PAGE_ALLOC_COSTLY_ORDER,
  PAGEBLOCK_NR_PAGES,
  PAGEBLOCK_ORDER,
  PageFlag,
} from '../mm/index.ts';
import { MigrateMode } from '../page-migration/index.ts';
import type { Kthread } from '../sched/kthread.ts';
import type { CompactContext } from './compact-context.ts';
import { blockStart, type CompactControl } from './compact-control.ts';
import { MigrateScanner } from './isolate-migratepages.ts';

/** isolate_migrate_t */
export const Isolated = { ABORT: 0, NONE: 1, SUCCESS: 2 } as const;
export type Isolated = (typeof Isolated)[keyof typeof Isolated];

export class SourceChooser {
  readonly #context: CompactContext;
  readonly #scanner: MigrateScanner;

  constructor(context: CompactContext) {
    this.#context = context;
    this.#scanner = new MigrateScanner(context);
  }

  get scanner(): MigrateScanner {
    return this.#scanner;
  }

  /** Isolates from the next suitable block below the free scanner. ABORT: the run is to end. */
  *isolate(cc: CompactControl): Kthread<Isolated> {
    const { pageblocks } = this.#context.kernel.mm;
    let low = this.#fastFind(cc);
    let isHinted = low !== cc.migratePfn;
    let end = blockStart(low) + PAGEBLOCK_NR_PAGES;
    while (end <= cc.freePfn) {
      const isStart = low % PAGEBLOCK_NR_PAGES === 0 || low === cc.zone.startPfn;
      const isSkipped = isStart && !isHinted && !this.#context.isolationSuitable(cc, low);
      if (!isSkipped) {
        if (this.#isSuitableSource(cc, low, pageblocks.typeOf(low))) {
          const outcome = yield* this.#scanner.isolateBlock(cc, low, end);
          if (outcome !== Errno.OK) return Isolated.ABORT;
          break;
        }
        this.#scanner.updateCachedMigrate(cc, end);
      }
      isHinted = false;
      low = end;
      cc.migratePfn = end;
      end += PAGEBLOCK_NR_PAGES;
    }
    return cc.nrMigratePages > 0 ? Isolated.SUCCESS : Isolated.NONE;
  }

  /** suitable_migration_source: async direct compaction does not mix what others keep apart. */
  #isSuitableSource(cc: CompactControl, pfn: Pfn, type: MigrateType): boolean {
    const { flags, order } = this.#context.folios.pages;
    const block = blockStart(pfn);
    const isCompound = (flags[block]! & PageFlag.ALLOCATED) !== 0;
    if (isCompound && order[block]! >= PAGEBLOCK_ORDER) return false;
    if (cc.mode !== MigrateMode.ASYNC || !cc.direct) return true;
    if (cc.migratetype !== MigrateType.MOVABLE) return type === cc.migratetype;
    return type === MigrateType.MOVABLE || type === MigrateType.CMA;
  }

  /**
   * fast_find_migrateblock: a free block of almost the wanted order hints at a pageblock that is
   * half empty. Where to scan: in it, or where the scan left off. The lists are not reordered: a
   * walk of free page hinting may stand in them.
   */
  #fastFind(cc: CompactControl): Pfn {
    const { migratePfn, zone } = cc;
    if (cc.ignoreSkipHint || cc.finishPageblock || cc.order <= PAGE_ALLOC_COSTLY_ORDER) {
      return migratePfn;
    }
    if (migratePfn !== zone.startPfn && migratePfn % PAGEBLOCK_NR_PAGES !== 0) return migratePfn;
    const isForeign = cc.direct && cc.migratetype !== MigrateType.MOVABLE;
    if (isForeign && cc.order < PAGEBLOCK_ORDER) return migratePfn;
    let distance = (cc.freePfn - migratePfn) >> 1;
    if (migratePfn !== zone.startPfn) distance >>= 2;
    const found = this.#searchFreeLists(cc, blockStart(migratePfn + distance));
    if (found < 0) {
      cc.fastSearchFail++;
      return backToLinear(cc);
    }
    cc.fastSearchFail = 0;
    cc.fastBlocks.add(blockStart(found));
    const start = Math.max(blockStart(found), zone.startPfn);
    if (cc.fastStartPfn < 0 || start < cc.fastStartPfn) cc.fastStartPfn = start;
    return start;
  }

  #searchFreeLists(cc: CompactControl, high: Pfn): Pfn {
    const { mm, pages } = this.#context.folios;
    const { skip } = this.#context;
    const limit = cc.freelistScanLimit;
    let scanned = 0;
    let found = -1;
    for (let order = cc.order - 1; order >= PAGE_ALLOC_COSTLY_ORDER; order--) {
      const head = mm.freeLists.headOf(cc.zone, order, MigrateType.MOVABLE);
      for (let pfn = pages.next[head]!; pfn !== head; pfn = pages.next[pfn]!) {
        if (scanned++ >= limit || found >= 0) break;
        const isNew = !skip.get(pfn) && !cc.fastBlocks.has(blockStart(pfn));
        if (pfn < high && isNew) found = pfn;
      }
      if (found >= 0 || scanned >= limit) break;
    }
    cc.totalMigrateScanned += scanned;
    cc.owedNs += scanned * this.#context.kernel.costs.scanPfnNs;
    return found;
  }
}

/** reinit_migrate_pfn: the hints are used up; on from the lowest of them, block by block. */
function backToLinear(cc: CompactControl): Pfn {
  if (cc.fastStartPfn < 0) return cc.migratePfn;
  cc.migratePfn = cc.fastStartPfn;
  cc.fastStartPfn = -1;
  return cc.migratePfn;
}
