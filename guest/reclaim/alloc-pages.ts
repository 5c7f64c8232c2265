/**
 * Allocations that may wait (linux mm/page_alloc.c: __alloc_pages_slowpath): kswapd is woken, memory
 * compacted and reclaimed, and at the end the OOM killer called, as far as the flags allow.
 */
import { Errno, NS_PER_MS, type Pfn } from '../../shared/index.ts';
import type { PageSource } from '../folio/index.ts';
import type { Kernel } from '../kernel/kernel.ts';
import {
  AllocFlag,
  Gfp,
  type GfpMask,
  highestZoneOf,
  MigrateType,
  migratetypeOf,
  PAGE_ALLOC_COSTLY_ORDER,
  ZoneType,
} from '../mm/index.ts';
import type { Oom } from '../oom/oom.ts';
import { type Kthread, preempt } from '../sched/kthread.ts';
import type { Kswapd } from './kswapd.ts';
import { SWAP_CLUSTER_MAX, type Vmscan } from './vmscan.ts';

/** Rounds in which reclaim frees nothing, until it counts as out of memory. */
const MAX_RECLAIM_RETRIES = 16;
/** Compactions that reclaim may follow; a quarter of them for costly orders. */
const MAX_COMPACT_RETRIES = 16;
/** schedule_timeout_uninterruptible(1) at HZ = 250: after a kill, and while somebody else kills. */
const JIFFY_NS = 4 * NS_PER_MS;
/** reclaim_throttle: for pages that are being written. */
const THROTTLE_NS = 10 * NS_PER_MS;
const SLOW_PATH = preempt('__alloc_pages_slowpath');

/**
 * Direct compaction, which is above this layer. True: a block of that order can be had now. It
 * honours __GFP_NORETRY by trying once.
 */
export type DirectCompact = (order: number, gfp: GfpMask, cpu: number) => Kthread<boolean>;

/** One allocation on its way. */
interface Request {
  readonly order: number;
  readonly gfp: GfpMask;
  readonly cpu: number;
  readonly highest: ZoneType;
  noProgressLoops: number;
  compactRetries: number;
}

export class AllocPages implements PageSource {
  /** null: nothing is compacted. */
  directCompact: DirectCompact | null = null;
  readonly #kernel: Kernel;
  readonly #vmscan: Vmscan;
  readonly #kswapd: Kswapd;
  readonly #oom: Oom;

  constructor(kernel: Kernel, parts: { vmscan: Vmscan; kswapd: Kswapd; oom: Oom }) {
    this.#kernel = kernel;
    this.#vmscan = parts.vmscan;
    this.#kswapd = parts.kswapd;
    this.#oom = parts.oom;
  }

  tryAlloc(order: number, gfp: GfpMask, cpu: number): Pfn | Errno {
    const { mm } = this.#kernel;
    const pfn = mm.alloc(order, gfp & ~Gfp.__GFP_DIRECT_RECLAIM, cpu);
    // One attempt of several: only the last one is a failure.
    if (pfn === Errno.ENOMEM) mm.vmstat.alloc_failures--;
    return pfn;
  }

  *allocPages(order: number, gfp: GfpMask, cpu: number): Kthread<Pfn | Errno> {
    let pfn = this.tryAlloc(order, gfp, cpu);
    if (pfn !== Errno.ENOMEM) return pfn;
    if ((gfp & Gfp.__GFP_DIRECT_RECLAIM) !== 0) {
      const highest = highestZoneOf(gfp);
      const request = { order, gfp, cpu, highest, noProgressLoops: 0, compactRetries: 0 };
      pfn = yield* this.#slowPath(request);
    }
    if (pfn === Errno.ENOMEM) this.#kernel.mm.vmstat.alloc_failures++;
    return pfn;
  }

  *#slowPath(request: Request): Kthread<Pfn | Errno> {
    const { order, gfp } = request;
    const isCostly = order > PAGE_ALLOC_COSTLY_ORDER;
    const isUnmovable = migratetypeOf(gfp) !== MigrateType.MOVABLE;
    // Reclaim frees single pages: for these, moving what is there comes first.
    if (isCostly || (order > 0 && isUnmovable)) {
      const pfn = yield* this.#compact(request);
      if (pfn >= 0 || (isCostly && (gfp & Gfp.__GFP_NORETRY) !== 0)) return pfn;
    }
    for (;;) {
      yield SLOW_PATH;
      const reclaimed = yield* this.#reclaim(request);
      let pfn = this.#attemptAfterReclaim(request, reclaimed);
      if (pfn >= 0) return pfn;
      pfn = yield* this.#compact(request);
      if (pfn >= 0 || (gfp & Gfp.__GFP_NORETRY) !== 0) return pfn;
      if (isCostly && (gfp & Gfp.__GFP_RETRY_MAYFAIL) === 0) return pfn;
      if (this.#shouldReclaimAgain(request, reclaimed)) continue;
      if (this.#shouldCompactAgain(request, reclaimed)) continue;
      if (!(yield* this.#mayOom(request))) return Errno.ENOMEM;
      request.noProgressLoops = 0;
    }
  }

  #attempt({ order, gfp, cpu }: Request): Pfn | Errno {
    return this.tryAlloc(order, gfp, cpu);
  }

  /** __alloc_pages_direct_reclaim: try_to_free_pages. Returns the pages freed. */
  *#reclaim({ highest, noProgressLoops }: Request): Kthread<number> {
    this.#kernel.mm.vmstat.allocstall++;
    const sc = this.#vmscan.begin('direct', highest, SWAP_CLUSTER_MAX);
    yield* this.#vmscan.shrink(sc, 0);
    if (sc.reclaimed > 0) this.#kswapd.resetFailures();
    else if (sc.waiting > 0 || noProgressLoops > 0) yield { kind: 'sleep', ns: THROTTLE_NS };
    return sc.reclaimed;
  }

  #attemptAfterReclaim(request: Request, reclaimed: number): Pfn | Errno {
    const pfn = this.#attempt(request);
    if (pfn >= 0 || reclaimed === 0) return pfn;
    this.#kernel.mm.drainForReclaim(migratetypeOf(request.gfp));
    return this.#attempt(request);
  }

  *#compact(request: Request): Kthread<Pfn | Errno> {
    const { order, gfp, cpu } = request;
    if (order === 0 || !this.directCompact) return Errno.ENOMEM;
    request.compactRetries++;
    if (!(yield* this.directCompact(order, gfp, cpu))) return Errno.ENOMEM;
    return this.#attempt(request);
  }

  /** should_reclaim_retry: whether all that could be reclaimed would be enough. */
  #shouldReclaimAgain(request: Request, reclaimed: number): boolean {
    const isCostly = request.order > PAGE_ALLOC_COSTLY_ORDER;
    request.noProgressLoops = reclaimed > 0 && !isCostly ? 0 : request.noProgressLoops + 1;
    if (request.noProgressLoops > MAX_RECLAIM_RETRIES) {
      this.#kernel.mm.drainForReclaim(migratetypeOf(request.gfp));
      return false;
    }
    for (const zone of this.#kernel.mm.zones) {
      if (!zone.isPopulated || zone.index > request.highest) continue;
      const available = zone.freePages + this.#vmscan.reclaimablePages;
      const reserve = zone.lowmemReservePages[request.highest]!;
      const mark = zone.watermarkPages[AllocFlag.WMARK_MIN]! + reserve;
      if (available > mark && (request.order === 0 || reclaimed > 0)) return true;
    }
    return false;
  }

  /** should_compact_retry */
  #shouldCompactAgain({ order, compactRetries }: Request, reclaimed: number): boolean {
    if (order === 0 || !this.directCompact || reclaimed === 0) return false;
    const isCostly = order > PAGE_ALLOC_COSTLY_ORDER;
    return compactRetries <= (isCostly ? MAX_COMPACT_RETRIES >> 2 : MAX_COMPACT_RETRIES);
  }

  /** __alloc_pages_may_oom. True: it makes sense to try again. */
  *#mayOom({ order, gfp, highest }: Request): Kthread<boolean> {
    if (order > PAGE_ALLOC_COSTLY_ORDER || (gfp & Gfp.__GFP_RETRY_MAYFAIL) !== 0) return false;
    // Killing frees what is anywhere, hardly what is below 16 MiB or 4 GiB.
    if (highest < ZoneType.NORMAL) return false;
    let isWorthIt = true;
    if (this.#oom.lock.tryLock()) {
      isWorthIt = yield* this.#oom.outOfMemory(gfp);
      this.#oom.lock.unlock();
    }
    if (isWorthIt) yield { kind: 'sleep', ns: JIFFY_NS };
    return isWorthIt;
  }
}
