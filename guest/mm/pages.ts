/**
 * Page frame metadata as a structure of arrays: what `struct page` holds for the allocator.
 * Frames form blocks of 2^order. The head of a block carries its state; its tails carry none, so
 * the heads partition memory and every frame has exactly one owner.
 */

import { assert, type Pfn } from '../../shared/index.ts';

/** Largest order of the buddy lists: blocks of 4 MiB (MAX_ORDER − 1 in Linux 6.1). */
export const MAX_PAGE_ORDER = 10;
export const NR_PAGE_ORDERS = MAX_PAGE_ORDER + 1;
export const MAX_ORDER_NR_PAGES = 1 << MAX_PAGE_ORDER;
/** 2 MiB: the granularity of migrate types. */
export const PAGEBLOCK_ORDER = 9;
export const PAGEBLOCK_NR_PAGES = 1 << PAGEBLOCK_ORDER;

/** Masks of `Pages.flags`; a head has exactly one of BUDDY, PCP and ALLOCATED. */
export const PageFlag = {
  /** Head of a block on a buddy list. */
  BUDDY: 1 << 0,
  /** Head of a block on a per-CPU list. */
  PCP: 1 << 1,
  /** Head of an allocated block. */
  ALLOCATED: 1 << 2,
  /** Never given to the allocator: not part of the managed pages of its zone. */
  RESERVED: 1 << 3,
  /** Held by free page hinting until the host says DONE. */
  HELD: 1 << 4,
  /** In the balloon: PG_offline. */
  OFFLINE: 1 << 5,
} as const;

const HEAD = PageFlag.BUDDY | PageFlag.PCP | PageFlag.ALLOCATED;

/** Who uses an allocated block, for reports and audits. */
export const PageOwner = {
  NONE: 0,
  /** Allocated before the emulation began. */
  BOOT: 1,
  KERNEL: 2,
  /** Movable: user memory and page cache. */
  USER: 3,
  BALLOON: 4,
  HINTING: 5,
} as const;
export type PageOwner = (typeof PageOwner)[keyof typeof PageOwner];

/** flags, order, migratetype, owner, walk (1 byte each), refcount, next, prev (4), a free bit, and a pageblock's type. */
export const METADATA_BYTES_PER_PAGE = 5 + 12 + 1 / 8 + 1 / PAGEBLOCK_NR_PAGES;

export class Pages {
  readonly ramPages: number;
  /** Index of the first list head in `next` and `prev`; every smaller index is a frame. */
  readonly listBase: number;

  //   7   6     5       4       3         2       1     0
  // +---+---+---------+------+----------+-----------+-----+-------+
  // | 0 | 0 | OFFLINE | HELD | RESERVED | ALLOCATED | PCP | BUDDY |
  // +---+---+---------+------+----------+-----------+-----+-------+
  readonly flags: Uint8Array;
  /** Of a head: the order of its block. */
  readonly order: Uint8Array;
  /** Of a free head: the list it is on. Of an allocated one: what its allocation asked for. */
  readonly migratetype: Uint8Array;
  readonly owner: Uint8Array;
  /** Of a buddy head: whether the current free list walk still owes a visit (free-list-walk.ts). */
  readonly walk: Uint8Array;
  /** 0 is frozen: free, or allocated and owned by whoever froze it, and nobody else may take a reference. */
  readonly refcount: Int32Array;
  /** Links of circular lists. A list head is an index ≥ listBase, so that no insert or removal branches. */
  readonly next: Int32Array;
  readonly prev: Int32Array;
  /** One bit a frame: on a buddy or per-CPU list. */
  readonly freeBits: Int32Array;

  constructor(ramPages: number, listCount: number) {
    assert(Number.isInteger(ramPages) && ramPages > 0, 'the machine has at least one page');
    // Rounded up, so that the buddy of every frame has an index; the rest is never BUDDY.
    const padded = Math.ceil(ramPages / MAX_ORDER_NR_PAGES) * MAX_ORDER_NR_PAGES;
    assert(padded + listCount < 2 ** 31, 'frames and list heads are indexed by 31 bits');
    this.ramPages = ramPages;
    this.listBase = padded;
    this.flags = new Uint8Array(padded).fill(PageFlag.ALLOCATED, 0, ramPages);
    this.order = new Uint8Array(padded);
    this.migratetype = new Uint8Array(padded);
    this.owner = new Uint8Array(padded).fill(PageOwner.BOOT, 0, ramPages);
    this.walk = new Uint8Array(padded);
    this.refcount = new Int32Array(padded).fill(1, 0, ramPages);
    this.next = new Int32Array(padded + listCount);
    this.prev = new Int32Array(padded + listCount);
    this.freeBits = new Int32Array(padded >>> 5);
    for (let head = padded; head < padded + listCount; head++) {
      this.next[head] = head;
      this.prev[head] = head;
    }
  }

  /** Head of the block that contains `pfn`: blocks are aligned, so at most 11 places are looked at. */
  headOf(pfn: Pfn): Pfn {
    for (let order = 0; order <= MAX_PAGE_ORDER; order++) {
      const head = pfn & -(1 << order);
      if ((this.flags[head]! & HEAD) !== 0) {
        assert(head + (1 << this.order[head]!) > pfn, 'the nearest head covers the frame');
        return head;
      }
    }
    assert(false, 'every frame belongs to a block');
  }

  isFree(pfn: Pfn): boolean {
    return ((this.freeBits[pfn >>> 5]! >>> (pfn & 31)) & 1) === 1;
  }

  /** Whether all (`free`) or none (`!free`) of the aligned block are free. */
  areAll(pfn: Pfn, order: number, free: boolean): boolean {
    const bits = this.freeBits;
    const expected = free ? -1 : 0;
    const word = pfn >>> 5;
    if (order < 5) return ((bits[word]! ^ expected) & blockMask(pfn, order)) === 0;
    const end = word + (1 << (order - 5));
    for (let i = word; i < end; i++) if (bits[i] !== expected) return false;
    return true;
  }

  setFree(pfn: Pfn, order: number, free: boolean): void {
    const word = pfn >>> 5;
    if (order >= 5) this.freeBits.fill(free ? -1 : 0, word, word + (1 << (order - 5)));
    else if (free) this.freeBits[word]! |= blockMask(pfn, order);
    else this.freeBits[word]! &= ~blockMask(pfn, order);
  }

  /** Takes a reference unless the count is frozen: get_page_unless_zero. */
  tryGet(pfn: Pfn): boolean {
    if (this.refcount[pfn] === 0) return false;
    this.refcount[pfn]!++;
    return true;
  }

  /** Drops a reference; true if it was the last: put_page_testzero. */
  putTestZero(pfn: Pfn): boolean {
    assert(this.refcount[pfn]! > 0, 'a reference that is dropped was held');
    return --this.refcount[pfn]! === 0;
  }

  /** Freezes the count if it is what the caller can account for: page_ref_freeze. */
  freeze(pfn: Pfn, expectedCount: number): boolean {
    if (expectedCount === 0 || this.refcount[pfn] !== expectedCount) return false;
    this.refcount[pfn] = 0;
    return true;
  }

  unfreeze(pfn: Pfn, count: number): void {
    assert(this.refcount[pfn] === 0 && count > 0, 'only a frozen count is unfrozen');
    this.refcount[pfn] = count;
  }

  setOwner(pfn: Pfn, owner: PageOwner): void {
    this.owner[pfn] = owner;
  }

  isOffline(pfn: Pfn): boolean {
    return (this.flags[pfn]! & PageFlag.OFFLINE) !== 0;
  }

  setOffline(pfn: Pfn): void {
    this.#setFlag(pfn, PageFlag.OFFLINE);
  }

  clearOffline(pfn: Pfn): void {
    this.flags[pfn]! &= ~PageFlag.OFFLINE;
  }

  isHeld(pfn: Pfn): boolean {
    return (this.flags[pfn]! & PageFlag.HELD) !== 0;
  }

  setHeld(pfn: Pfn): void {
    this.#setFlag(pfn, PageFlag.HELD);
  }

  clearHeld(pfn: Pfn): void {
    this.flags[pfn]! &= ~PageFlag.HELD;
  }

  /** Allocated frames become nobody's, however they were allocated. */
  disown(pfn: Pfn, order: number): void {
    const isWhole = (this.flags[pfn]! & PageFlag.ALLOCATED) !== 0 && this.order[pfn] === order;
    if (!isWhole) this.#reshape(pfn, order);
    assert(this.refcount[pfn]! <= 1, 'nobody else holds a reference to what is freed');
    this.flags[pfn] = 0;
    this.owner[pfn] = PageOwner.NONE;
    this.refcount[pfn] = 0;
  }

  /** Makes one allocated block of these frames: split_page, or its opposite. */
  #reshape(pfn: Pfn, order: number): void {
    const head = this.headOf(pfn);
    assert((this.flags[head]! & PageFlag.ALLOCATED) !== 0, 'what is freed was allocated');
    let high = this.order[head]!;
    let start = head;
    while (high > order) {
      high--;
      const upper = start + (1 << high);
      for (const part of [start, upper]) {
        this.flags[part] = this.flags[head]!;
        this.order[part] = high;
        this.owner[part] = this.owner[head]!;
        this.migratetype[part] = this.migratetype[head]!;
        this.refcount[part] = this.refcount[head]!;
      }
      if (pfn >= upper) start = upper;
    }
    for (let at = pfn; at < pfn + (1 << order); ) {
      const next = at + (1 << this.order[at]!);
      assert(this.refcount[at]! <= 1, 'nobody else holds a reference to what is freed');
      if (at !== pfn) {
        this.flags[at] = 0;
        this.owner[at] = PageOwner.NONE;
        this.refcount[at] = 0;
      }
      at = next;
    }
    this.order[pfn] = order;
  }

  #setFlag(pfn: Pfn, flag: number): void {
    assert((this.flags[pfn]! & PageFlag.ALLOCATED) !== 0, 'only an allocated block is marked');
    this.flags[pfn]! |= flag;
  }

  /** Appends at the head (`toTail` false) or the tail of a list. */
  link(list: number, node: number, toTail: boolean): void {
    const { next, prev } = this;
    const before = toTail ? prev[list]! : list;
    const after = toTail ? list : next[list]!;
    next[before] = node;
    prev[node] = before;
    next[node] = after;
    prev[after] = node;
  }

  unlink(node: number): void {
    const { next, prev } = this;
    const before = prev[node]!;
    const after = next[node]!;
    next[before] = after;
    prev[after] = before;
  }
}

function blockMask(pfn: Pfn, order: number): number {
  return ((1 << (1 << order)) - 1) << (pfn & 31);
}
