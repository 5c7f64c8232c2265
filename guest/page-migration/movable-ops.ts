/**
 * Movable pages that are not on the LRU: the contract between their drivers and page migration
 * (linux include/linux/migrate.h, struct movable_operations). Two generations implement the VM's
 * side of it: `list-generation.ts` and `pfn-generation.ts`. A driver cannot tell which one it has.
 */
import type { Errno, Pfn } from '../../shared/index.ts';
import type { PageOwner } from '../mm/index.ts';
import type { Kthread } from '../sched/kthread.ts';
import type { MigrateMode } from './modes.ts';

/**
 * What a driver implements for its pages. Its own lock decides: a driver that may release a page
 * which is isolated looks, once it has that lock, whether the page is still its own (`deviceOf`).
 */
export interface MovableOps {
  readonly name: string;
  /**
   * May this page be taken? Does not sleep, but takes the driver's own spin lock. False is a normal
   * race: the page is not the driver's any more. On true it stays as it is until one of the others.
   */
  isolatePage(pfn: Pfn, mode: MigrateMode): Kthread<boolean>;
  /**
   * Moves what `src` is to `dst`, and says so with `transfer`. OK: done, or the page was released
   * (`releaseIsolated`) and nothing is left to move. EAGAIN: busy now, it will be tried again.
   * Anything else: not this time. After a failure `src` is isolated and unchanged. May sleep.
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
  /**
   * The driver gives up a page that is its own at this moment: it is freed now, or by whoever has
   * isolated it. May wait for who migrates it, so the caller holds no lock that the driver's
   * operations take. False: it was moved meanwhile, and the driver looks for it again.
   */
  release(pfn: Pfn, cpu?: number): Kthread<boolean>;
  /** As `release`, if that needs no waiting; false: nothing was done. */
  tryRelease(pfn: Pfn, cpu?: number): boolean;
  /** As `release`, from inside of `migratePage`, which then returns OK without a `transfer`. */
  releaseIsolated(src: Pfn): void;
  isIsolated(pfn: Pfn): boolean;
  /** The driver's own number of the page's device; 0: it was released, or moved. */
  deviceOf(pfn: Pfn): number;

  // Page migration's side.

  /** isolate_movable_ops_page: false is normal. */
  isolate(pfn: Pfn, mode: MigrateMode): Kthread<boolean>;
  /** Ends the isolation of a page that was not moved. The page may be freed at once. */
  putback(pfn: Pfn): Kthread;
  /** `migratePage` runs between `tryLock` or `lock` of both pages and one of what follows. */
  tryLock(pfn: Pfn): boolean;
  lock(pfn: Pfn): Kthread;
  /** After a failure: the page stays isolated. */
  unlock(pfn: Pfn): void;
  /** Whom to ask to move an isolated, locked page; undefined: its driver has released it. */
  opsOf(src: Pfn): MovableOps | undefined;
  /** Ends the isolation of a page that was moved or released: unlocks and frees it. */
  finish(src: Pfn): void;
  /** As `finish`, but the page stays with the caller, allocated, with one reference: memory failure. */
  finishAndKeep(src: Pfn): void;
  /** Unlocks the target of a page that was moved: it is its driver's; or released: it is freed. */
  finishTarget(dst: Pfn): void;
}
