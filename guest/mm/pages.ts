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
  /** Page type PageOffline: given to the hypervisor. Sticky until the page is freed. */
  OFFLINE: 1 << 5,
  /** PG_locked: the page lock (page-lock.ts). */
  LOCKED: 1 << 6,
  /** PG_lru: on an LRU list, and so in nobody's private hands. */
  LRU: 1 << 7,
  ACTIVE: 1 << 8,
  REFERENCED: 1 << 9,
  /**
   * PG_reported: the host knows the content of this buddy head to be of no use. The same bit as
   * REFERENCED, which no free page has; it is gone when the block leaves its list.
   */
  REPORTED: 1 << 9,
  DIRTY: 1 << 10,
  WRITEBACK: 1 << 11,
  /** PG_movable_ops: its owner implements MovableOps. */
  MOVABLE: 1 << 12,
  /** PG_movable_ops_isolated: means something only together with MOVABLE. */
  ISOLATED: 1 << 13,
  /** Hardware memory error: never to be allocated again. */
  HWPOISON: 1 << 14,
  UNEVICTABLE: 1 << 15,
} as const;

const HEAD = PageFlag.BUDDY | PageFlag.PCP | PageFlag.ALLOCATED;

/** A page with one of these cannot be given to the allocator: PAGE_FLAGS_CHECK_AT_FREE. */
const UNFREEABLE =
  PageFlag.LRU | PageFlag.LOCKED | PageFlag.WRITEBACK | PageFlag.HWPOISON | PageFlag.ISOLATED;

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
  /** Anonymous memory of processes; its `mapping` names an anon_vma. */
  ANON: 6,
  /** Page cache of a file; its `mapping` names an address_space. */
  FILE: 7,
  SLAB: 8,
  /** A leaf page table. */
  TABLE: 9,
  /** A zsmalloc-like pool. */
  ZSMALLOC: 10,
  /** A driver that maps its pages into user space. */
  DRIVER: 11,
  /** Taken out of use after a memory error. */
  POISONED: 12,
  /** Isolated free pages: targets of compaction. */
  COMPACTION: 13,
  /** Of a contiguous range that alloc_contig_range gave to somebody. */
  CONTIG: 14,
  /** Shared memory: page cache that is backed by swap, and so on the anonymous LRU lists. */
  SHMEM: 15,
  /** Isolated free pages that are being reported to the host. */
  REPORTING: 16,
} as const;
export type PageOwner = (typeof PageOwner)[keyof typeof PageOwner];

/**
 * flags (2 bytes), order, migratetype, owner, walk, mapcount (1 each), refcount, mapping, next, prev
 * (4 each), a free bit, and a pageblock's type.
 */
export const METADATA_BYTES_PER_PAGE = 7 + 16 + 1 / 8 + 1 / PAGEBLOCK_NR_PAGES;

/** GUP_PIN_COUNTING_BIAS: a pin of pin_user_pages counts as so many references. */
export const GUP_PIN_COUNTING_BIAS = 1024;
/** `Pages.mapping`: number of the object in the high byte, index in it below. */
const MAPPING_INDEX_BITS = 24;
export const MAPPING_INDEX_MAX = 2 ** MAPPING_INDEX_BITS - 1;
/** List heads beyond the allocator's own: `Pages.newList`. */
const SPARE_LISTS = 64;

export class Pages {
  readonly ramPages: number;
  /** Index of the first list head in `next` and `prev`; every smaller index is a frame. */
  readonly listBase: number;

  /** Of a head: `PageFlag` bits. */
  readonly flags: Uint16Array;
  /** Of a head: the order of its block. */
  readonly order: Uint8Array;
  /** Of a free head: the list it is on. Of an allocated one: what its allocation asked for. */
  readonly migratetype: Uint8Array;
  readonly owner: Uint8Array;
  /** Of a buddy head: whether the current free list walk still owes a visit (free-list-walk.ts). */
  readonly walk: Uint8Array;
  /** 0 is frozen: free, or allocated and owned by whoever froze it, and nobody else may take a reference. */
  readonly refcount: Int32Array;
  /** Page table entries that map the page; each of them holds a reference. */
  readonly mapcount: Uint8Array;
  /** What the page is part of (page->mapping and ->index): number << 24 | index; 0: nothing. */
  readonly mapping: Uint32Array;
  /** Links of circular lists. A list head is an index ≥ listBase, so that no insert or removal branches. */
  readonly next: Int32Array;
  readonly prev: Int32Array;
  /** One bit a frame: on a buddy or per-CPU list. */
  readonly freeBits: Int32Array;
  #nextSpareList: number;

  constructor(ramPages: number, listCount: number) {
    assert(Number.isInteger(ramPages) && ramPages > 0, 'the machine has at least one page');
    // Rounded up, so that the buddy of every frame has an index; the rest is never BUDDY.
    const padded = Math.ceil(ramPages / MAX_ORDER_NR_PAGES) * MAX_ORDER_NR_PAGES;
    const heads = listCount + SPARE_LISTS;
    assert(padded + heads < 2 ** 31, 'frames and list heads are indexed by 31 bits');
    this.ramPages = ramPages;
    this.listBase = padded;
    this.flags = new Uint16Array(padded).fill(PageFlag.ALLOCATED, 0, ramPages);
    this.order = new Uint8Array(padded);
    this.migratetype = new Uint8Array(padded);
    this.owner = new Uint8Array(padded).fill(PageOwner.BOOT, 0, ramPages);
    this.walk = new Uint8Array(padded);
    this.refcount = new Int32Array(padded).fill(1, 0, ramPages);
    this.mapcount = new Uint8Array(padded);
    this.mapping = new Uint32Array(padded);
    this.next = new Int32Array(padded + heads);
    this.prev = new Int32Array(padded + heads);
    this.freeBits = new Int32Array(padded >>> 5);
    for (let head = padded; head < padded + heads; head++) this.initList(head);
    this.#nextSpareList = padded + listCount;
  }

  /** The head of a new, empty list of pages. There are 64 in all. */
  newList(): number {
    assert(this.#nextSpareList < this.next.length, 'the spare list heads suffice');
    return this.#nextSpareList++;
  }

  initList(head: number): void {
    this.next[head] = head;
    this.prev[head] = head;
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

  hasFlag(pfn: Pfn, flag: number): boolean {
    return (this.flags[pfn]! & flag) !== 0;
  }

  setFlag(pfn: Pfn, flag: number): void {
    this.flags[pfn]! |= flag;
  }

  clearFlag(pfn: Pfn, flag: number): void {
    this.flags[pfn]! &= ~flag;
  }

  /** Sets a flag that was clear; false if it was set: test_and_set_bit. */
  testAndSet(pfn: Pfn, flag: number): boolean {
    const before = this.flags[pfn]!;
    this.flags[pfn] = before | flag;
    return (before & flag) === 0;
  }

  /** Clears a flag that was set; false if it was clear: test_and_clear_bit. */
  testAndClear(pfn: Pfn, flag: number): boolean {
    const before = this.flags[pfn]!;
    this.flags[pfn] = before & ~flag;
    return (before & flag) !== 0;
  }

  /** folio_maybe_dma_pinned: so many references that some of them are pins, or look like it. */
  maybeDmaPinned(pfn: Pfn): boolean {
    return this.refcount[pfn]! >= GUP_PIN_COUNTING_BIAS;
  }

  setMapping(pfn: Pfn, object: number, index: number): void {
    this.mapping[pfn] = object * 2 ** MAPPING_INDEX_BITS + index;
  }

  /** Number of the object that the page is part of; 0: none. */
  mappingObject(pfn: Pfn): number {
    return this.mapping[pfn]! >>> MAPPING_INDEX_BITS;
  }

  mappingIndex(pfn: Pfn): number {
    return this.mapping[pfn]! & MAPPING_INDEX_MAX;
  }

  setOwner(pfn: Pfn, owner: PageOwner): void {
    this.owner[pfn] = owner;
  }

  isOffline(pfn: Pfn): boolean {
    return (this.flags[pfn]! & PageFlag.OFFLINE) !== 0;
  }

  setOffline(pfn: Pfn): void {
    this.#mark(pfn, PageFlag.OFFLINE);
  }

  isHeld(pfn: Pfn): boolean {
    return (this.flags[pfn]! & PageFlag.HELD) !== 0;
  }

  setHeld(pfn: Pfn): void {
    this.#mark(pfn, PageFlag.HELD);
  }

  clearHeld(pfn: Pfn): void {
    this.flags[pfn]! &= ~PageFlag.HELD;
  }

  /** Allocated frames become nobody's, however they were allocated. */
  disown(pfn: Pfn, order: number): void {
    const isWhole = (this.flags[pfn]! & PageFlag.ALLOCATED) !== 0 && this.order[pfn] === order;
    if (!isWhole) this.#reshape(pfn, order);
    assert(this.refcount[pfn]! <= 1, 'nobody else holds a reference to what is freed');
    assert(this.mapcount[pfn] === 0, 'no page table maps what is freed');
    assert(
      (this.flags[pfn]! & UNFREEABLE) === 0,
      'what is freed is on no list, unlocked and sound',
    );
    this.flags[pfn] = 0;
    this.owner[pfn] = PageOwner.NONE;
    this.refcount[pfn] = 0;
    this.mapping[pfn] = 0;
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

  #mark(pfn: Pfn, flag: number): void {
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
