/** The page lock and the end of writeback: PG_locked, PG_writeback (linux mm/filemap.c). */
import { assert, type Pfn } from '../../shared/index.ts';
import { PageFlag, type Pages } from '../mm/index.ts';
import { type Kthread, preempt, WaitQueue } from '../sched/kthread.ts';

const POINT = preempt('page lock');

export class PageLocks {
  readonly #pages: Pages;
  /** Of pages that somebody waits for. */
  readonly #queues = new Map<Pfn, WaitQueue>();

  constructor(pages: Pages) {
    this.#pages = pages;
  }

  isLocked(pfn: Pfn): boolean {
    return this.#pages.hasFlag(pfn, PageFlag.LOCKED);
  }

  /** folio_trylock: never waits, and is no preemption point. */
  tryLock(pfn: Pfn): boolean {
    return this.#pages.testAndSet(pfn, PageFlag.LOCKED);
  }

  /** folio_lock. The caller holds a reference, or something else that keeps the page. */
  *lock(pfn: Pfn): Kthread {
    yield POINT;
    while (!this.tryLock(pfn)) yield { kind: 'wait', queue: this.#queueOf(pfn) };
  }

  unlock(pfn: Pfn): void {
    const wasLocked = this.#pages.testAndClear(pfn, PageFlag.LOCKED);
    assert(wasLocked, 'a page that is unlocked was locked');
    this.#wake(pfn);
  }

  /** Until nobody holds the lock now: what a fault on a migration entry does. */
  *waitUnlocked(pfn: Pfn): Kthread {
    yield POINT;
    while (this.isLocked(pfn)) yield { kind: 'wait', queue: this.#queueOf(pfn) };
  }

  /** folio_wait_writeback */
  *waitWriteback(pfn: Pfn): Kthread {
    yield POINT;
    while (this.#pages.hasFlag(pfn, PageFlag.WRITEBACK)) {
      yield { kind: 'wait', queue: this.#queueOf(pfn) };
    }
  }

  /** folio_end_writeback */
  endWriteback(pfn: Pfn): void {
    const was = this.#pages.testAndClear(pfn, PageFlag.WRITEBACK);
    assert(was, 'writeback that ends was under way');
    this.#wake(pfn);
  }

  #queueOf(pfn: Pfn): WaitQueue {
    let queue = this.#queues.get(pfn);
    if (!queue) {
      queue = new WaitQueue();
      this.#queues.set(pfn, queue);
    }
    return queue;
  }

  #wake(pfn: Pfn): void {
    if (this.#queues.size === 0) return;
    const queue = this.#queues.get(pfn);
    if (!queue) return;
    this.#queues.delete(pfn);
    queue.wake();
  }
}
