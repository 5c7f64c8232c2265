/**
 * The pages of a balloon device, and what makes them movable (linux mm/balloon.c): a list that the
 * last page in leaves first, the pages that were isolated from it, and page migration, which swaps
 * one page of the balloon for another without copying anything.
 */
import { assert, Errno, type Pfn } from '../../shared/index.ts';
import type { Folios } from '../folio/index.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { Gfp, PageFlag, PageOwner } from '../mm/index.ts';
import type { MigrateMode, MovableGeneration, MovableOps } from '../page-migration/index.ts';
import type { Kthread } from '../sched/kthread.ts';
import { SpinLock } from '../sched/locks.ts';
import { BALLOON_DEVICE, type BalloonPageList, LinkedPageList, PfnPageList } from './page-list.ts';

/** balloon_page_alloc: may reclaim, but gives up early and leaves the reserves alone. */
const BALLOON_GFP = Gfp.GFP_HIGHUSER | Gfp.__GFP_NOMEMALLOC | Gfp.__GFP_NORETRY | Gfp.__GFP_NOWARN;

/** Pages that entered, left and moved, as /proc/vmstat counts them. */
export interface BalloonCounters {
  balloon_inflate: number;
  balloon_deflate: number;
  balloon_migrate: number;
}

/** What the balloon's pages are in: the kernel's folios and its movable pages. */
export interface BalloonMemory {
  readonly folios: Folios;
  readonly generation: MovableGeneration;
  /** CONFIG_BALLOON_COMPACTION: false leaves every page where it was allocated. */
  readonly compaction: boolean;
  /** What freed pages hold (`PageAllocator.freedContent`); default: nothing in particular. */
  readonly freedContent?: 'zero' | 'poison' | null;
}

export interface BalloonPagesOptions extends BalloonMemory {
  readonly kernel: Kernel;
  /** Which pages leave the balloon first; default: the newest. */
  readonly leaves?: 'newest' | 'oldest';
  readonly counters: BalloonCounters;
  /**
   * migratepage of balloon_dev_info: tells the host to take `dst` for `src`. OK: it has. ENOENT: it
   * has given `src` back and taken nothing for it, so the balloon is a page smaller. Anything else:
   * nothing has changed.
   */
  migratePage(dst: Pfn, src: Pfn, mode: MigrateMode): Kthread<Errno>;
}

export class BalloonPages implements MovableOps {
  readonly name = 'balloon';
  /** Guards the list and the count of isolated pages. */
  readonly #lock = new SpinLock('balloon_pages_lock');
  /** Pages in the balloon that page migration holds and the list does not. */
  isolatedPages = 0;
  /** adjust_managed_page_count: what is in the balloon is no memory of its zone. */
  adjustsManagedPages = true;
  readonly #options: BalloonPagesOptions;
  readonly #gfp: number;
  readonly #list: BalloonPageList;

  constructor(options: BalloonPagesOptions) {
    const { folios, generation, compaction, leaves = 'newest' } = options;
    this.#options = options;
    this.#gfp = compaction ? BALLOON_GFP | Gfp.__GFP_MOVABLE : BALLOON_GFP;
    const isLinked = generation.name === 'list' || leaves === 'oldest';
    this.#list = isLinked
      ? new LinkedPageList(folios.pages, leaves)
      : new PfnPageList(folios.pages);
    if (!compaction) return;
    const registered = generation.register(PageOwner.BALLOON, this);
    assert(registered === Errno.OK, 'a machine has one balloon');
  }

  /** Pages on the list. */
  get listedPages(): number {
    return this.#list.length;
  }

  /** balloon_page_alloc: a page that is not yet in the balloon, or −ENOMEM. */
  alloc(): number {
    return this.#options.kernel.mm.alloc(0, this.#gfp);
  }

  /** balloon_page_list_enqueue: the first `count` of `pfns`. */
  *enqueue(pfns: Int32Array, count: number): Kthread {
    yield* this.#lock.lock();
    for (let i = 0; i < count; i++) {
      this.#adopt(pfns[i]!);
      this.#list.add(pfns[i]!);
      this.#adjustManaged(pfns[i]!, -1);
    }
    this.#options.counters.balloon_inflate += count;
    this.#lock.unlock();
  }

  /**
   * balloon_page_list_dequeue: takes up to `count` pages off the list into `pfns` and returns how
   * many: fewer while others are isolated. They stay PG_offline and the balloon's until `release`.
   */
  *dequeue(pfns: Int32Array, count: number): Kthread<number> {
    yield* this.#lock.lock();
    let taken = 0;
    while (taken < count) {
      const pfn = this.#list.pop();
      if (pfn < 0) break;
      this.#adjustManaged(pfn, 1);
      pfns[taken++] = pfn;
    }
    assert(taken === count || this.isolatedPages > 0, 'no page of the balloon is lost');
    this.#options.counters.balloon_deflate += taken;
    this.#lock.unlock();
    return taken;
  }

  /** The host has acknowledged the deflate of the first `count` of `pfns`: they are freed. */
  *release(pfns: Int32Array, count: number): Kthread {
    const { generation, folios, compaction } = this.#options;
    for (let i = 0; i < count; i++) {
      const pfn = pfns[i]!;
      if (!compaction) {
        folios.pages.mapping[pfn] = 0;
        folios.put(pfn);
        continue;
      }
      // Somebody may be about to find out that the page cannot be isolated any more.
      const isReleased = generation.tryRelease(pfn) || (yield* generation.release(pfn));
      assert(isReleased, 'a page that has left the balloon list is not moved');
    }
  }

  /** balloon_page_isolate */
  *isolatePage(pfn: Pfn): Kthread<boolean> {
    yield* this.#lock.lock();
    const isListed = this.#list.has(pfn);
    if (isListed) {
      if (!this.#options.kernel.plants.balloonFreesIsolated) this.#list.remove(pfn);
      this.isolatedPages++;
    }
    this.#lock.unlock();
    return isListed;
  }

  /** balloon_page_putback */
  *putbackPage(pfn: Pfn): Kthread {
    yield* this.#lock.lock();
    const isLeft = this.#options.kernel.plants.balloonFreesIsolated && this.#list.has(pfn);
    if (!isLeft) this.#list.add(pfn);
    this.isolatedPages--;
    this.#lock.unlock();
  }

  /** balloon_page_migrate */
  *migratePage(dst: Pfn, src: Pfn, mode: MigrateMode): Kthread<Errno> {
    const { generation, folios, counters } = this.#options;
    const told = yield* this.#options.migratePage(dst, src, mode);
    if (told !== Errno.OK && told !== Errno.ENOENT) return told;
    yield* this.#lock.lock();
    this.#adjustManaged(src, 1);
    if (told === Errno.OK) {
      generation.transfer(src, dst);
      folios.pages.setOffline(dst);
      this.#list.add(dst);
      this.#adjustManaged(dst, -1);
      counters.balloon_migrate++;
    } else {
      generation.releaseIsolated(src);
      counters.balloon_deflate++;
    }
    this.isolatedPages--;
    this.#lock.unlock();
    return Errno.OK;
  }

  /** Empty when every page of the list is allocated to the balloon and to nobody else. */
  audit(): string[] {
    const { pages } = this.#options.folios;
    const problems: string[] = [];
    let walked = 0;
    const seen = new Set<Pfn>();
    for (const pfn of this.#list) {
      if (pages.isFree(pfn)) problems.push(`balloon page ${pfn} is free`);
      else if (!pages.isOffline(pfn)) problems.push(`balloon page ${pfn} is not offline`);
      else if (pages.owner[pfn] !== PageOwner.BALLOON) {
        problems.push(`balloon page ${pfn} belongs to owner ${pages.owner[pfn]}`);
      } else if (pages.hasFlag(pfn, PageFlag.MOVABLE) !== this.#options.compaction) {
        problems.push(`balloon page ${pfn} is ${this.#options.compaction ? 'not ' : ''}movable`);
      }
      if (seen.has(pfn)) return [...problems, `page ${pfn} is in the balloon twice`];
      seen.add(pfn);
      walked++;
    }
    if (walked !== this.#list.length) {
      problems.push(`the balloon list has ${walked} pages, counted ${this.#list.length}`);
    }
    if (this.isolatedPages < 0) problems.push(`${this.isolatedPages} balloon pages are isolated`);
    return problems;
  }

  #adopt(pfn: Pfn): void {
    const { generation, folios, compaction } = this.#options;
    const { pages } = folios;
    assert(!pages.isOffline(pfn), 'a page enters the balloon once');
    pages.setOffline(pfn);
    if (compaction) generation.adopt(pfn, PageOwner.BALLOON, BALLOON_DEVICE);
    else pages.setOwner(pfn, PageOwner.BALLOON);
  }

  #adjustManaged(pfn: Pfn, pages: 1 | -1): void {
    if (!this.adjustsManagedPages) return;
    this.#options.kernel.mm.zoneOf(pfn).managedPages += pages;
  }
}
