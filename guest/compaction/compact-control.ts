/** One run of compaction: what was asked for and how far it has come (linux mm/internal.h). */
import type { Pfn } from '../../shared/index.ts';
import {
  Gfp,
  type GfpMask,
  migratetypeOf,
  PAGEBLOCK_NR_PAGES,
  type PageAllocator,
  type Zone,
} from '../mm/index.ts';
import type { IsolatedSet, MigrateMode } from '../page-migration/index.ts';
import { FreePages } from './free-pages.ts';

/** COMPACT_CLUSTER_MAX: so many pages are isolated and migrated together. */
export const COMPACT_CLUSTER_MAX = 32;
/** An isolated set holds what is left of a cluster and a whole pageblock. */
export const ISOLATED_CAPACITY = 1024;
/** cc->order of a run that has no request behind it. */
export const NO_ORDER = -1;

export interface CompactRequest {
  readonly zone: Zone;
  /** Of the block that is wanted, or NO_ORDER. */
  readonly order: number;
  readonly mode: MigrateMode;
  /** Default: GFP_KERNEL. */
  readonly gfp?: GfpMask;
  /** vCPU of the thread; default 0. */
  readonly cpu?: number;
  /** An allocation waits for the result. */
  readonly direct?: boolean;
  readonly proactive?: boolean;
  /** The scanners begin at the ends of the zone. */
  readonly wholeZone?: boolean;
  readonly ignoreSkipHint?: boolean;
  readonly noSetSkipHint?: boolean;
  readonly ignoreBlockSuitable?: boolean;
  /** alloc_contig_range: everything must go, large blocks and pinned pages included. */
  readonly allocContig?: boolean;
}

export class CompactControl {
  readonly zone: Zone;
  readonly order: number;
  readonly mode: MigrateMode;
  readonly gfp: GfpMask;
  readonly cpu: number;
  readonly migratetype: number;
  readonly direct: boolean;
  readonly proactive: boolean;
  readonly ignoreSkipHint: boolean;
  readonly noSetSkipHint: boolean;
  readonly ignoreBlockSuitable: boolean;
  readonly allocContig: boolean;
  /** Isolated pages that are to be moved, and how many pages those are. */
  readonly migratePages: IsolatedSet;
  nrMigratePages = 0;
  readonly freePages: FreePages;
  wholeZone: boolean;
  /** The next frame for the migrate scanner. */
  migratePfn: Pfn;
  /** The pageblock of the free scanner, or a frame in it where it goes on. */
  freePfn: Pfn;
  /** Everything in the present pageblock is to be taken, beyond a cluster. */
  finishPageblock = false;
  contended = false;
  /** How often the free lists gave no hint lately: the search gets shorter. */
  fastSearchFail = 0;
  /** The lowest block that the free lists have hinted at, where a linear scan goes on; −1: none. */
  fastStartPfn: Pfn = -1;
  /** Blocks that they have hinted at in this run: none twice. */
  readonly fastBlocks = new Set<Pfn>();
  totalMigrateScanned = 0;
  totalFreeScanned = 0;
  /** CPU time not paid for yet. */
  owedNs = 0;

  constructor(request: CompactRequest, mm: PageAllocator, migratePages: IsolatedSet) {
    const { zone } = request;
    this.zone = zone;
    this.order = request.order;
    this.mode = request.mode;
    this.gfp = request.gfp ?? Gfp.GFP_KERNEL;
    this.cpu = request.cpu ?? 0;
    this.migratetype = migratetypeOf(this.gfp);
    this.direct = request.direct ?? false;
    this.proactive = request.proactive ?? false;
    this.wholeZone = request.wholeZone ?? false;
    this.ignoreSkipHint = request.ignoreSkipHint ?? false;
    this.noSetSkipHint = request.noSetSkipHint ?? false;
    this.ignoreBlockSuitable = request.ignoreBlockSuitable ?? false;
    this.allocContig = request.allocContig ?? false;
    this.migratePages = migratePages;
    this.freePages = new FreePages(mm);
    this.migratePfn = zone.startPfn;
    this.freePfn = zone.endPfn;
  }

  /** The longest search of the free lists for a hint: freelist_scan_limit. */
  get freelistScanLimit(): number {
    return (COMPACT_CLUSTER_MAX >> Math.min(15, this.fastSearchFail)) + 1;
  }
}

/** First frame of a frame's pageblock. */
export function blockStart(pfn: Pfn): Pfn {
  return pfn & -PAGEBLOCK_NR_PAGES;
}
