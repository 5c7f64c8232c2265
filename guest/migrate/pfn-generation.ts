/**
 * Movable pages as planned for what follows (the frozen-refcount plan of 2025): page type, two
 * flags, reference count 0. Nobody can take a reference, so nobody races for the page: isolation is
 * one atomic update of the flags word, and whoever set PG_isolated is the only one who may move the
 * page. There is no page lock and no list linkage; arrays of PFNs carry what a list would.
 */
import { assert, Errno, type Pfn } from '../../shared/index.ts';
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
    const { pages } = this.#folios;
    const frozen = pages.freeze(pfn, 1);
    assert(frozen && device > 0, 'an allocated page that nobody else has gets an owner');
    pages.setOwner(pfn, type);
    pages.setMapping(pfn, device, 0);
    pages.setFlag(pfn, PageFlag.MOVABLE);
  }

  transfer(src: Pfn, dst: Pfn): void {
    const { pages } = this.#folios;
    this.adopt(dst, pages.owner[src]! as PageOwner, pages.mappingObject(src));
    pages.mapping[src] = 0;
  }

  *release(pfn: Pfn, cpu = 0): Kthread {
    const { pages } = this.#folios;
    yield BEFORE_CMPXCHG;
    pages.mapping[pfn] = 0;
    this.#kernel.tracer?.note('release', pfn);
    if (this.#kernel.plants.driverClearsMovableOfIsolated) pages.clearFlag(pfn, PageFlag.MOVABLE);
    // Isolated: it is freed by who isolated it.
    if (!pages.hasFlag(pfn, PageFlag.ISOLATED)) this.#free(pfn, cpu);
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
    if (!this.#isMovable(pfn) || this.isIsolated(pfn)) return false;
    // Without the plant the test above and this are one compare-and-exchange.
    if (this.#kernel.plants.isolateWithoutPageLock) yield BEFORE_CMPXCHG;
    pages.setFlag(pfn, PageFlag.ISOLATED);
    this.#kernel.tracer?.note('isolate', pfn);
    if (yield* this.#ops.of(pfn).isolatePage(pfn, mode)) return true;
    this.#end(pfn, 'isolate failed');
    if (pages.mapping[pfn] === 0) this.#free(pfn, 0);
    return false;
  }

  *putback(pfn: Pfn): Kthread {
    const { pages } = this.#folios;
    const { putbackAfterSuccess } = this.#kernel.plants;
    if (this.#isMovable(pfn) || putbackAfterSuccess) yield* this.#ops.of(pfn).putbackPage(pfn);
    this.#end(pfn, 'putback');
    if (pages.mapping[pfn] === 0) this.#free(pfn, 0);
  }

  tryLock(): boolean {
    return true;
  }

  *lock(): Kthread {}

  unlock(): void {}

  *migrate(dst: Pfn, src: Pfn, mode: MigrateMode): Kthread<Errno> {
    if (!this.#isMovable(src)) return Errno.OK;
    return yield* this.#ops.of(src).migratePage(dst, src, mode);
  }

  finish(src: Pfn): void {
    this.#end(src, 'migrated');
    this.#free(src, 0);
  }

  finishAndKeep(src: Pfn): void {
    const { pages } = this.#folios;
    this.#end(src, 'migrated');
    pages.clearFlag(src, PageFlag.MOVABLE);
    pages.unfreeze(src, 1);
  }

  finishTarget(dst: Pfn): void {
    // Frozen: its driver has it. Otherwise it is still ours, and unused.
    if (this.#folios.pages.refcount[dst] !== 0) this.#folios.put(dst);
  }

  #isMovable(pfn: Pfn): boolean {
    const { pages } = this.#folios;
    return pages.hasFlag(pfn, PageFlag.MOVABLE) && pages.mapping[pfn] !== 0;
  }

  #end(pfn: Pfn, what: string): void {
    this.#folios.pages.clearFlag(pfn, PageFlag.ISOLATED);
    this.#kernel.tracer?.note(what, pfn);
  }

  #free(pfn: Pfn, cpu: number): void {
    const { pages } = this.#folios;
    pages.clearFlag(pfn, PageFlag.MOVABLE);
    this.#folios.freeFrozen(pfn, cpu);
  }
}
