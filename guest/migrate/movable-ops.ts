/**
 * Movable pages that are not on the LRU: the contract between their drivers and page migration
 * (linux include/linux/migrate.h, struct movable_operations). Two generations implement the VM's
 * side of it: `list-generation.ts` and `pfn-generation.ts`. A driver cannot tell which one it has.
 */
import type { Errno, Pfn } from '../../shared/index.ts';
import type { PageOwner } from '../mm/index.ts';
import type { Kthread } from '../sched/kthread.ts';
import type { MigrateMode } from './modes.ts';

/** What a driver implements for its pages. */
export interface MovableOps {
  readonly name: string;
  /**
   * May this page be taken? Does not sleep, but takes the driver's own spin lock. False is a normal
   * race: the page is not the driver's any more. On true it stays as it is until one of the others.
   */
  isolatePage(pfn: Pfn, mode: MigrateMode): Kthread<boolean>;
  /**
   * Moves what `src` is to `dst`, and says so with `transfer`. OK: done. EAGAIN: busy now, it will be
   * tried again. Anything else: not this time. After a failure `src` is isolated and unchanged.
   */
  migratePage(dst: Pfn, src: Pfn, mode: MigrateMode): Kthread<Errno>;
  /** The page was not moved: it is the driver's again. */
  putbackPage(pfn: Pfn): Kthread;
}

/** The VM's side: what marks a movable page, what its references are, who may isolate it. */
export interface MovableGeneration {
  readonly name: 'list' | 'pfn';
  /**
   * set_movable_ops: EBUSY if the type has its operations already, EINVAL if pages of the type
   * cannot be movable.
   */
  register(type: PageOwner, ops: MovableOps): Errno;

  // The driver's side.

  /** A page that the driver has allocated (one reference) becomes movable and the driver's. */
  adopt(pfn: Pfn, type: PageOwner, device: number): void;
  /** The driver's ownership goes from an isolated page to its copy. Called by `migratePage` alone. */
  transfer(src: Pfn, dst: Pfn): void;
  /** The driver gives the page up: it is freed now, or by whoever has isolated it. */
  release(pfn: Pfn, cpu?: number): Kthread;
  isIsolated(pfn: Pfn): boolean;
  /** The driver's own number of the page's device; 0: it was released. */
  deviceOf(pfn: Pfn): number;

  // Page migration's side.

  /** isolate_movable_ops_page: false is normal. */
  isolate(pfn: Pfn, mode: MigrateMode): Kthread<boolean>;
  /** Ends the isolation of a page that was not moved. The page may be freed at once. */
  putback(pfn: Pfn): Kthread;
  /** Both for page migration alone: before and after `migratePage`. False: busy. */
  tryLock(pfn: Pfn): boolean;
  lock(pfn: Pfn): Kthread;
  unlock(pfn: Pfn): void;
  /** Moves one isolated page; OK also if its driver has released it meanwhile. */
  migrate(dst: Pfn, src: Pfn, mode: MigrateMode): Kthread<Errno>;
  /** Ends the isolation of a page that was moved, or released: frees it. Both are unlocked. */
  finish(src: Pfn): void;
  /** As `finish`, but the page stays with the caller, allocated, with one reference: memory failure. */
  finishAndKeep(src: Pfn): void;
  /** The target's side of success and failure: it is its driver's, or it is freed. */
  finishTarget(dst: Pfn): void;
}
