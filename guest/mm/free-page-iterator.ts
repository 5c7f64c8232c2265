/**
 * Free page information by start / step / end, as the review of the 2017 interface asked for: each
 * step holds the lock of one zone for at most `budgetNodes` list nodes. free-list-walk.ts says why
 * no block is missed although the lists change between the steps.
 */

import { assert, type Costs, Errno, type Nanoseconds } from '../../shared/index.ts';
import type { PageAllocator } from './page-allocator.ts';
import { MAX_PAGE_ORDER, PageFlag } from './pages.ts';
import { LISTS_PER_ZONE, type Zone } from './zone.ts';

/** Where a step puts what it found: the first `count` entries, as the step's result says. */
export interface FreeBlockBuffer {
  readonly pfns: Uint32Array;
  readonly orders: Uint8Array;
}

/**
 * What a step found. It *was* free when the lock was dropped, and may have been allocated in the
 * same instant: who uses it must be able to undo it (the dirty log). Only while
 * `zone.generation === generation` is it still so.
 */
export interface WasFreeUntilLockDropped {
  readonly validUntil: 'lock dropped';
  /** The zone whose lock was held, and its modification counter when it was dropped. */
  readonly zone: Zone;
  readonly generation: number;
  /** Blocks written to the buffer. */
  readonly count: number;
  readonly nodesVisited: number;
  readonly holdNs: Nanoseconds;
  /** Nothing is left to visit. */
  readonly done: boolean;
}

export interface WalkScope {
  /** Default: all zones, lowest first. */
  readonly zone?: Zone;
  /** Default 10. */
  readonly maxOrder?: number;
  /** Default 0. */
  readonly minOrder?: number;
}

export interface LockHolds {
  holds: number;
  nodes: number;
  maxNodes: number;
  totalNs: Nanoseconds;
  maxNs: Nanoseconds;
}

export class FreePageIterator {
  /** Over all walks of this iterator. */
  readonly statistics: LockHolds = { holds: 0, nodes: 0, maxNodes: 0, totalNs: 0, maxNs: 0 };
  readonly #mm: PageAllocator;
  readonly #costs: Costs;
  #isActive = false;
  #minOrder = 0;
  #maxOrder = 0;
  #endList = 0;
  /** Lists of orders above `maxOrder` and below `minOrder` are passed over in each zone. */
  #firstListInZone = 0;
  #endListInZone = 0;

  constructor(mm: PageAllocator, costs: Costs) {
    this.#mm = mm;
    this.#costs = costs;
  }

  /** EINVAL: impossible orders. EBUSY: another walk is under way, and the allocator keeps one cursor. */
  start(scope: WalkScope = {}): Errno {
    const maxOrder = scope.maxOrder ?? MAX_PAGE_ORDER;
    const minOrder = scope.minOrder ?? 0;
    if (!(minOrder >= 0 && minOrder <= maxOrder && maxOrder <= MAX_PAGE_ORDER)) return Errno.EINVAL;
    const { walk } = this.#mm.freeLists;
    if (walk.active) return Errno.EBUSY;
    const { zones } = this.#mm;
    const first = scope.zone ?? zones[0]!;
    const last = scope.zone ?? zones[zones.length - 1]!;
    const listsPerOrder = LISTS_PER_ZONE / (MAX_PAGE_ORDER + 1);
    this.#firstListInZone = (MAX_PAGE_ORDER - maxOrder) * listsPerOrder;
    this.#endListInZone = (MAX_PAGE_ORDER - minOrder + 1) * listsPerOrder;
    this.#minOrder = minOrder;
    this.#maxOrder = maxOrder;
    this.#endList = last.firstList + LISTS_PER_ZONE;
    this.#isActive = true;
    walk.start(first.firstList, this.#endList, minOrder, maxOrder);
    this.#skipLists();
    return Errno.OK;
  }

  /**
   * Holds one zone's lock for at most `budgetNodes` (≥ 1) nodes, and until `out` is full. Blocks
   * of one step are distinct and disjoint; a later step may repeat frames that merged since.
   */
  step(budgetNodes: number, out: FreeBlockBuffer): WasFreeUntilLockDropped {
    assert(this.#isActive, 'a walk was started');
    assert(budgetNodes >= 1, 'a step may visit at least one node');
    assert(out.pfns.length >= 1, 'the buffer holds at least one block');
    const { walk } = this.#mm.freeLists;
    const zone = this.#zoneOfStep();
    const found = { nodes: 0, count: 0 };
    this.#visitLists(zone, budgetNodes, out, found);
    if (walk.position >= this.#endList) this.#visitLate(zone, budgetNodes, out, found);
    return {
      validUntil: 'lock dropped',
      zone,
      generation: zone.generation,
      count: found.count,
      nodesVisited: found.nodes,
      holdNs: this.#recordHold(found.nodes),
      done: walk.position >= this.#endList && walk.lateCount === 0,
    };
  }

  /** Gives the cursor up; the allocator's lists are as they were. */
  end(): LockHolds {
    if (this.#isActive) this.#mm.freeLists.walk.end();
    this.#isActive = false;
    return this.statistics;
  }

  #zoneOfStep(): Zone {
    const { walk } = this.#mm.freeLists;
    const { zones } = this.#mm;
    const late = walk.peekLate();
    if (walk.position >= this.#endList && late >= 0) return this.#mm.zoneOf(late);
    return zones[Math.floor(Math.min(walk.position, this.#endList - 1) / LISTS_PER_ZONE)]!;
  }

  #visitLists(zone: Zone, budget: number, out: FreeBlockBuffer, found: Found): void {
    const { walk } = this.#mm.freeLists;
    const { next, listBase, order } = this.#mm.pages;
    const zoneEnd = Math.min(zone.firstList + LISTS_PER_ZONE, this.#endList);
    while (walk.position < zoneEnd && found.nodes < budget && found.count < out.pfns.length) {
      if (!walk.isEntered) walk.cursor = next[listBase + walk.position]!;
      const node = walk.cursor;
      if (node >= listBase) {
        walk.enter(walk.position + 1);
        this.#skipLists();
        continue;
      }
      found.nodes++;
      walk.cursor = next[node]!;
      if (!walk.isPending(node)) continue;
      walk.setDone(node);
      out.pfns[found.count] = node;
      out.orders[found.count] = order[node]!;
      found.count++;
    }
  }

  /** Blocks that came to lie behind the cursor while it went on. */
  #visitLate(zone: Zone, budget: number, out: FreeBlockBuffer, found: Found): void {
    const { walk } = this.#mm.freeLists;
    const { flags, order } = this.#mm.pages;
    while (walk.lateCount > 0 && found.nodes < budget && found.count < out.pfns.length) {
      const late = walk.peekLate();
      if (late < zone.startPfn || late >= zone.endPfn) return;
      walk.takeLate();
      found.nodes++;
      // The block may have gone, or grown into another, since it was queued.
      if ((flags[late]! & PageFlag.BUDDY) === 0 || !walk.isPending(late)) continue;
      if (order[late]! < this.#minOrder || order[late]! > this.#maxOrder) continue;
      walk.setDone(late);
      out.pfns[found.count] = late;
      out.orders[found.count] = order[late]!;
      found.count++;
    }
  }

  #skipLists(): void {
    const { walk } = this.#mm.freeLists;
    if (walk.position >= this.#endList) return;
    const inZone = walk.position % LISTS_PER_ZONE;
    if (inZone < this.#firstListInZone) {
      walk.enter(walk.position - inZone + this.#firstListInZone);
    } else if (inZone >= this.#endListInZone) {
      walk.enter(walk.position - inZone + LISTS_PER_ZONE);
      this.#skipLists();
    }
  }

  #recordHold(nodes: number): Nanoseconds {
    const holdNs = this.#costs.zoneLockNs + nodes * this.#costs.listNodeNs;
    const held = this.statistics;
    held.holds++;
    held.nodes += nodes;
    held.maxNodes = Math.max(held.maxNodes, nodes);
    held.totalNs += holdNs;
    held.maxNs = Math.max(held.maxNs, holdNs);
    return holdNs;
  }
}

interface Found {
  nodes: number;
  count: number;
}
