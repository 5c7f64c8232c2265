/**
 * Page reclaim (linux mm/vmscan.c): the inactive list of page cache from its old end, with a second
 * chance for what was used; the active list when the inactive one gets short. Anonymous and shared
 * memory stays, since there is no swap. Batches are plain code; who may wait charges them one by one.
 */
import type { Pfn } from '../../shared/index.ts';
import { type Folios, LruList } from '../folio/index.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { PageFlag, type ZoneType } from '../mm/index.ts';
import type { Kthread } from '../sched/kthread.ts';
import { Shrinkers } from './shrinkers.ts';

export const SWAP_CLUSTER_MAX = 32;
/** DEF_PRIORITY: a scan begins with 1/4096 of a list, and ends with all of it. */
const DEF_PRIORITY = 12;
/** 2^18 pages are a gigabyte. */
const GIGABYTE_SHIFT = 18;

/** struct scan_control, as far as there is something to control. */
export interface ScanControl {
  readonly by: 'kswapd' | 'direct';
  readonly highest: ZoneType;
  readonly targetPages: number;
  priority: number;
  scanned: number;
  reclaimed: number;
  /** Pages that could not be freed because they must be written first, or are being written. */
  waiting: number;
}

const Fate = { KEEP: 0, ACTIVATE: 1, RECLAIMED: 2 } as const;
type Fate = (typeof Fate)[keyof typeof Fate];

export class Vmscan {
  readonly shrinkers: Shrinkers;
  readonly #kernel: Kernel;
  readonly #folios: Folios;

  constructor(kernel: Kernel, folios: Folios) {
    this.#kernel = kernel;
    this.#folios = folios;
    this.shrinkers = new Shrinkers(kernel.mm.vmstat);
  }

  begin(by: 'kswapd' | 'direct', highest: ZoneType, targetPages: number): ScanControl {
    return {
      by,
      highest,
      targetPages,
      priority: DEF_PRIORITY,
      scanned: 0,
      reclaimed: 0,
      waiting: 0,
    };
  }

  /** zone_reclaimable_pages of the node. */
  get reclaimablePages(): number {
    const { nrPages } = this.#folios.lruvec;
    return nrPages[LruList.INACTIVE_FILE]! + nrPages[LruList.ACTIVE_FILE]!;
  }

  /** try_to_free_pages for who cannot wait: returns the pages freed. */
  tryToFreeNow(highest: ZoneType): number {
    if (this.#folios.lruvec.lock.isHeld) return 0;
    const sc = this.begin('direct', highest, SWAP_CLUSTER_MAX);
    for (; sc.priority >= 0 && sc.reclaimed < sc.targetPages; sc.priority--) {
      const share = this.#shareOf(sc);
      while (this.#mayGoOn(sc, share)) this.#shrinkBatch(sc, share);
      sc.reclaimed += this.shrinkers.shrink(sc.priority);
    }
    return sc.reclaimed;
  }

  /** shrink_node with one priority after the other, down to `lowest`. */
  *shrink(sc: ScanControl, lowest: number): Kthread {
    for (; sc.priority >= lowest && sc.reclaimed < sc.targetPages; sc.priority--) {
      yield* this.shrinkNode(sc);
    }
  }

  /** shrink_node: with the present priority. */
  *shrinkNode(sc: ScanControl): Kthread {
    const { costs } = this.#kernel;
    const { lock } = this.#folios.lruvec;
    const share = this.#shareOf(sc);
    while (this.#mayGoOn(sc, share)) {
      yield* lock.lock();
      const pagesBefore = share.inactive + share.active;
      const reclaimedBefore = sc.reclaimed;
      this.#shrinkBatch(sc, share);
      lock.unlock();
      const lookedAt = pagesBefore - share.inactive - share.active;
      const freed = sc.reclaimed - reclaimedBefore;
      yield { kind: 'cpu', ns: lookedAt * costs.migrateAttemptNs + freed * costs.allocNs };
    }
    const freed = this.shrinkers.shrink(sc.priority);
    sc.reclaimed += freed;
    if (freed > 0) yield { kind: 'cpu', ns: freed * costs.allocNs };
  }

  /** get_scan_count: pages of both lists that are to be looked at. */
  #shareOf({ priority }: ScanControl): { inactive: number; active: number } {
    const { nrPages } = this.#folios.lruvec;
    return {
      inactive: nrPages[LruList.INACTIVE_FILE]! >> priority,
      active: nrPages[LruList.ACTIVE_FILE]! >> priority,
    };
  }

  #mayGoOn(sc: ScanControl, share: { inactive: number; active: number }): boolean {
    if (sc.reclaimed >= sc.targetPages) return false;
    return share.inactive > 0 || (share.active > 0 && this.#isInactiveLow());
  }

  /** inactive_is_low: how much larger the active list may be grows with memory. */
  #isInactiveLow(): boolean {
    const { nrPages } = this.#folios.lruvec;
    const inactive = nrPages[LruList.INACTIVE_FILE]!;
    const active = nrPages[LruList.ACTIVE_FILE]!;
    const gigabytes = (inactive + active) >> GIGABYTE_SHIFT;
    const ratio = gigabytes > 0 ? Math.floor(Math.sqrt(10 * gigabytes)) : 1;
    return inactive * ratio < active;
  }

  /** shrink_lruvec, as far as one batch of each list. */
  #shrinkBatch(sc: ScanControl, share: { inactive: number; active: number }): void {
    const { lruvec } = this.#folios;
    if (share.active > 0 && this.#isInactiveLow()) {
      const count = Math.min(share.active, SWAP_CLUSTER_MAX);
      this.#shrinkActive(count);
      share.active -= count;
    }
    const count = Math.min(share.inactive, SWAP_CLUSTER_MAX);
    share.inactive -= count;
    for (let i = 0; i < count; i++) {
      const pfn = lruvec.oldest(LruList.INACTIVE_FILE);
      if (pfn < 0) {
        share.inactive = 0;
        return;
      }
      this.#shrinkPage(sc, pfn);
    }
  }

  /** shrink_active_list: the oldest ones get inactive. */
  #shrinkActive(count: number): void {
    const { lruvec, mappings, pages } = this.#folios;
    const { vmstat } = this.#kernel.mm;
    for (let i = 0; i < count; i++) {
      const pfn = lruvec.oldest(LruList.ACTIVE_FILE);
      if (pfn < 0) return;
      vmstat.pgrefill++;
      mappings.of(pfn)?.referenced?.(pfn, pages.mappingIndex(pfn));
      lruvec.setActive(pfn, false);
      vmstat.pgdeactivate++;
    }
  }

  /** shrink_folio_list for the oldest inactive page: it is freed, or young again. */
  #shrinkPage(sc: ScanControl, pfn: Pfn): void {
    const { lruvec, locks, pages } = this.#folios;
    const { mm } = this.#kernel;
    if (pfn >= mm.zones[sc.highest]!.endPfn || !locks.tryLock(pfn)) {
      lruvec.rotate(pfn, false);
      return;
    }
    sc.scanned++;
    if (sc.by === 'kswapd') mm.vmstat.pgscan_kswapd++;
    else mm.vmstat.pgscan_direct++;
    pages.refcount[pfn]!++;
    const fate = this.#fateOf(sc, pfn);
    locks.unlock(pfn);
    if (this.#folios.put(pfn)) {
      sc.reclaimed++;
      if (sc.by === 'kswapd') mm.vmstat.pgsteal_kswapd++;
      else mm.vmstat.pgsteal_direct++;
    } else if (fate === Fate.ACTIVATE) {
      lruvec.setActive(pfn, true);
      mm.vmstat.pgactivate++;
    } else lruvec.rotate(pfn, false);
  }

  #fateOf(sc: ScanControl, pfn: Pfn): Fate {
    const { pages, mappings } = this.#folios;
    const mapping = mappings.of(pfn);
    // Truncated, and somebody else still holds it.
    if (!mapping) return Fate.KEEP;
    const index = pages.mappingIndex(pfn);
    if (pages.hasFlag(pfn, PageFlag.WRITEBACK)) {
      sc.waiting++;
      return Fate.KEEP;
    }
    // folio_check_references: used through several entries, or again since the last look. What was
    // only read goes if it is clean.
    const entries = mapping.referenced?.(pfn, index) ?? 0;
    const wasReferenced = pages.testAndClear(pfn, PageFlag.REFERENCED);
    if (entries > 0) {
      pages.setFlag(pfn, PageFlag.REFERENCED);
      return wasReferenced || entries > 1 ? Fate.ACTIVATE : Fate.KEEP;
    }
    if (pages.hasFlag(pfn, PageFlag.DIRTY)) {
      // Only kswapd writes: others would each begin a request of their own.
      sc.waiting++;
      if (sc.by === 'kswapd' && !wasReferenced) mapping.writepage?.(pfn, index);
      return Fate.KEEP;
    }
    return mapping.tryToDrop(pfn, index) ? Fate.RECLAIMED : Fate.KEEP;
  }
}
