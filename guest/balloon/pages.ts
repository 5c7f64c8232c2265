/**
 * The pages of the balloon (linux mm/balloon.c): allocated movable, marked PG_offline while they
 * are inside, the last one in is the first one out.
 */
import { assert, type Pfn } from '../../shared/index.ts';
import type { PageAllocator } from '../mm/index.ts';
import { Gfp, PageOwner } from '../mm/index.ts';

/** balloon_page_alloc: may reclaim, but gives up early and leaves the reserves alone. */
const BALLOON_GFP =
  Gfp.GFP_HIGHUSER_MOVABLE | Gfp.__GFP_NOMEMALLOC | Gfp.__GFP_NORETRY | Gfp.__GFP_NOWARN;

export class BalloonPages {
  readonly #mm: PageAllocator;
  readonly #list: Pfn[] = [];

  constructor(mm: PageAllocator) {
    this.#mm = mm;
  }

  get count(): number {
    return this.#list.length;
  }

  /** A page that is not yet in the balloon, or −ENOMEM. */
  alloc(): number {
    return this.#mm.alloc(0, BALLOON_GFP);
  }

  enqueue(pfn: Pfn): void {
    const { pages } = this.#mm;
    assert(!pages.isOffline(pfn), 'a page enters the balloon once');
    pages.setOffline(pfn);
    pages.setOwner(pfn, PageOwner.BALLOON);
    this.#list.push(pfn);
  }

  /** Takes a page out of the list; it stays PG_offline until it is freed. */
  dequeue(): Pfn {
    const pfn = this.#list.pop();
    assert(pfn !== undefined, 'no more pages leave the balloon than are in it');
    return pfn;
  }

  /** The host has acknowledged the deflate. */
  free(pfn: Pfn): void {
    this.#mm.pages.clearOffline(pfn);
    this.#mm.free(pfn, 0);
  }

  /** Empty when every page of the list is allocated to the balloon and to nobody else. */
  audit(): string[] {
    const { pages } = this.#mm;
    const problems: string[] = [];
    for (const pfn of this.#list) {
      if (pages.isFree(pfn)) problems.push(`balloon page ${pfn} is free`);
      else if (!pages.isOffline(pfn)) problems.push(`balloon page ${pfn} is not offline`);
      else if (pages.owner[pfn] !== PageOwner.BALLOON) {
        problems.push(`balloon page ${pfn} belongs to owner ${pages.owner[pfn]}`);
      }
    }
    const distinct = new Set(this.#list).size;
    if (distinct !== this.#list.length) problems.push('a page is in the balloon twice');
    return problems;
  }
}
