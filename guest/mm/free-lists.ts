/**
 * The buddy free lists of all zones: one intrusive list for each zone, order and migrate type,
 * with their counts. Every change of a list passes through here, so that counts, generations and
 * the walk agree by construction.
 */

import { assert, type Pfn } from '../../shared/index.ts';
import { FreeListWalk } from './free-list-walk.ts';
import { MigrateType } from './migratetype.ts';
import { PageFlag, type Pages } from './pages.ts';
import { freeListIndex, type Zone } from './zone.ts';

export class FreeLists {
  readonly pages: Pages;
  readonly walk: FreeListWalk;

  constructor(pages: Pages) {
    this.pages = pages;
    this.walk = new FreeListWalk(pages.walk, pages.listBase);
  }

  /** Index of the list's head in the link arrays. */
  headOf(zone: Zone, order: number, migratetype: number): number {
    return this.pages.listBase + zone.firstList + freeListIndex(order, migratetype);
  }

  /** First block of a list, or −1. */
  first(zone: Zone, order: number, migratetype: number): Pfn {
    const node = this.pages.next[this.headOf(zone, order, migratetype)]!;
    return node < this.pages.listBase ? node : -1;
  }

  /** The block behind this one on its list, or −1. */
  after(pfn: Pfn): Pfn {
    const node = this.pages.next[pfn]!;
    return node < this.pages.listBase ? node : -1;
  }

  /** `pending`: whether the walk, if there is one, still owes the block a visit. */
  add(
    zone: Zone,
    pfn: Pfn,
    order: number,
    migratetype: number,
    toTail: boolean,
    pending: boolean,
  ): void {
    const { pages } = this;
    const listInZone = freeListIndex(order, migratetype);
    pages.link(pages.listBase + zone.firstList + listInZone, pfn, toTail);
    pages.flags[pfn] = PageFlag.BUDDY;
    pages.order[pfn] = order;
    pages.migratetype[pfn] = migratetype;
    zone.nrFree[order]!++;
    zone.nrFreeByList[listInZone]!++;
    this.#account(zone, migratetype, 1 << order);
    if (this.walk.active) {
      this.walk.inserted(zone.firstList + listInZone, pfn, order, toTail, pending);
    }
  }

  /** Takes a block off its list; it is then a block of nobody, and the caller must place it. */
  remove(zone: Zone, pfn: Pfn): void {
    const { pages } = this;
    assert((pages.flags[pfn]! & PageFlag.BUDDY) !== 0, 'what leaves a free list is a buddy head');
    const order = pages.order[pfn]!;
    const migratetype = pages.migratetype[pfn]!;
    if (this.walk.active) this.walk.removing(pfn, pages.next[pfn]!);
    pages.unlink(pfn);
    pages.flags[pfn] = 0;
    zone.nrFree[order]!--;
    zone.nrFreeByList[freeListIndex(order, migratetype)]!--;
    this.#account(zone, migratetype, -(1 << order));
  }

  /** move_to_free_list: to the tail of the list of another type. */
  move(zone: Zone, pfn: Pfn, migratetype: number): void {
    const order = this.pages.order[pfn]!;
    const pending = this.isPending(pfn);
    const reported = this.pages.flags[pfn]! & PageFlag.REPORTED;
    this.remove(zone, pfn);
    this.add(zone, pfn, order, migratetype, true, pending);
    this.pages.flags[pfn]! |= reported;
  }

  /** list_rotate_to_front: this block becomes the first of its list; their order stays. */
  rotateToFront(zone: Zone, pfn: Pfn): void {
    const { pages } = this;
    assert((pages.flags[pfn]! & PageFlag.BUDDY) !== 0, 'what becomes first is on a free list');
    const list = this.headOf(zone, pages.order[pfn]!, pages.migratetype[pfn]!);
    if (pages.next[list] === pfn) return;
    pages.unlink(list);
    pages.link(pfn, list, true);
    this.walk.rotated(list - pages.listBase);
  }

  /** False when no walk is under way. */
  isPending(pfn: Pfn): boolean {
    return this.walk.active && this.walk.isPending(pfn);
  }

  /** Nodes of a list in order, for audits and tests. */
  *nodes(zone: Zone, order: number, migratetype: number): Generator<Pfn> {
    const head = this.headOf(zone, order, migratetype);
    for (let node = this.pages.next[head]!; node !== head; node = this.pages.next[node]!)
      yield node;
  }

  #account(zone: Zone, migratetype: number, pageDelta: number): void {
    zone.generation++;
    // As NR_FREE_PAGES: isolated memory is about to leave, so nobody may count on it.
    if (migratetype !== MigrateType.ISOLATE) zone.freePages += pageDelta;
    if (migratetype === MigrateType.CMA) zone.freeCmaPages += pageDelta;
  }
}
