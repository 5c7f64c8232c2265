/**
 * State of the one free list walk that may be under way. The lists change between its steps, so
 * the free lists tell it of every removal and insertion. Its promise: a frame that stays on the
 * buddy lists from start to end is in a block that was yielded, whatever happens around it.
 *
 * The invariant behind it: every block that still owes a visit (*pending*) is ahead of the cursor
 * or in the late queue.
 * - The node under the cursor is removed: the cursor moves to its successor.
 * - A pending block is inserted behind the cursor (a merge into a larger order, a steal into
 *   another type, the remainder of a split): it is queued.
 * - A merge is pending if a part of it is; the parts of a split inherit; a block that is freed
 *   during the walk owes nothing, so that churn does not keep the walk from ending.
 * Work is bounded: the walk visits the blocks of its start, plus at most one for each block that a
 * later change inserts.
 */

import type { Pfn } from '../../shared/index.ts';

/** The list at `position` has not been entered yet. */
const NOT_ENTERED = -1;

export class FreeListWalk {
  active = false;
  /** Planted bug: the cursor stays on a node that leaves its list. */
  cursorDangles = false;
  /** Index of the list that the cursor is on. */
  position = 0;
  /** The node to visit next, a list head at the end of its list, or NOT_ENTERED. */
  cursor: number = NOT_ENTERED;
  #stamps: Uint8Array;
  #listBase: number;
  #minOrder = 0;
  #maxOrder = 0;
  #firstList = 0;
  #endList = 0;
  #doneStamp = 1;
  #queuedStamp = 2;
  #late = new Int32Array(64);
  #lateStart = 0;
  #lateCount = 0;

  constructor(stamps: Uint8Array, listBase: number) {
    this.#stamps = stamps;
    this.#listBase = listBase;
  }

  /** Lists `firstList` up to `endList` (exclusive), orders `minOrder` up to `maxOrder`. */
  start(firstList: number, endList: number, minOrder: number, maxOrder: number): void {
    this.active = true;
    this.#firstList = firstList;
    this.#endList = endList;
    this.#minOrder = minOrder;
    this.#maxOrder = maxOrder;
    this.#lateStart = 0;
    this.#lateCount = 0;
    this.enter(firstList);
    // New stamps make all blocks pending at once; no list is touched under the lock.
    this.#doneStamp += 2;
    if (this.#doneStamp > 253) {
      this.#stamps.fill(0);
      this.#doneStamp = 1;
    }
    this.#queuedStamp = this.#doneStamp + 1;
  }

  end(): void {
    this.active = false;
    this.enter(0);
  }

  /** Moves to the start of a list. */
  enter(position: number): void {
    this.position = position;
    this.cursor = NOT_ENTERED;
  }

  get isEntered(): boolean {
    return this.cursor !== NOT_ENTERED;
  }

  isPending(pfn: Pfn): boolean {
    return this.#stamps[pfn] !== this.#doneStamp;
  }

  setDone(pfn: Pfn): void {
    this.#stamps[pfn] = this.#doneStamp;
  }

  /** The free lists call it before a node leaves its list. */
  removing(pfn: Pfn, next: number): void {
    if (pfn === this.cursor && !this.cursorDangles) this.cursor = next;
  }

  /** The free lists call it for each block they insert during a walk. */
  inserted(list: number, pfn: Pfn, order: number, toTail: boolean, pending: boolean): void {
    if (!pending) {
      this.#stamps[pfn] = this.#doneStamp;
      return;
    }
    if (this.#stamps[pfn] === this.#queuedStamp) return;
    this.#stamps[pfn] = 0;
    if (order < this.#minOrder || order > this.#maxOrder) return;
    if (list < this.#firstList || list >= this.#endList || !this.#isBehind(list, toTail)) return;
    this.#stamps[pfn] = this.#queuedStamp;
    this.#pushLate(pfn);
  }

  /** The list begins elsewhere now: what is behind the cursor may owe a visit, so it starts again. */
  rotated(list: number): void {
    if (this.active && list === this.position) this.enter(list);
  }

  get lateCount(): number {
    return this.#lateCount;
  }

  /** The oldest late block, which may have ceased to be one, or −1. */
  peekLate(): Pfn {
    return this.#lateCount === 0 ? -1 : this.#late[this.#lateStart]!;
  }

  takeLate(): Pfn {
    const pfn = this.peekLate();
    this.#lateStart = (this.#lateStart + 1) & (this.#late.length - 1);
    this.#lateCount--;
    // From here on the stamp must not say queued, or its next block would be left out.
    if (this.#stamps[pfn] === this.#queuedStamp) this.#stamps[pfn] = 0;
    return pfn;
  }

  #isBehind(list: number, toTail: boolean): boolean {
    if (list !== this.position) return list < this.position;
    if (this.cursor === NOT_ENTERED) return false;
    // At the end of its list, the cursor would pass by what is appended before the list head.
    return !toTail || this.cursor >= this.#listBase;
  }

  #pushLate(pfn: Pfn): void {
    if (this.#lateCount === this.#late.length) {
      const grown = new Int32Array(this.#late.length * 2);
      for (let i = 0; i < this.#lateCount; i++) {
        grown[i] = this.#late[(this.#lateStart + i) & (this.#late.length - 1)]!;
      }
      this.#late = grown;
      this.#lateStart = 0;
    }
    this.#late[(this.#lateStart + this.#lateCount) & (this.#late.length - 1)] = pfn;
    this.#lateCount++;
  }
}
