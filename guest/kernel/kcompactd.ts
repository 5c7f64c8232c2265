/**
 * Proactive compaction (linux mm/compaction.c, vm.compaction_proactiveness): twice a second
 * kcompactd looks how much of the free memory is too fragmented for a huge page, and moves movable
 * pages from the bottom of a zone to free pages at its top until that has improved. A driver that
 * holds every large block for hinting makes it run. The full scanners are not here yet: it moves
 * user pages that a workload has registered, one frame each.
 */
import type { Pfn } from '../../shared/index.ts';
import { NS_PER_MS } from '../../shared/index.ts';
import {
  fragmentationScore,
  Gfp,
  MigrateType,
  type MovablePages,
  PAGEBLOCK_NR_PAGES,
  PAGEBLOCK_ORDER,
  type PageAllocator,
  type Zone,
} from '../mm/index.ts';
import type { Kthread } from '../sched/kthread.ts';
import type { Kernel } from './kernel.ts';

/** HPAGE_FRAG_CHECK_INTERVAL_MSEC */
const CHECK_INTERVAL_NS = 500 * NS_PER_MS;
/** A run without progress postpones the next check by 2^6 intervals: COMPACT_MAX_DEFER_SHIFT. */
const DEFERRED_INTERVAL_NS = CHECK_INTERVAL_NS * 64;
/** vm.compaction_proactiveness = 20: it starts above the high mark and stops at the low one. */
const SCORE_LOW = 80;
const SCORE_HIGH = 90;
/** COMPACT_CLUSTER_MAX: pages that are isolated and migrated together. */
const CLUSTER_PAGES = 32;

export class Kcompactd {
  readonly counters = { compact_daemon_wake: 0, compact_isolated: 0, pgmigrate_success: 0 };
  /** null: nothing can be moved. */
  movable: MovablePages | null = null;
  readonly #kernel: Kernel;

  constructor(kernel: Kernel) {
    this.#kernel = kernel;
  }

  *run(): Kthread {
    let intervalNs = CHECK_INTERVAL_NS;
    for (;;) {
      yield { kind: 'sleep', ns: intervalNs };
      intervalNs = CHECK_INTERVAL_NS;
      const before = this.#nodeScore();
      if (before <= SCORE_HIGH || !this.movable) continue;
      this.counters.compact_daemon_wake++;
      for (const zone of this.#kernel.mm.zones) {
        if (zone.isPopulated) yield* this.#compactZone(zone, this.movable);
      }
      this.#kernel.log.add(this.#kernel.now, 'compact_proactive', {
        before,
        after: this.#nodeScore(),
        migrated: this.counters.pgmigrate_success,
      });
      if (this.#nodeScore() >= before) intervalNs = DEFERRED_INTERVAL_NS;
    }
  }

  /** fragmentation_score_node: zones by their share of memory. */
  #nodeScore(): number {
    const { zones } = this.#kernel.mm;
    let presentPages = 0;
    for (const zone of zones) presentPages += zone.endPfn - zone.startPfn;
    let score = 0;
    for (const zone of zones) {
      const share = (zone.endPfn - zone.startPfn) / (presentPages + 1);
      score += Math.floor(share * fragmentationScore(zone));
    }
    return score;
  }

  *#compactZone(zone: Zone, movable: MovablePages): Kthread {
    const { costs, mm } = this.#kernel;
    const targets = new FreeScanner(mm, zone);
    for (let block = zone.startPfn; block < targets.pfn; block += PAGEBLOCK_NR_PAGES) {
      let moved = 0;
      const end = Math.min(block + PAGEBLOCK_NR_PAGES, targets.pfn);
      for (let pfn = block; pfn < end; pfn++) {
        if (mm.isFree(pfn) || !movable.isMovable(pfn)) continue;
        const target = targets.take(pfn);
        if (target < 0) return;
        movable.move(pfn, target);
        mm.free(pfn, 0);
        this.counters.compact_isolated++;
        this.counters.pgmigrate_success++;
        if (++moved % CLUSTER_PAGES === 0) {
          yield { kind: 'cpu', ns: CLUSTER_PAGES * costs.migratePageNs };
          if (fragmentationScore(zone) <= SCORE_LOW) {
            mm.drainPcp(0);
            return;
          }
        }
      }
      // As compact_zone does behind a block: what was freed must be able to merge.
      if (moved > 0) mm.drainPcp(0);
      yield { kind: 'cpu', ns: costs.zoneLockNs + PAGEBLOCK_NR_PAGES * costs.listNodeNs };
      if (fragmentationScore(zone) <= SCORE_LOW) return;
    }
  }
}

/** isolate_freepages: free frames from the top of the zone downwards, in movable pageblocks. */
class FreeScanner {
  pfn: Pfn;
  readonly #mm: PageAllocator;
  readonly #startPfn: Pfn;

  constructor(mm: PageAllocator, zone: Zone) {
    this.#mm = mm;
    this.pfn = zone.endPfn;
    this.#startPfn = zone.startPfn;
  }

  /** A free frame above `below`, now allocated; −1: the scanners have met. */
  take(below: Pfn): Pfn {
    while (this.pfn - 1 > below && this.pfn > this.#startPfn) {
      const pfn = this.pfn - 1;
      this.pfn = pfn;
      if (!this.#mm.isFree(pfn)) continue;
      if (!this.#isSuitable(pfn)) {
        this.pfn = pfn - (pfn % PAGEBLOCK_NR_PAGES);
        continue;
      }
      if (this.#mm.allocExact(pfn, 0, Gfp.GFP_HIGHUSER_MOVABLE)) return pfn;
    }
    return -1;
  }

  /** suitable_migration_target: a large free block is what compaction is for, not its prey. */
  #isSuitable(pfn: Pfn): boolean {
    const { pages, pageblocks } = this.#mm;
    if (pageblocks.typeOf(pfn) !== MigrateType.MOVABLE) return false;
    const head = pages.headOf(pfn);
    return head < 0 || pages.order[head]! < PAGEBLOCK_ORDER;
  }
}
