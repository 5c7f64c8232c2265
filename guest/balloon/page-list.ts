/**
 * The list of a device's balloon pages, in the two shapes that movable pages have: linked through
 * page->lru, or an array of PFNs for pages without linkage. A page's place in `Pages.mapping` says
 * whether it is on the list (page->private in Linux): 0 means isolated, deflated or not yet in.
 */
import { assert, type Pfn } from '../../shared/index.ts';
import { MAPPING_INDEX_MAX, type Pages } from '../mm/index.ts';

/** The only balloon of the machine, as page->mapping names it. */
export const BALLOON_DEVICE = 1;

export interface BalloonPageList extends Iterable<Pfn> {
  readonly length: number;
  has(pfn: Pfn): boolean;
  add(pfn: Pfn): void;
  remove(pfn: Pfn): void;
  /** Takes the page that leaves next, or −1: the one that was added last, unless it is a queue. */
  pop(): Pfn;
}

/** Through page->lru. */
export class LinkedPageList implements BalloonPageList {
  length = 0;
  readonly #pages: Pages;
  readonly #head: number;
  readonly #isQueue: boolean;

  /** `leaves`: which page `pop` takes. */
  constructor(pages: Pages, leaves: 'newest' | 'oldest') {
    this.#pages = pages;
    this.#head = pages.newList();
    this.#isQueue = leaves === 'oldest';
  }

  has(pfn: Pfn): boolean {
    return this.#pages.mappingIndex(pfn) !== 0;
  }

  add(pfn: Pfn): void {
    assert(!this.has(pfn), 'a page is on the balloon list once');
    this.#pages.setMapping(pfn, BALLOON_DEVICE, 1);
    this.#pages.link(this.#head, pfn, false);
    this.length++;
  }

  remove(pfn: Pfn): void {
    assert(this.has(pfn), 'what leaves the balloon list is on it');
    this.#pages.setMapping(pfn, BALLOON_DEVICE, 0);
    this.#pages.unlink(pfn);
    this.length--;
  }

  pop(): Pfn {
    const { next, prev } = this.#pages;
    const pfn = (this.#isQueue ? prev : next)[this.#head]!;
    if (pfn === this.#head) return -1;
    this.remove(pfn);
    return pfn;
  }

  *[Symbol.iterator](): Generator<Pfn> {
    const { next } = this.#pages;
    for (let pfn = next[this.#head]!; pfn !== this.#head; pfn = next[pfn]!) yield pfn;
  }
}

const FIRST_CAPACITY = 1024;

/** Of PFNs; the place of each is one more than its index. */
export class PfnPageList implements BalloonPageList {
  length = 0;
  readonly #pages: Pages;
  #pfns = new Uint32Array(FIRST_CAPACITY);

  constructor(pages: Pages) {
    this.#pages = pages;
  }

  has(pfn: Pfn): boolean {
    return this.#pages.mappingIndex(pfn) !== 0;
  }

  add(pfn: Pfn): void {
    assert(!this.has(pfn), 'a page is on the balloon list once');
    assert(this.length < MAPPING_INDEX_MAX, 'a page’s place fits into its mapping');
    if (this.length === this.#pfns.length) {
      const larger = new Uint32Array(this.#pfns.length * 2);
      larger.set(this.#pfns);
      this.#pfns = larger;
    }
    this.#pfns[this.length++] = pfn;
    this.#pages.setMapping(pfn, BALLOON_DEVICE, this.length);
  }

  /** The last page takes its place. */
  remove(pfn: Pfn): void {
    const place = this.#pages.mappingIndex(pfn);
    assert(place !== 0, 'what leaves the balloon list is on it');
    const last = this.#pfns[--this.length]!;
    this.#pfns[place - 1] = last;
    this.#pages.setMapping(last, BALLOON_DEVICE, place);
    this.#pages.setMapping(pfn, BALLOON_DEVICE, 0);
  }

  pop(): Pfn {
    if (this.length === 0) return -1;
    const pfn = this.#pfns[this.length - 1]!;
    this.remove(pfn);
    return pfn;
  }

  *[Symbol.iterator](): Generator<Pfn> {
    for (let i = 0; i < this.length; i++) yield this.#pfns[i]!;
  }
}
