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
  /** Frames taken out of use, and requests that were in vain. */
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
   * OK: the frame is out of use (also if it was before). EBUSY, ENOMEM: its page could not be moved
   * now; large blocks are not split. EIO: nobody can empty the page. EINVAL: there is no such frame.
   */
  *softOfflinePage(pfn: Pfn): Kthread<Errno> {
    const { pages } = this.#folios;
    if (!(Number.isInteger(pfn) && pfn >= 0 && pfn < pages.ramPages)) return Errno.EINVAL;
    if (pages.hasFlag(pages.headOf(pfn), PageFlag.HWPOISON)) return Errno.OK;
    if (pages.isFree(pfn)) return this.#offlineFree(pfn);
    const result = yield* this.#offlineInUse(pfn);
    if (result !== Errno.OK) this.counters.soft_offline_failed++;
    return result;
  }

  /** take_page_off_buddy */
  #offlineFree(pfn: Pfn): Errno {
    const taken = this.#kernel.mm.allocExact(pfn, 0, Gfp.GFP_KERNEL);
    assert(taken, 'a free frame can be taken');
    this.#handlePoison(pfn);
    return Errno.OK;
  }

  /** soft_offline_in_use_page */
  *#offlineInUse(pfn: Pfn): Kthread<Errno> {
    const { pages } = this.#folios;
    const head = pages.headOf(pfn);
    if (!pages.hasFlag(head, PageFlag.MOVABLE | PageFlag.LRU)) return Errno.EIO;
    if (pages.order[head] !== 0) return Errno.EBUSY;
    // get_hwpoison_page: until the isolation has a reference of its own. A frozen page has none.
    const held = pages.tryGet(pfn);
    if (held && (yield* this.#isEmptied(pfn))) return Errno.OK;
    const isolated = yield* this.#migration.isolate(pfn, MigrateMode.SYNC);
    if (held) this.#folios.put(pfn);
    return isolated ? yield* this.#migrateAway(pfn) : this.#offlineIfFree(pfn, Errno.EBUSY);
  }

  /**
   * invalidate_inode_page: clean page cache need not be moved. True: the page is poisoned now, by
   * us or somebody else; false: it is as it was. On true the reference is gone.
   */
  *#isEmptied(pfn: Pfn): Kthread<boolean> {
    const { pages, locks, lruvec, mappings } = this.#folios;
    yield* locks.lock(pfn);
    yield* locks.waitWriteback(pfn);
    const wasPoisoned = pages.hasFlag(pfn, PageFlag.HWPOISON);
    const dropped =
      pages.hasFlag(pfn, PageFlag.LRU) &&
      mappings.of(pfn)?.tryToDrop(pfn, pages.mappingIndex(pfn)) === true;
    locks.unlock(pfn);
    if (wasPoisoned) this.#folios.put(pfn);
    if (!dropped) return wasPoisoned;
    if (pages.hasFlag(pfn, PageFlag.LRU)) lruvec.remove(pfn);
    this.#handlePoison(pfn);
    return true;
  }

  *#migrateAway(pfn: Pfn): Kthread<Errno> {
    const isolated = this.#migration.newSet(1);
    isolated.add(pfn);
    const result = yield* this.#migration.migrate(isolated, {
      mode: MigrateMode.SYNC,
      reason: 'memory_failure',
      target: this.#target,
    });
    if (result === 0) this.#handlePoison(pfn);
    else if (this.#kernel.plants.hwpoisonOnFailure) this.#setPoison(pfn);
    yield* this.#migration.putbackAll(isolated);
    this.#migration.recycle(isolated);
    if (result === 0) return Errno.OK;
    return this.#offlineIfFree(pfn, result > 0 ? Errno.EBUSY : (result as Errno));
  }

  /** Its user may have freed the page while it was ours; otherwise `result`. */
  #offlineIfFree(pfn: Pfn, result: Errno): Errno {
    return this.#folios.pages.isFree(pfn) ? this.#offlineFree(pfn) : result;
  }

  /**
   * page_handle_poison: the frame is nobody's, for ever; our reference stays. Whoever else holds a
   * reference or the page lock for a moment still finds it.
   */
  #handlePoison(pfn: Pfn): void {
    const { pages } = this.#folios;
    pages.flags[pfn]! &= PageFlag.ALLOCATED | PageFlag.LOCKED;
    pages.mapping[pfn] = 0;
    pages.setOwner(pfn, PageOwner.POISONED);
    this.#setPoison(pfn);
    this.counters.soft_offline++;
  }

  /** SetPageHWPoison, num_poisoned_pages_inc */
  #setPoison(pfn: Pfn): void {
    this.#folios.pages.setFlag(pfn, PageFlag.HWPOISON);
    this.#folios.poisonedPages++;
    this.#kernel.tracer?.note('hwpoison', pfn);
  }
}
