/**
 * Movable pages as planned for what follows (the frozen-refcount plan of 2025): page type, two
 * flags, reference count 0. Nobody can take a reference, so nobody races for the page: isolation is
 * one atomic update of the flags word, and whoever set PG_isolated is the only one who may move or
 * free the page. There is no page lock and no list linkage; arrays of PFNs carry what a list would.
 */
import { assert, type Errno, type Pfn } from '../../shared/index.ts';
import type { Folios } from '../folio/index.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { PageFlag, type PageOwner } from '../mm/index.ts';
import { type Kthread, preempt } from '../sched/kthread.ts';
import type { MigrateMode } from './modes.ts';
import type { MovableGeneration, MovableOps } from './movable-ops.ts';
import { OpsTable } from './ops-table.ts';

const BEFORE_CMPXCHG = preempt('isolate_frozen_page: before cmpxchg of flags');

export class PfnGeneration implements MovableGeneration {
  readonly name = 'pfn';
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
    this.#make(pfn, type, device, PageFlag.MOVABLE);
  }

  transfer(src: Pfn, dst: Pfn): void {
    const { pages } = this.#folios;
    const device = this.deviceOf(src);
    // Isolated, too, so that nobody frees or moves the target before `finishTarget` is through.
    const flags = PageFlag.MOVABLE | PageFlag.ISOLATED;
    this.#make(dst, pages.owner[src]! as PageOwner, device, flags);
    pages.mapping[src] = 0;
  }

  *release(pfn: Pfn, cpu = 0): Kthread<boolean> {
    // At once: the driver knows that the page is its own now, and no reference keeps it so.
    const isReleased = this.tryRelease(pfn, cpu);
    yield* this.lock();
    return isReleased;
  }

  tryRelease(pfn: Pfn, cpu = 0): boolean {
    this.releaseIsolated(pfn);
    // Isolated: it is freed by who isolated it.
    if (!this.#folios.pages.hasFlag(pfn, PageFlag.ISOLATED)) this.#free(pfn, cpu);
    return true;
  }

  releaseIsolated(src: Pfn): void {
    const { pages } = this.#folios;
    assert(this.deviceOf(src) !== 0, 'what is released is its driver’s');
    pages.mapping[src] = 0;
    if (this.#kernel.plants.driverClearsMovableOfIsolated) pages.clearFlag(src, PageFlag.MOVABLE);
    this.#kernel.tracer?.note('release', src);
  }

  isIsolated(pfn: Pfn): boolean {
    const { pages } = this.#folios;
    return pages.hasFlag(pfn, PageFlag.MOVABLE) && pages.hasFlag(pfn, PageFlag.ISOLATED);
  }

  deviceOf(pfn: Pfn): number {
    return this.#folios.pages.mappingObject(pfn);
  }

  *isolate(pfn: Pfn, mode: MigrateMode): Kthread<boolean> {
    const { pages } = this.#folios;
    yield BEFORE_CMPXCHG;
    if (!this.#isMovable(pfn)) return false;
    if (this.#kernel.plants.isolateWithoutPageLock) {
      // Read, then write: another thread gets in between.
      if (this.isIsolated(pfn)) return false;
      yield BEFORE_CMPXCHG;
      pages.setFlag(pfn, PageFlag.ISOLATED);
    } else if (!pages.testAndSet(pfn, PageFlag.ISOLATED)) return false;
    this.#kernel.tracer?.note('isolate', pfn);
    if (yield* this.#ops.of(pfn).isolatePage(pfn, mode)) return true;
    this.#endIsolation(pfn, 'isolate failed');
    return false;
  }

  *putback(pfn: Pfn): Kthread {
    if (this.#isMovable(pfn)) yield* this.#ops.of(pfn).putbackPage(pfn);
    this.#endIsolation(pfn, 'putback');
  }

  tryLock(): boolean {
    return true;
  }

  /** There is none, and so nothing to wait for. */
  *lock(): Kthread {}

  unlock(): void {}

  opsOf(src: Pfn): MovableOps | undefined {
    return this.#isMovable(src) ? this.#ops.of(src) : undefined;
  }

  finish(src: Pfn): void {
    assert(this.deviceOf(src) === 0, 'a page that was moved or released is no driver’s');
    this.#endIsolation(src, 'migrated');
  }

  finishAndKeep(src: Pfn): void {
    const { pages } = this.#folios;
    assert(this.deviceOf(src) === 0, 'a page that was moved or released is no driver’s');
    pages.clearFlag(src, PageFlag.ISOLATED | PageFlag.MOVABLE);
    this.#kernel.tracer?.note('migrated', src);
    pages.unfreeze(src, 1);
  }

  finishTarget(dst: Pfn): void {
    const { pages } = this.#folios;
    // Not frozen: nothing was moved, it is still ours.
    if (pages.refcount[dst] !== 0) this.#folios.put(dst);
    else this.#endIsolation(dst, null);
  }

  #isMovable(pfn: Pfn): boolean {
    const { pages } = this.#folios;
    return pages.hasFlag(pfn, PageFlag.MOVABLE) && pages.mapping[pfn] !== 0;
  }

  #make(pfn: Pfn, type: PageOwner, device: number, flags: number): void {
    const { pages } = this.#folios;
    const frozen = pages.freeze(pfn, 1);
    assert(frozen && device > 0, 'an allocated page that nobody else has gets an owner');
    pages.setOwner(pfn, type);
    pages.setMapping(pfn, device, 0);
    pages.setFlag(pfn, flags);
  }

  /** Whoever has isolated a page frees it if its driver has given it up. */
  #endIsolation(pfn: Pfn, what: string | null): void {
    const { pages } = this.#folios;
    if (what !== null) this.#kernel.tracer?.note(what, pfn);
    if (pages.mapping[pfn] === 0) this.#free(pfn, 0);
    else pages.clearFlag(pfn, PageFlag.ISOLATED);
  }

  /** Nobody else can reach the page: its flags go together. */
  #free(pfn: Pfn, cpu: number): void {
    this.#folios.pages.clearFlag(pfn, PageFlag.MOVABLE | PageFlag.ISOLATED);
    this.#folios.freeFrozen(pfn, cpu);
  }
}
