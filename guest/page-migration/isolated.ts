/**
 * Pages that were isolated in order to be moved, in the two shapes that page migration takes: a list
 * through page->lru, and an array of PFNs with a state each, for pages that have no list linkage.
 */
import { assert, type Pfn } from '../../shared/index.ts';
import type { Pages } from '../mm/index.ts';

/** A list of isolated pages. Pages join at the tail; heads are a scarce good: `recycle` it. */
export class IsolatedList {
  readonly shape = 'list';
  count = 0;
  readonly #pages: Pages;
  readonly #head: number;

  constructor(pages: Pages, head = pages.newList()) {
    this.#pages = pages;
    this.#head = head;
  }

  add(pfn: Pfn): void {
    this.#pages.link(this.#head, pfn, true);
    this.count++;
  }

  /** Takes the first page out, or −1. */
  shift(): Pfn {
    const pfn = this.#pages.next[this.#head]!;
    if (pfn === this.#head) return -1;
    this.#pages.unlink(pfn);
    this.count--;
    return pfn;
  }

  /** The pages, in order, without taking them. */
  *[Symbol.iterator](): Generator<Pfn> {
    const { next } = this.#pages;
    for (let pfn = next[this.#head]!; pfn !== this.#head; pfn = next[pfn]!) yield pfn;
  }
}

/** MIGRATE_PFN_*: an entry is a PFN above two flags; 0 is no page. */
export const MigratePfn = { VALID: 1 << 0, MIGRATE: 1 << 1, SHIFT: 2 } as const;
const PFN_FACTOR = 2 ** MigratePfn.SHIFT;

/**
 * An array of PFNs. MIGRATE of `src` says that the page is isolated and is to be moved, and after
 * migration that it was; a page that was not loses it. `dst` holds the pages it goes to.
 */
export class IsolatedPfns {
  readonly shape = 'pfn';
  /** Migration has run: MIGRATE tells what moved. */
  isMigrated = false;
  readonly src: Uint32Array;
  readonly dst: Uint32Array;
  count = 0;

  constructor(capacity: number) {
    this.src = new Uint32Array(capacity);
    this.dst = new Uint32Array(capacity);
  }

  add(pfn: Pfn): void {
    assert(this.count < this.src.length, 'the array holds what is added');
    this.src[this.count] = pfn * PFN_FACTOR + (MigratePfn.VALID | MigratePfn.MIGRATE);
    this.dst[this.count++] = 0;
  }

  /** Of an entry of `src` or `dst`. */
  pfnAt(entries: Uint32Array, index: number): Pfn {
    return entries[index]! >>> MigratePfn.SHIFT;
  }

  migrates(index: number): boolean {
    return (this.src[index]! & MigratePfn.MIGRATE) !== 0;
  }

  setTarget(index: number, pfn: Pfn): void {
    this.dst[index] = pfn * PFN_FACTOR + MigratePfn.VALID;
  }

  clearTarget(index: number): void {
    this.dst[index] = 0;
  }

  failed(index: number): void {
    this.src[index]! &= ~MigratePfn.MIGRATE;
  }

  clear(): void {
    this.count = 0;
    this.isMigrated = false;
  }
}
