/**
 * The core of page migration, for both shapes: a batch goes through an unmap phase and a move phase,
 * each in passes while something is busy; what is left is undone (linux mm/migrate.c,
 * migrate_pages_batch of 6.3 and later).
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
   * Tries every PENDING entry in `first` … `end`−1, each phase in at most `passes` passes. Entries
   * are DONE, FAILED or (busy) PENDING then. ENOMEM: no target; what had one was moved.
   */
  *run(
    batch: Batch,
    first: number,
    end: number,
    passes: number,
    mode: MigrateMode,
    request: MigrateRequest,
  ): Kthread<Errno> {
    const attemptsNs = this.#kernel.costs.migrateAttemptNs;
    let result: Errno = Errno.OK;
    let busy = end - first;
    for (let pass = 0; pass < passes && busy > 0 && result === Errno.OK; pass++) {
      busy = 0;
      let attempts = 0;
      for (let i = first; i < end; i++) {
        if (batch.state[i] !== EntryState.PENDING) continue;
        attempts++;
        const outcome = yield* this.#unmap(batch, i, mode, request);
        if (outcome === Errno.ENOMEM) {
          result = Errno.ENOMEM;
          break;
        }
        if (outcome === Errno.EAGAIN) busy++;
        else if (outcome !== Errno.OK) batch.state[i] = EntryState.FAILED;
      }
      yield { kind: 'cpu', ns: attempts * attemptsNs };
    }
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
    for (let pass = 0; pass < passes && busy > 0; pass++) {
      busy = 0;
      let attempts = 0;
      let moved = 0;
      for (let i = first; i < end; i++) {
        if (batch.state[i] !== EntryState.UNMAPPED) continue;
        if (isExplored) yield BETWEEN_PAGES;
        attempts++;
        const src = batch.src[i]!;
        const outcome = this.#pages.hasFlag(src, PageFlag.MOVABLE)
          ? yield* this.#generation.migrate(batch.dst[i]!, src, mode)
          : this.#lru.move(batch.dst[i]!, src);
        if (outcome === Errno.OK) {
          moved++;
          yield* this.#finish(batch, i, request);
        } else if (outcome === Errno.EAGAIN) busy++;
        else this.#undo(batch, i, EntryState.FAILED, request);
      }
      yield { kind: 'cpu', ns: attempts * costs.migrateAttemptNs + moved * costs.migratePageNs };
    }
    if (busy === 0) return;
    for (let i = first; i < end; i++) {
      if (batch.state[i] === EntryState.UNMAPPED) this.#undo(batch, i, EntryState.PENDING, request);
    }
  }

  /** migrate_folio_unmap: OK leaves the entry UNMAPPED or, if its page is free by now, DONE. */
  *#unmap(batch: Batch, i: number, mode: MigrateMode, request: MigrateRequest): Kthread<Errno> {
    const pages = this.#pages;
    const src = batch.src[i]!;
    const movable = pages.hasFlag(src, PageFlag.MOVABLE);
    if (this.#kernel.isExplored) yield BETWEEN_PAGES;
    if (!movable && pages.refcount[src] === 1) {
      // Everybody else let go of it: putting it back frees it.
      if (batch.hasTarget(i)) this.#freeTarget(batch, i, request);
      this.#folios.putbackLru(src);
      batch.state[i] = EntryState.DONE;
      return Errno.OK;
    }
    if (!batch.hasTarget(i)) {
      const dst = request.target.alloc(src, pages.order[src]!);
      if (dst < 0) return Errno.ENOMEM;
      batch.dst[i] = dst;
    }
    const outcome = movable
      ? yield* this.#lockMovable(src, mode)
      : yield* this.#lockAndUnmapLru(src, mode);
    if (outcome !== Errno.OK) {
      this.#freeTarget(batch, i, request);
      return outcome;
    }
    this.#lockTarget(batch.dst[i]!, movable);
    batch.state[i] = EntryState.UNMAPPED;
    return Errno.OK;
  }

  *#lockMovable(src: Pfn, mode: MigrateMode): Kthread<Errno> {
    if (this.#generation.tryLock(src)) return Errno.OK;
    if (mode === MigrateMode.ASYNC) return Errno.EAGAIN;
    yield* this.#generation.lock(src);
    return Errno.OK;
  }

  *#lockAndUnmapLru(src: Pfn, mode: MigrateMode): Kthread<Errno> {
    const { locks } = this.#folios;
    if (!locks.tryLock(src)) {
      if (mode === MigrateMode.ASYNC) return Errno.EAGAIN;
      yield* locks.lock(src);
    }
    if (this.#pages.hasFlag(src, PageFlag.WRITEBACK)) {
      if (mode !== MigrateMode.SYNC) {
        locks.unlock(src);
        return Errno.EBUSY;
      }
      yield* locks.waitWriteback(src);
    }
    const outcome = this.#lru.unmap(src);
    if (outcome !== Errno.OK) {
      this.#lru.remap(src);
      locks.unlock(src);
    }
    return outcome;
  }

  /** Nobody else knows the page yet. */
  #lockTarget(dst: Pfn, movable: boolean): void {
    if (movable) this.#generation.tryLock(dst);
    else this.#folios.locks.tryLock(dst);
  }

  *#finish(batch: Batch, i: number, request: MigrateRequest): Kthread {
    const src = batch.src[i]!;
    const dst = batch.dst[i]!;
    request.onMigrated?.(src, dst);
    batch.state[i] = EntryState.DONE;
    const keeps = request.reason === 'memory_failure';
    if (!this.#pages.hasFlag(src, PageFlag.MOVABLE)) {
      this.#folios.locks.unlock(dst);
      this.#folios.locks.unlock(src);
      this.#folios.put(dst);
      if (!keeps) this.#folios.put(src);
      this.#kernel.tracer?.note('migrated', src);
      return;
    }
    this.#generation.unlock(dst);
    this.#generation.unlock(src);
    this.#generation.finishTarget(dst);
    if (this.#kernel.plants.putbackAfterSuccess) yield* this.#generation.putback(src);
    else if (keeps) this.#generation.finishAndKeep(src);
    else this.#generation.finish(src);
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

  #freeTarget(batch: Batch, i: number, request: MigrateRequest): void {
    const dst = batch.dst[i]!;
    batch.dropTarget(i);
    request.target.free(dst);
  }
}
