/**
 * Movable pages as merged in Linux 4.8 and reworked until 6.17: a movable page has a reference of
 * its owner; isolation takes another one and is marked by PG_isolated under the page lock; isolated
 * pages hang on lists through page->lru. PG_movable is sticky until the page is freed; a driver that
 * gives up an isolated page takes its device away from it, and that is how it is recognised.
 */
import { assert, Errno, type Pfn } from '../../shared/index.ts';
import type { Folios } from '../folio/index.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { PageFlag, type PageOwner } from '../mm/index.ts';
import { type Kthread, preempt } from '../sched/kthread.ts';
import type { MigrateMode } from './modes.ts';
import type { MovableGeneration, MovableOps } from './movable-ops.ts';
import { OpsTable } from './ops-table.ts';

const BEFORE_TRYLOCK = preempt('isolate_movable_ops_page: before trylock_page');
const BEFORE_SET_ISOLATED = preempt('isolate_movable_ops_page: before SetPageIsolated');

export class ListGeneration implements MovableGeneration {
  readonly name = 'list';
  readonly #kernel: Kernel;
  readonly #folios: Folios;
  readonly #ops: OpsTable;

  constructor(kernel: Kernel, folios: Folios) {
    this.#kernel = kernel;
    this.#folios = folios;
    this.#ops = new OpsTable(folios.pages);
  }

  register(type: PageOwner, ops: MovableOps): Errno {
    return this.#ops.register(type, ops);
  }

  adopt(pfn: Pfn, type: PageOwner, device: number): void {
    const { pages } = this.#folios;
    assert(pages.refcount[pfn]! >= 1 && device > 0, 'an allocated page gets an owner');
    pages.setOwner(pfn, type);
    pages.setMapping(pfn, device, 0);
    pages.setFlag(pfn, PageFlag.MOVABLE);
  }

  transfer(src: Pfn, dst: Pfn): void {
    const { pages } = this.#folios;
    pages.refcount[dst]!++;
    this.adopt(dst, pages.owner[src]! as PageOwner, pages.mappingObject(src));
    pages.mapping[src] = 0;
    this.#folios.put(src);
  }

  *release(pfn: Pfn, cpu = 0): Kthread {
    const { pages, locks } = this.#folios;
    // Under the lock nobody is half way through isolating it.
    yield* locks.lock(pfn);
    pages.mapping[pfn] = 0;
    if (this.#kernel.plants.driverClearsMovableOfIsolated) pages.clearFlag(pfn, PageFlag.MOVABLE);
    this.#kernel.tracer?.note('release', pfn);
    locks.unlock(pfn);
    this.#folios.put(pfn, cpu);
  }

  isIsolated(pfn: Pfn): boolean {
    const { pages } = this.#folios;
    return pages.hasFlag(pfn, PageFlag.MOVABLE) && pages.hasFlag(pfn, PageFlag.ISOLATED);
  }

  deviceOf(pfn: Pfn): number {
    return this.#folios.pages.mappingObject(pfn);
  }

  *isolate(pfn: Pfn, mode: MigrateMode): Kthread<boolean> {
    const { pages, locks } = this.#folios;
    if (!pages.tryGet(pfn)) return false;
    // Before the lock: a page that is still being made has flags that no lock protects.
    if (!this.#isMovable(pfn)) return this.#giveUp(pfn, false);
    yield BEFORE_TRYLOCK;
    const locked = !this.#kernel.plants.isolateWithoutPageLock;
    if (locked && !locks.tryLock(pfn)) return this.#giveUp(pfn, false);
    if (!this.#isMovable(pfn) || this.isIsolated(pfn)) return this.#giveUp(pfn, locked);
    if (!(yield* this.#ops.of(pfn).isolatePage(pfn, mode))) return this.#giveUp(pfn, locked);
    if (!locked) yield BEFORE_SET_ISOLATED;
    pages.setFlag(pfn, PageFlag.ISOLATED);
    this.#kernel.tracer?.note('isolate', pfn);
    if (locked) locks.unlock(pfn);
    return true;
  }

  *putback(pfn: Pfn): Kthread {
    const { pages, locks } = this.#folios;
    yield* locks.lock(pfn);
    const { putbackAfterSuccess } = this.#kernel.plants;
    if (this.#isMovable(pfn) || putbackAfterSuccess) yield* this.#ops.of(pfn).putbackPage(pfn);
    pages.clearFlag(pfn, PageFlag.ISOLATED);
    this.#kernel.tracer?.note('putback', pfn);
    locks.unlock(pfn);
    this.#folios.put(pfn);
  }

  tryLock(pfn: Pfn): boolean {
    return this.#folios.locks.tryLock(pfn);
  }

  lock(pfn: Pfn): Kthread {
    return this.#folios.locks.lock(pfn);
  }

  unlock(pfn: Pfn): void {
    this.#folios.locks.unlock(pfn);
  }

  *migrate(dst: Pfn, src: Pfn, mode: MigrateMode): Kthread<Errno> {
    // Freed while it was isolated: nothing is to be moved, and our reference is the last.
    if (!this.#isMovable(src)) return Errno.OK;
    return yield* this.#ops.of(src).migratePage(dst, src, mode);
  }

  finish(src: Pfn): void {
    this.finishAndKeep(src);
    this.#folios.put(src);
  }

  finishAndKeep(src: Pfn): void {
    this.#folios.pages.clearFlag(src, PageFlag.ISOLATED);
    this.#kernel.tracer?.note('migrated', src);
  }

  finishTarget(dst: Pfn): void {
    this.#folios.put(dst);
  }

  #isMovable(pfn: Pfn): boolean {
    const { pages } = this.#folios;
    return pages.hasFlag(pfn, PageFlag.MOVABLE) && pages.mapping[pfn] !== 0;
  }

  #giveUp(pfn: Pfn, locked: boolean): false {
    if (locked) this.#folios.locks.unlock(pfn);
    // May be the last reference: then the page is freed here.
    this.#folios.put(pfn);
    return false;
  }
}
