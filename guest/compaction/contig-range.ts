/**
 * alloc_contig_range of linux mm/page_alloc.c, mm/page_isolation.c: given frames are emptied and
 * taken. Their pageblocks are isolated meanwhile, so that nothing freed there is given out again.
 */
import { assert, Errno, type Pfn } from '../../shared/index.ts';
import {
  Gfp,
  MigrateType,
  PAGEBLOCK_NR_PAGES,
  PAGEBLOCK_ORDER,
  PageFlag,
  PageOwner,
  type Zone,
  ZoneType,
} from '../mm/index.ts';
import { MigrateMode } from '../page-migration/index.ts';
import type { Kthread } from '../sched/kthread.ts';
import type { CompactContext } from './compact-context.ts';
import {
  blockStart,
  COMPACT_CLUSTER_MAX,
  type CompactControl,
  NO_ORDER,
} from './compact-control.ts';
import type { MigrateScanner } from './isolate-migratepages.ts';

/** A page gets so many chances to be moved. */
const MAX_TRIES = 5;
const TARGET_GFP = Gfp.GFP_USER | Gfp.__GFP_MOVABLE | Gfp.__GFP_RETRY_MAYFAIL;

export class ContigRanges {
  readonly #context: CompactContext;
  readonly #scanner: MigrateScanner;

  constructor(context: CompactContext, scanner: MigrateScanner) {
    this.#context = context;
    this.#scanner = scanner;
  }

  /**
   * Takes the frames `start` … `end`−1, which are single pages of the owner CONTIG afterwards. EBUSY:
   * something there cannot be moved, or could not be now. ENOMEM: no place to move it to. EINVAL: no
   * such frames, or of more than one zone. After a failure memory is as it was, though pages have moved.
   */
  *allocContigRange(start: Pfn, end: Pfn, cpu = 0): Kthread<Errno> {
    const { mm } = this.#context.kernel;
    if (!(start >= 0 && start < end && end <= mm.pages.ramPages)) return Errno.EINVAL;
    const zone = mm.zoneOf(start);
    if (end > zone.endPfn) return Errno.EINVAL;
    const types = this.#isolateBlocks(zone, start, end);
    if (types === null) return Errno.EBUSY;
    mm.drainAllPcp();
    const cc = this.#context.begin({
      zone,
      order: NO_ORDER,
      mode: MigrateMode.SYNC,
      cpu,
      ignoreSkipHint: true,
      noSetSkipHint: true,
      allocContig: true,
    });
    const migrated = yield* this.#migrateRange(cc, start, end);
    this.#context.end(cc);
    // What could not be moved may have been freed meanwhile.
    const mayBeEmpty = migrated === Errno.OK || migrated === Errno.EBUSY;
    const result = mayBeEmpty ? this.#take(zone, start, end) : migrated;
    this.#restoreBlocks(start, types);
    return result;
  }

  /** free_contig_range: gives back what `allocContigRange` has given, or a part of it. */
  freeContigRange(start: Pfn, end: Pfn, cpu = 0): void {
    const { mm, pages } = this.#context.folios;
    for (let pfn = start; pfn < end; pfn++) {
      assert(pages.owner[pfn] === PageOwner.CONTIG, 'only a contiguous range is given back');
      mm.free(pfn, 0, cpu);
    }
  }

  /** start_isolate_page_range: the former types of the blocks, or null and no change. */
  #isolateBlocks(zone: Zone, start: Pfn, end: Pfn): MigrateType[] | null {
    const { mm } = this.#context.kernel;
    const types: MigrateType[] = [];
    for (let block = blockStart(start); block < end; block += PAGEBLOCK_NR_PAGES) {
      const type = mm.pageblocks.typeOf(block);
      const from = Math.max(block, start);
      const to = Math.min(block + PAGEBLOCK_NR_PAGES, end);
      if (type === MigrateType.ISOLATE || this.#hasUnmovable(zone, from, to)) {
        this.#restoreBlocks(start, types);
        return null;
      }
      types.push(type);
      mm.setMigratetype(block >>> PAGEBLOCK_ORDER, MigrateType.ISOLATE);
    }
    return types;
  }

  /** undo_isolate_page_range */
  #restoreBlocks(start: Pfn, types: readonly MigrateType[]): void {
    const first = start >>> PAGEBLOCK_ORDER;
    for (const [i, type] of types.entries())
      this.#context.kernel.mm.setMigratetype(first + i, type);
  }

  /** has_unmovable_pages. Who holds a page back for the moment goes unseen: frozen and tail pages. */
  #hasUnmovable(zone: Zone, from: Pfn, to: Pfn): boolean {
    const { flags, refcount } = this.#context.folios.pages;
    for (let pfn = from; pfn < to; pfn++) {
      const word = flags[pfn]!;
      if ((word & PageFlag.RESERVED) !== 0) return true;
      if (zone.index === ZoneType.MOVABLE || refcount[pfn] === 0) continue;
      if ((word & (PageFlag.LRU | PageFlag.MOVABLE)) === 0) return true;
    }
    return false;
  }

  /** __alloc_contig_migrate_range */
  *#migrateRange(cc: CompactControl, start: Pfn, end: Pfn): Kthread<Errno> {
    const { migration, folios } = this.#context;
    const target = {
      alloc: (_src: Pfn, order: number) => folios.mm.alloc(order, TARGET_GFP, cc.cpu),
      free: (dst: Pfn) => void folios.put(dst, cc.cpu),
    };
    const request = { mode: cc.mode, reason: 'contig_range', target } as const;
    let at = start;
    let tries = 0;
    while (at < end) {
      const isolated = yield* this.#isolateRange(cc, at, end);
      if (isolated !== Errno.OK && isolated !== Errno.EAGAIN) return isolated;
      const outcome = yield* migration.migrate(cc.migratePages, request);
      yield* migration.putbackAll(cc.migratePages);
      cc.nrMigratePages = 0;
      if (outcome === Errno.ENOMEM) return Errno.ENOMEM;
      // Linux keeps a cluster isolated between its tries.
      if (outcome === Errno.OK) tries = 0;
      else if (++tries === MAX_TRIES) return Errno.EBUSY;
      if (outcome === Errno.OK) at = cc.migratePfn;
    }
    return Errno.OK;
  }

  /** isolate_migratepages_range: block by block, until there is a cluster. */
  *#isolateRange(cc: CompactControl, start: Pfn, end: Pfn): Kthread<Errno> {
    let at = start;
    while (at < end) {
      const blockEnd = Math.min(blockStart(at) + PAGEBLOCK_NR_PAGES, end);
      const outcome = yield* this.#scanner.isolateBlock(cc, at, blockEnd);
      if (outcome !== Errno.OK) return outcome;
      at = cc.migratePfn;
      if (cc.nrMigratePages >= COMPACT_CLUSTER_MAX) break;
    }
    return Errno.OK;
  }

  /** test_pages_isolated, isolate_freepages_range: all of it is free, so it is the caller's. */
  #take(zone: Zone, start: Pfn, end: Pfn): Errno {
    const { mm, pages } = this.#context.folios;
    for (let pfn = start; pfn < end; pfn++) {
      if (!mm.isFree(pfn) || !pages.hasFlag(pages.headOf(pfn), PageFlag.BUDDY)) return Errno.EBUSY;
    }
    assert(zone.endPfn >= end, 'a range is of one zone');
    for (let pfn = start; pfn < end; pfn++) {
      const taken = mm.allocExact(pfn, 0, Gfp.GFP_KERNEL);
      assert(taken, 'a free frame can be taken');
      pages.setOwner(pfn, PageOwner.CONTIG);
    }
    return Errno.OK;
  }
}
