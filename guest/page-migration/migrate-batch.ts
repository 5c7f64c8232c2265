/**
 * The core of page migration, for both shapes: a batch goes through an unmap phase and a move phase,
 * each in passes while something is busy; what is left is undone (linux mm/migrate.c,
 * migrate_pages_batch of 6.3 and later). Plain code for each page, except where it has to wait.
 */
import { Errno, type Pfn } from '../../shared/index.ts';
import type { Folios } from '../folio/index.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { PageFlag, type Pages } from '../mm/index.ts';
import { type Kthread, preempt } from '../sched/kthread.ts';
import { type Batch, EntryState } from './batch.ts';
import { LruMigration } from './lru-migration.ts';
import { MigrateMode, type MigrateRequest } from './modes.ts';
import type { MovableGeneration } from './movable-ops.ts';

const BETWEEN_PAGES = preempt('migrate_pages_batch');
/** In place of an errno: the page is locked by somebody, or under writeback, and the mode may wait. */
const MUST_WAIT = 1;

export class MigrateBatch {
  readonly #kernel: Kernel;
  readonly #pages: Pages;
  readonly #folios: Folios;
  readonly #generation: MovableGeneration;
  readonly #lru: LruMigration;

  constructor(kernel: Kernel, folios: Folios, generation: MovableGeneration) {
    this.#kernel = kernel;
    this.#pages = folios.pages;
    this.#folios = folios;
    this.#generation = generation;
    this.#lru = new LruMigration(kernel, folios);
  }

  /**
   * Tries every open entry in `first` … `end`−1, each phase in at most `passes` passes. Entries are
   * DONE, FAILED or BUSY then. ENOMEM: no target; what had one was moved, the rest stays open.
   */
  *run(
    batch: Batch,
    first: number,
    end: number,
    passes: number,
    mode: MigrateMode,
    request: MigrateRequest,
  ): Kthread<Errno> {
    const { costs, isExplored } = this.#kernel;
    let result: Errno = Errno.OK;
    let busy = end - first;
    let attempts = 0;
    for (let pass = 0; pass < passes && busy > 0 && result === Errno.OK; pass++) {
      busy = 0;
      for (let i = first; i < end && result === Errno.OK; i++) {
        if (!batch.isOpen(i)) continue;
        if (isExplored) yield BETWEEN_PAGES;
        attempts++;
        let outcome = this.#unmap(batch, i, mode, request);
        if (outcome === MUST_WAIT) outcome = yield* this.#waitAndUnmap(batch, i, mode, request);
        if (outcome === Errno.EAGAIN) busy++;
        else if (outcome === Errno.ENOMEM) result = Errno.ENOMEM;
      }
    }
    // Once for all passes: they take less time together than anybody holds a page.
    if (attempts > 0) yield { kind: 'cpu', ns: attempts * costs.migrateAttemptNs };
    yield* this.#movePhase(batch, first, end, passes, mode, request);
    return result;
  }

  *#movePhase(
    batch: Batch,
    first: number,
    end: number,
    passes: number,
    mode: MigrateMode,
    request: MigrateRequest,
  ): Kthread {
    const { costs, isExplored } = this.#kernel;
    let busy = end - first;
    let ns = 0;
    for (let pass = 0; pass < passes && busy > 0; pass++) {
      busy = 0;
      for (let i = first; i < end; i++) {
        if (batch.state[i] !== EntryState.UNMAPPED) continue;
        if (isExplored) yield BETWEEN_PAGES;
        ns += costs.migrateAttemptNs;
        const src = batch.src[i]!;
        const isMovable = this.#pages.hasFlag(src, PageFlag.MOVABLE);
        let outcome: Errno;
        if (isMovable) {
          const ops = this.#generation.opsOf(src);
          // None: released while it was isolated, nothing is left to move.
          outcome = ops ? yield* ops.migratePage(batch.dst[i]!, src, mode) : Errno.OK;
        } else {
          const faultsBefore = this.#kernel.ram.hostFaultCount;
          outcome = this.#lru.move(batch.dst[i]!, src);
          ns += (this.#kernel.ram.hostFaultCount - faultsBefore) * costs.hostFaultNs;
        }
        if (outcome === Errno.EAGAIN) busy++;
        else if (outcome !== Errno.OK) this.#undo(batch, i, EntryState.FAILED, request);
        else {
          ns += batch.nrPages[i]! * costs.migratePageNs;
          this.#finish(batch, i, isMovable, request);
          if (isMovable && this.#kernel.plants.putbackAfterSuccess) {
            yield* this.#putbackMoved(batch.dst[i]!, src);
          }
        }
      }
    }
    if (ns > 0) yield { kind: 'cpu', ns };
    if (busy === 0) return;
    for (let i = first; i < end; i++) {
      if (batch.state[i] === EntryState.UNMAPPED) this.#undo(batch, i, EntryState.BUSY, request);
    }
  }

  /** migrate_folio_unmap. OK leaves the entry UNMAPPED or, if its page is free by now, DONE. */
  #unmap(
    batch: Batch,
    i: number,
    mode: MigrateMode,
    request: MigrateRequest,
  ): Errno | typeof MUST_WAIT {
    const pages = this.#pages;
    const src = batch.src[i]!;
    const isMovable = pages.hasFlag(src, PageFlag.MOVABLE);
    if (!isMovable && pages.refcount[src] === 1) return this.#freedMeanwhile(batch, i, request);
    if (!batch.hasTarget(i)) {
      const dst = request.target.alloc(src, pages.order[src]!);
      if (dst < 0) return this.#refuse(batch, i, Errno.ENOMEM, request);
      batch.dst[i] = dst;
    }
    const isLocked = isMovable ? this.#generation.tryLock(src) : this.#folios.locks.tryLock(src);
    if (!isLocked) {
      const mayWait = mode !== MigrateMode.ASYNC && request.isMemalloc !== true;
      return mayWait ? MUST_WAIT : this.#refuse(batch, i, Errno.EAGAIN, request);
    }
    if (pages.hasFlag(src, PageFlag.WRITEBACK)) {
      this.#folios.locks.unlock(src);
      if (mode === MigrateMode.SYNC) return MUST_WAIT;
      return this.#refuse(batch, i, Errno.EBUSY, request);
    }
    return this.#unmapLocked(batch, i, isMovable, request);
  }

  /** Sleeps for what `#unmap` could not have at once. */
  *#waitAndUnmap(
    batch: Batch,
    i: number,
    mode: MigrateMode,
    request: MigrateRequest,
  ): Kthread<Errno> {
    const src = batch.src[i]!;
    const isMovable = this.#pages.hasFlag(src, PageFlag.MOVABLE);
    if (isMovable) yield* this.#generation.lock(src);
    else yield* this.#folios.locks.lock(src);
    if (this.#pages.hasFlag(src, PageFlag.WRITEBACK)) {
      if (mode !== MigrateMode.SYNC) {
        this.#folios.locks.unlock(src);
        return this.#refuse(batch, i, Errno.EBUSY, request);
      }
      yield* this.#folios.locks.waitWriteback(src);
    }
    return this.#unmapLocked(batch, i, isMovable, request);
  }

  #unmapLocked(batch: Batch, i: number, isMovable: boolean, request: MigrateRequest): Errno {
    const dst = batch.dst[i]!;
    // Nobody else knows the target yet, so its lock is free.
    if (isMovable) this.#generation.tryLock(dst);
    else {
      const src = batch.src[i]!;
      const outcome = this.#lru.unmap(src);
      if (outcome !== Errno.OK) {
        this.#lru.remap(src);
        this.#folios.locks.unlock(src);
        return this.#refuse(batch, i, outcome, request);
      }
      this.#folios.locks.tryLock(dst);
    }
    batch.state[i] = EntryState.UNMAPPED;
    return Errno.OK;
  }

  /** Everybody else let go of an LRU page: dropping the isolation's reference frees it. */
  #freedMeanwhile(batch: Batch, i: number, request: MigrateRequest): Errno {
    const src = batch.src[i]!;
    if (batch.hasTarget(i)) this.#freeTarget(batch, i, request);
    this.#folios.lruvec.uncountIsolated(src);
    this.#pages.clearFlag(src, PageFlag.ACTIVE | PageFlag.UNEVICTABLE);
    batch.state[i] = EntryState.DONE;
    if (request.reason !== 'memory_failure') this.#folios.put(src);
    return Errno.OK;
  }

  #finish(batch: Batch, i: number, isMovable: boolean, request: MigrateRequest): void {
    const src = batch.src[i]!;
    const dst = batch.dst[i]!;
    request.onMigrated?.(src, dst);
    batch.state[i] = EntryState.DONE;
    const isKept = request.reason === 'memory_failure';
    if (!isMovable) {
      this.#folios.locks.unlock(dst);
      this.#folios.put(dst);
      this.#folios.locks.unlock(src);
      if (!isKept) this.#folios.put(src);
      this.#kernel.tracer?.note('migrated', src);
      return;
    }
    this.#generation.finishTarget(dst);
    if (this.#kernel.plants.putbackAfterSuccess) this.#generation.unlock(src);
    else if (isKept) this.#generation.finishAndKeep(src);
    else this.#generation.finish(src);
  }

  /** The planted bug: its driver has the page twice. */
  #putbackMoved(dst: Pfn, src: Pfn): Kthread {
    this.#pages.mapping[src] = this.#pages.mapping[dst]!;
    return this.#generation.putback(src);
  }

  /** migrate_folio_undo_src, migrate_folio_undo_dst: isolated, as it came. */
  #undo(batch: Batch, i: number, state: number, request: MigrateRequest): void {
    const src = batch.src[i]!;
    const dst = batch.dst[i]!;
    if (this.#pages.hasFlag(src, PageFlag.MOVABLE)) {
      this.#generation.unlock(dst);
      this.#generation.unlock(src);
    } else {
      this.#lru.remap(src);
      this.#folios.locks.unlock(dst);
      this.#folios.locks.unlock(src);
    }
    this.#freeTarget(batch, i, request);
    batch.state[i] = state;
  }

  /** The entry's errno, after which it needs no target: busy for now, or failed. */
  #refuse<E extends Errno>(batch: Batch, i: number, errno: E, request: MigrateRequest): E {
    if (batch.hasTarget(i)) this.#freeTarget(batch, i, request);
    batch.state[i] = errno === Errno.EAGAIN ? EntryState.BUSY : EntryState.FAILED;
    return errno;
  }

  #freeTarget(batch: Batch, i: number, request: MigrateRequest): void {
    const dst = batch.dst[i]!;
    batch.dropTarget(i);
    request.target.free(dst);
  }
}
