/**
 * Soft offline (linux mm/memory-failure.c): a page whose memory begins to fail is emptied and taken
 * out of use. PG_hwpoison is set and counted only once the page is empty: what could not be moved
 * stays as it was. A poisoned frame never reaches the allocator again.
 */
import { assert, Errno, type Pfn } from '../../shared/index.ts';
import type { Folios } from '../folio/index.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { Gfp, PageFlag, PageOwner } from '../mm/index.ts';
import type { Kthread } from '../sched/kthread.ts';
import type { PageMigration } from './migrate-pages.ts';
import { MigrateMode, type MigrateTarget } from './modes.ts';

const TARGET_GFP = Gfp.GFP_USER | Gfp.__GFP_MOVABLE | Gfp.__GFP_RETRY_MAYFAIL;

export class MemoryFailure {
  readonly counters = { soft_offline: 0, soft_offline_failed: 0 };
  readonly #kernel: Kernel;
  readonly #folios: Folios;
  readonly #migration: PageMigration;
  readonly #target: MigrateTarget;

  constructor(kernel: Kernel, folios: Folios, migration: PageMigration) {
    this.#kernel = kernel;
    this.#folios = folios;
    this.#migration = migration;
    this.#target = {
      alloc: (_src, order) => kernel.mm.alloc(order, TARGET_GFP),
      free: (dst) => void folios.put(dst),
    };
  }

  /**
   * OK: the frame is out of use (also if it was before). EBUSY: its page could not be moved. EINVAL:
   * no such frame, or one that no page migration can empty.
   */
  *softOfflinePage(pfn: Pfn): Kthread<Errno> {
    const { pages } = this.#folios;
    if (!(pfn >= 0 && pfn < pages.ramPages)) return Errno.EINVAL;
    const head = pages.headOf(pfn);
    if (pages.hasFlag(head, PageFlag.HWPOISON)) return Errno.OK;
    if (pages.isFree(pfn)) return this.#offlineFree(pfn);
    if (pages.order[head] !== 0 || pages.hasFlag(pfn, PageFlag.RESERVED)) return Errno.EINVAL;
    const result = yield* this.#offlineInUse(pfn);
    if (result !== Errno.OK) this.counters.soft_offline_failed++;
    return result;
  }

  /** take_page_off_buddy */
  #offlineFree(pfn: Pfn): Errno {
    const taken = this.#kernel.mm.allocExact(pfn, 0, Gfp.GFP_KERNEL);
    assert(taken, 'a free frame can be taken');
    this.#poison(pfn);
    return Errno.OK;
  }

  /** soft_offline_in_use_page */
  *#offlineInUse(pfn: Pfn): Kthread<Errno> {
    const { pages } = this.#folios;
    const isMovable = pages.hasFlag(pfn, PageFlag.MOVABLE);
    if (!isMovable && (yield* this.#dropCleanCache(pfn))) return this.#offlineIfFree(pfn);
    if (!(yield* this.#migration.isolate(pfn, MigrateMode.SYNC))) {
      return pages.isFree(pfn) ? this.#offlineFree(pfn) : Errno.EBUSY;
    }
    let moved = false;
    const isolated = this.#migration.newSet(1);
    isolated.add(pfn);
    yield* this.#migration.migrate(isolated, {
      mode: MigrateMode.SYNC,
      reason: 'memory_failure',
      target: this.#target,
      onMigrated: () => {
        moved = true;
      },
    });
    yield* this.#migration.putbackAll(isolated);
    this.#migration.recycle(isolated);
    if (!moved && !this.#kernel.plants.hwpoisonOnFailure) return this.#offlineIfFree(pfn);
    this.#poison(pfn);
    return Errno.OK;
  }

  /** invalidate_inode_page: clean page cache need not be moved. True: the page was dropped. */
  *#dropCleanCache(pfn: Pfn): Kthread<boolean> {
    const { pages, locks, mappings } = this.#folios;
    if (!pages.tryGet(pfn)) return false;
    yield* locks.lock(pfn);
    yield* locks.waitWriteback(pfn);
    const dropped = mappings.of(pfn)?.tryToDrop(pfn, pages.mappingIndex(pfn)) ?? false;
    locks.unlock(pfn);
    this.#folios.put(pfn);
    return dropped;
  }

  #offlineIfFree(pfn: Pfn): Errno {
    return this.#folios.pages.isFree(pfn) ? this.#offlineFree(pfn) : Errno.EBUSY;
  }

  /** page_handle_poison: the frame is nobody's, for ever. */
  #poison(pfn: Pfn): void {
    const { pages } = this.#folios;
    if (!this.#kernel.plants.hwpoisonOnFailure) {
      pages.flags[pfn] = PageFlag.ALLOCATED;
      pages.mapping[pfn] = 0;
      pages.setOwner(pfn, PageOwner.POISONED);
    }
    pages.setFlag(pfn, PageFlag.HWPOISON);
    this.#folios.poisonedPages++;
    this.counters.soft_offline++;
    this.#kernel.tracer?.note('hwpoison', pfn);
  }
}
