/**
 * migrate_pages (linux mm/migrate.c, 6.3 and later): isolated pages in, of each either moved and
 * freed or still isolated out. Both shapes go through the same batches.
 */
import { assert, Errno, type Pfn } from '../../shared/index.ts';
import type { Folios } from '../folio/index.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { PageFlag } from '../mm/index.ts';
import type { Kthread } from '../sched/kthread.ts';
import { Batch, EntryState } from './batch.ts';
import { IsolatedList, IsolatedPfns } from './isolated.ts';
import { MigrateBatch } from './migrate-batch.ts';
import { MigrateMode, type MigrateReason, type MigrateRequest } from './modes.ts';
import type { MovableGeneration } from './movable-ops.ts';

/** NR_MAX_MIGRATE_PAGES_RETRY, and its two parts in a synchronous call. */
const MAX_PASSES = 10;
const ASYNC_PASSES = 3;
const SYNC_PASSES = MAX_PASSES - ASYNC_PASSES;

export type IsolatedSet = IsolatedList | IsolatedPfns;

/** Pages by fate. */
export interface MigrateCounters {
  succeeded: number;
  failed: number;
}

export class PageMigration {
  /** Pages by reason. */
  readonly byReason = new Map<MigrateReason, MigrateCounters>();
  readonly generation: MovableGeneration;
  readonly #kernel: Kernel;
  readonly #folios: Folios;
  readonly #core: MigrateBatch;
  /** Batches and lists of calls that are over. */
  readonly #spareBatches: Batch[] = [];
  readonly #spareLists: IsolatedList[] = [];

  constructor(kernel: Kernel, folios: Folios, generation: MovableGeneration) {
    this.generation = generation;
    this.#kernel = kernel;
    this.#folios = folios;
    this.#core = new MigrateBatch(kernel, folios, generation);
  }

  /** isolate_folio_to_list for one page, LRU or movable: false is normal. */
  *isolate(pfn: Pfn, mode: MigrateMode): Kthread<boolean> {
    const { pages, lruvec } = this.#folios;
    if (pages.hasFlag(pfn, PageFlag.MOVABLE)) return yield* this.generation.isolate(pfn, mode);
    yield* lruvec.lock.lock();
    const isolated = lruvec.isolate(pfn);
    lruvec.lock.unlock();
    return isolated;
  }

  /** Ends the isolation of a page that was not moved. */
  *putback(pfn: Pfn): Kthread {
    if (this.#folios.pages.hasFlag(pfn, PageFlag.MOVABLE)) yield* this.generation.putback(pfn);
    else this.#folios.putbackLru(pfn);
  }

  /** putback_movable_pages, migrate_device_finalize: every page that was not moved; the set is empty. */
  *putbackAll(isolated: IsolatedSet): Kthread {
    if (isolated.shape === 'list') {
      for (let pfn = isolated.shift(); pfn >= 0; pfn = isolated.shift()) yield* this.putback(pfn);
      return;
    }
    for (let i = 0; i < isolated.count; i++) {
      const moved = isolated.isMigrated && isolated.migrates(i);
      if (!moved) yield* this.putback(isolated.pfnAt(isolated.src, i));
    }
    isolated.clear();
  }

  /** An empty set in the generation's shape, for so many pages; `recycle` it when it is empty again. */
  newSet(capacity: number): IsolatedSet {
    return this.generation.name === 'list' ? this.#newList() : new IsolatedPfns(capacity);
  }

  recycle(isolated: IsolatedSet): void {
    if (isolated.shape === 'list') this.#spareLists.push(isolated);
  }

  /** migrate_pages for either shape: returns as `migrateList`. */
  *migrate(isolated: IsolatedSet, request: MigrateRequest): Kthread<number> {
    if (isolated.shape === 'list') return yield* this.migrateList(isolated, request);
    return yield* this.migratePfns(isolated, request);
  }

  /**
   * Returns 0 when all were moved, the number of blocks that were not, or ENOMEM. Those that were
   * not are on `from`, isolated: the caller puts them back.
   */
  *migrateList(from: IsolatedList, request: MigrateRequest): Kthread<number> {
    const batch = this.#takeBatch();
    const failed = this.#newList();
    let failedBlocks = 0;
    let result: Errno = Errno.OK;
    while (from.count > 0 && result === Errno.OK) {
      batch.clear();
      while (!batch.isFull && from.count > 0) this.#addTo(batch, from.shift());
      result = yield* this.#migrateBatch(batch, request);
      failedBlocks += this.#count(batch, request.reason);
      if (result === Errno.ENOMEM && this.#kernel.plants.leakOnEnomem) break;
      for (let i = 0; i < batch.count; i++) {
        if (batch.state[i] !== EntryState.DONE) failed.add(batch.src[i]!);
      }
    }
    for (let pfn = failed.shift(); pfn >= 0; pfn = failed.shift()) from.add(pfn);
    this.#spareLists.push(failed);
    this.#spareBatches.push(batch);
    return result === Errno.OK ? failedBlocks : result;
  }

  /**
   * The same for an array, in the phases of migrate_device: the caller has set it up with `isolate`
   * and `add`; targets for all are allocated up front; then unmap and copy. MIGRATE says what moved;
   * `putbackAll` ends it. Returns as `migrateList`; ENOMEM: those without a target were not tried.
   */
  *migratePfns(array: IsolatedPfns, request: MigrateRequest): Kthread<number> {
    assert(!array.isMigrated, 'an array is migrated once');
    array.isMigrated = true;
    const end = this.#allocateTargets(array, request);
    let result: Errno = end === array.count ? Errno.OK : Errno.ENOMEM;
    let failedBlocks = 0;
    const batch = this.#takeBatch();
    for (let start = 0; start < end; start += batch.count) {
      batch.clear();
      for (let i = start; i < end && !batch.isFull; i++) {
        this.#addTo(batch, array.pfnAt(array.src, i), array.pfnAt(array.dst, i));
      }
      const outcome = yield* this.#migrateBatch(batch, request);
      failedBlocks += this.#count(batch, request.reason);
      if (result === Errno.OK) result = outcome;
      for (let i = 0; i < batch.count; i++) {
        if (!batch.hasTarget(i)) array.clearTarget(start + i);
        if (batch.state[i] !== EntryState.DONE) array.failed(start + i);
      }
    }
    this.#spareBatches.push(batch);
    for (let i = end; i < array.count; i++) array.failed(i);
    const leaks = result === Errno.ENOMEM && this.#kernel.plants.leakOnEnomem;
    if (leaks) array.count = end;
    return result === Errno.OK ? failedBlocks : result;
  }

  /** Returns how many entries got one: fewer than all when memory ran out. */
  #allocateTargets(array: IsolatedPfns, request: MigrateRequest): number {
    const { order } = this.#folios.pages;
    for (let i = 0; i < array.count; i++) {
      const src = array.pfnAt(array.src, i);
      const dst = request.target.alloc(src, order[src]!);
      if (dst < 0) return i;
      array.setTarget(i, dst);
    }
    return array.count;
  }

  #newList(): IsolatedList {
    return this.#spareLists.pop() ?? new IsolatedList(this.#folios.pages);
  }

  #addTo(batch: Batch, src: Pfn, dst?: Pfn): void {
    batch.add(src, 1 << this.#folios.pages.order[src]!, dst);
  }

  *#migrateBatch(batch: Batch, request: MigrateRequest): Kthread<Errno> {
    const { mode } = request;
    if (mode === MigrateMode.ASYNC) {
      return yield* this.#core.run(batch, 0, batch.count, MAX_PASSES, mode, request);
    }
    const async = MigrateMode.ASYNC;
    let result = yield* this.#core.run(batch, 0, batch.count, ASYNC_PASSES, async, request);
    // One by one: never hold the locks of several pages while sleeping for another. What failed for
    // good in the other mode may do in this one: it waits for writeback.
    for (let i = 0; i < batch.count && result === Errno.OK; i++) {
      if (batch.state[i] === EntryState.DONE) continue;
      batch.state[i] = EntryState.BUSY;
      result = yield* this.#core.run(batch, i, i + 1, SYNC_PASSES, mode, request);
    }
    return result;
  }

  /** Books a batch that is over; returns the blocks of it that failed. */
  #count(batch: Batch, reason: MigrateReason): number {
    const { vmstat } = this.#kernel.mm;
    const counters = this.#countOf(reason);
    let succeededPages = 0;
    let failedPages = 0;
    let failedBlocks = 0;
    for (let i = 0; i < batch.count; i++) {
      const state = batch.state[i]!;
      if (state === EntryState.DONE) succeededPages += batch.nrPages[i]!;
      // What ENOMEM kept from being tried has not failed.
      else if (state !== EntryState.PENDING) {
        failedPages += batch.nrPages[i]!;
        failedBlocks++;
      }
    }
    counters.succeeded += succeededPages;
    counters.failed += failedPages;
    vmstat.pgmigrate_success += succeededPages;
    vmstat.pgmigrate_fail += failedPages;
    return failedBlocks;
  }

  #countOf(reason: MigrateReason): MigrateCounters {
    let counters = this.byReason.get(reason);
    if (!counters) {
      counters = { succeeded: 0, failed: 0 };
      this.byReason.set(reason, counters);
    }
    return counters;
  }

  #takeBatch(): Batch {
    return this.#spareBatches.pop() ?? new Batch();
  }
}
