/**
 * kswapd of the node (linux mm/vmscan.c): woken when a zone is below its low watermark, it reclaims
 * until one that can serve the request is above its high watermark.
 */
import { NS_PER_MS } from '../../shared/index.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { AllocFlag, ZoneType } from '../mm/index.ts';
import { type Kthread, WaitQueue } from '../sched/kthread.ts';
import { SWAP_CLUSTER_MAX, type Vmscan } from './vmscan.ts';

/** MAX_RECLAIM_RETRIES: after so many runs in vain it sleeps until direct reclaim finds something. */
const MAX_FAILURES = 16;
/** reclaim_throttle: how long to wait for pages that are being written. */
const THROTTLE_NS = 10 * NS_PER_MS;

export interface KswapdHooks {
  /**
   * It goes to sleep: reset_isolation_suitable, and wakeup_kcompactd for the largest order that it
   * was woken for.
   */
  onSleep?(order: number, highest: ZoneType): void;
}

export class Kswapd {
  hooks: KswapdHooks = {};
  readonly #kernel: Kernel;
  readonly #vmscan: Vmscan;
  readonly #wait = new WaitQueue();
  #isRunning = false;
  #isWoken = false;
  /** kswapd_order, kswapd_highest_zoneidx: of all wake-ups since it last slept. */
  #order = 0;
  #highest: ZoneType = ZoneType.DMA;
  #failures = 0;

  constructor(kernel: Kernel, vmscan: Vmscan) {
    this.#kernel = kernel;
    this.#vmscan = vmscan;
  }

  get isRunning(): boolean {
    return this.#isRunning;
  }

  /** wakeup_kswapd */
  wake(order: number, highest: ZoneType): void {
    if (order > this.#order) this.#order = order;
    if (highest > this.#highest) this.#highest = highest;
    if (this.#failures >= MAX_FAILURES || this.#isBalanced(order, highest)) return;
    this.#isWoken = true;
    this.#wait.wake();
  }

  /** Direct reclaim has freed pages, so there is something to find again. */
  resetFailures(): void {
    this.#failures = 0;
  }

  /** The thread; it does not end. */
  *run(): Kthread {
    for (;;) {
      while (!this.#isWoken) yield { kind: 'wait', queue: this.#wait };
      this.#isWoken = false;
      this.#isRunning = true;
      while (this.#failures < MAX_FAILURES && !this.#isBalanced(0, this.#highest)) {
        yield* this.#balance();
      }
      this.#isRunning = false;
      const order = this.#order;
      const highest = this.#highest;
      this.#order = 0;
      this.#highest = ZoneType.DMA;
      this.hooks.onSleep?.(order, highest);
    }
  }

  /** balance_pgdat. Of larger orders only compaction can make sure, so it stops at order 0. */
  *#balance(): Kthread {
    this.#kernel.mm.vmstat.pageoutrun++;
    const sc = this.#vmscan.begin('kswapd', this.#highest, this.#targetPages());
    for (; sc.priority >= 1 && !this.#isBalanced(0, this.#highest); sc.priority--) {
      yield* this.#vmscan.shrinkNode(sc);
      if (sc.reclaimed >= sc.targetPages) break;
    }
    if (sc.reclaimed > 0) {
      this.#failures = 0;
      return;
    }
    this.#failures++;
    // What it has begun to write can be freed afterwards.
    yield { kind: 'sleep', ns: THROTTLE_NS };
  }

  #targetPages(): number {
    let pages = 0;
    for (const zone of this.#kernel.mm.zones) {
      if (!zone.isPopulated || zone.index > this.#highest) continue;
      pages += Math.max(zone.watermarkPages[AllocFlag.WMARK_HIGH]!, SWAP_CLUSTER_MAX);
    }
    return pages;
  }

  /** pgdat_balanced */
  #isBalanced(order: number, highest: ZoneType): boolean {
    for (const zone of this.#kernel.mm.zones) {
      if (!zone.isPopulated || zone.index > highest) continue;
      const mark = zone.watermarkPages[AllocFlag.WMARK_HIGH]!;
      if (zone.watermarkOk(order, mark, highest, AllocFlag.CMA)) return true;
    }
    return false;
  }
}
