/**
 * The LRU lists of the node (linux mm/swap.c, mm/vmscan.c). A page on a list has PG_lru and no
 * reference of the list's own; who isolates a page takes it off its list, clears PG_lru and holds a
 * reference. Plain code: a coroutine that must not be interrupted in between takes `lock`.
 */
import { assert, type Pfn } from '../../shared/index.ts';
import { PageFlag, PageOwner, type Pages } from '../mm/index.ts';
import { SpinLock } from '../sched/locks.ts';

/** enum lru_list */
export const LruList = {
  INACTIVE_ANON: 0,
  ACTIVE_ANON: 1,
  INACTIVE_FILE: 2,
  ACTIVE_FILE: 3,
  UNEVICTABLE: 4,
} as const;
export type LruList = (typeof LruList)[keyof typeof LruList];
const NR_LRU_LISTS = 5;

export class Lruvec {
  readonly lock = new SpinLock('lruvec lock');
  /** Pages on each list, by `LruList`. */
  readonly nrPages = new Int32Array(NR_LRU_LISTS);
  /** NR_ISOLATED_ANON and NR_ISOLATED_FILE, in pages. */
  isolatedAnonPages = 0;
  isolatedFilePages = 0;
  readonly #pages: Pages;
  readonly #heads: number[];

  constructor(pages: Pages) {
    this.#pages = pages;
    this.#heads = Array.from({ length: NR_LRU_LISTS }, () => pages.newList());
  }

  /** The list that the page's flags name. */
  listOf(pfn: Pfn): LruList {
    const pages = this.#pages;
    if (pages.hasFlag(pfn, PageFlag.UNEVICTABLE)) return LruList.UNEVICTABLE;
    const isActive = pages.hasFlag(pfn, PageFlag.ACTIVE) ? 1 : 0;
    return ((this.#isSwapBacked(pfn) ? 0 : 2) + isActive) as LruList;
  }

  /** folio_add_lru: at the head, which is the youngest place. */
  add(pfn: Pfn): void {
    const isNew = this.#pages.testAndSet(pfn, PageFlag.LRU);
    assert(isNew, 'a page is on one LRU list at most');
    const list = this.listOf(pfn);
    this.#pages.link(this.#heads[list]!, pfn, false);
    this.nrPages[list]! += 1 << this.#pages.order[pfn]!;
  }

  /** folio_activate, folio_deactivate: a page on a list moves to the head of the other one. */
  setActive(pfn: Pfn, isActive: boolean): void {
    this.remove(pfn);
    if (isActive) this.#pages.setFlag(pfn, PageFlag.ACTIVE);
    else this.#pages.clearFlag(pfn, PageFlag.ACTIVE);
    this.add(pfn);
  }

  /** A page on a list becomes its youngest (`toTail` false) or its oldest. */
  rotate(pfn: Pfn, toTail: boolean): void {
    this.#pages.unlink(pfn);
    this.#pages.link(this.#heads[this.listOf(pfn)]!, pfn, toTail);
  }

  /** Takes a page off its list: its last reference is gone, or its list is to change. */
  remove(pfn: Pfn): void {
    const was = this.#pages.testAndClear(pfn, PageFlag.LRU);
    assert(was, 'a page that leaves the LRU was there');
    this.nrPages[this.listOf(pfn)]! -= 1 << this.#pages.order[pfn]!;
    this.#pages.unlink(pfn);
  }

  /** folio_isolate_lru: false if the page is not on a list or about to be freed. Counts NR_ISOLATED_*. */
  isolate(pfn: Pfn): boolean {
    const pages = this.#pages;
    if (!pages.hasFlag(pfn, PageFlag.LRU) || !pages.tryGet(pfn)) return false;
    this.remove(pfn);
    this.#countIsolated(pfn, 1);
    return true;
  }

  /** An isolated page is no longer counted: it goes back, or to whoever frees it. */
  uncountIsolated(pfn: Pfn): void {
    this.#countIsolated(pfn, -1);
  }

  /** The oldest page of a list, or −1. */
  oldest(list: LruList): Pfn {
    const head = this.#heads[list]!;
    const node = this.#pages.prev[head]!;
    return node === head ? -1 : node;
  }

  /** The next younger page of a list, or −1. */
  younger(list: LruList, pfn: Pfn): Pfn {
    const node = this.#pages.prev[pfn]!;
    return node === this.#heads[list]! ? -1 : node;
  }

  /** Active and inactive pages, those that cannot be evicted left out. */
  get evictablePages(): number {
    return this.nrPages[0]! + this.nrPages[1]! + this.nrPages[2]! + this.nrPages[3]!;
  }

  #countIsolated(pfn: Pfn, sign: 1 | -1): void {
    const pageCount = sign * (1 << this.#pages.order[pfn]!);
    if (this.#isSwapBacked(pfn)) this.isolatedAnonPages += pageCount;
    else this.isolatedFilePages += pageCount;
  }

  /** The opposite of folio_is_file_lru: only swapping could reclaim it. */
  #isSwapBacked(pfn: Pfn): boolean {
    const owner = this.#pages.owner[pfn];
    return owner === PageOwner.ANON || owner === PageOwner.SHMEM;
  }
}
