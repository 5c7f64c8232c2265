/**
 * Movable pages as merged in Linux 4.8 and reworked until 6.17: a movable page has a reference of
 * its owner; isolation takes another one and is marked by PG_isolated under the page lock; isolated
 * pages hang on lists through page->lru. PG_movable is sticky until the page is freed; a driver that
 * gives up an isolated page takes its device away from it, and that is how it is recognised.
 */
import { assert, type Errno, type Pfn } from '../../shared/index.ts';
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
    assert(this.deviceOf(src) !== 0, 'what is transferred is its driver’s');
    this.#get(dst);
    this.adopt(dst, pages.owner[src]! as PageOwner, pages.mappingObject(src));
    pages.mapping[src] = 0;
    this.#folios.put(src);
  }

  *release(pfn: Pfn, cpu = 0): Kthread<boolean> {
    const { locks } = this.#folios;
    assert(this.deviceOf(pfn) !== 0, 'what is released is its driver’s');
    // Keeps the frame while we wait: the driver's reference may move on to a copy.
    this.#get(pfn);
    // Under the lock nobody is half way through isolating or moving it.
    yield* locks.lock(pfn);
    const isDrivers = this.deviceOf(pfn) !== 0;
    if (isDrivers) this.releaseIsolated(pfn);
    locks.unlock(pfn);
    this.#folios.put(pfn, cpu);
    return isDrivers;
  }

  tryRelease(pfn: Pfn, cpu = 0): boolean {
    const { locks } = this.#folios;
    assert(this.deviceOf(pfn) !== 0, 'what is released is its driver’s');
    if (!locks.tryLock(pfn)) return false;
    this.#disown(pfn);
    locks.unlock(pfn);
    this.#folios.put(pfn, cpu);
    return true;
  }

  releaseIsolated(src: Pfn): void {
    this.#disown(src);
    this.#folios.put(src);
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
    const { locks } = this.#folios;
    yield* locks.lock(pfn);
    if (this.#isMovable(pfn)) yield* this.#ops.of(pfn).putbackPage(pfn);
    this.#endIsolation(pfn, 'putback');
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

  opsOf(src: Pfn): MovableOps | undefined {
    return this.#isMovable(src) ? this.#ops.of(src) : undefined;
  }

  finish(src: Pfn): void {
    this.finishAndKeep(src);
    this.#folios.put(src);
  }

  finishAndKeep(src: Pfn): void {
    assert(this.deviceOf(src) === 0, 'a page that was moved or released is no driver’s');
    this.#endIsolation(src, 'migrated');
  }

  finishTarget(dst: Pfn): void {
    this.#folios.locks.unlock(dst);
    this.#folios.put(dst);
  }

  #isMovable(pfn: Pfn): boolean {
    const { pages } = this.#folios;
    return pages.hasFlag(pfn, PageFlag.MOVABLE) && pages.mapping[pfn] !== 0;
  }

  #get(pfn: Pfn): void {
    const got = this.#folios.pages.tryGet(pfn);
    assert(got, 'a page in use has references');
  }

  #giveUp(pfn: Pfn, locked: boolean): false {
    if (locked) this.#folios.locks.unlock(pfn);
    // May be the last reference: then the page is freed here.
    this.#folios.put(pfn);
    return false;
  }

  /** Under the page lock: the device goes, the type and PG_movable stay until the page is freed. */
  #disown(pfn: Pfn): void {
    const { pages } = this.#folios;
    pages.mapping[pfn] = 0;
    if (this.#kernel.plants.driverClearsMovableOfIsolated) pages.clearFlag(pfn, PageFlag.MOVABLE);
    this.#kernel.tracer?.note('release', pfn);
  }

  #endIsolation(pfn: Pfn, what: string): void {
    this.#folios.pages.clearFlag(pfn, PageFlag.ISOLATED);
    this.#kernel.tracer?.note(what, pfn);
    this.#folios.locks.unlock(pfn);
  }
}
