/**
 * Moving one LRU page: unmap, freeze, copy, remap (linux mm/migrate.c: migrate_folio_unmap,
 * migrate_folio, migrate_folio_move). Plain code: with its lock held nobody else can interfere, and
 * who may have to wait for the lock does that before. A large block is moved as one.
 */
import { Errno, type Pfn } from '../../shared/index.ts';
import type { Folios } from '../folio/index.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { PageFlag } from '../mm/index.ts';

/** What the copy takes over from the page. */
const KEPT_FLAGS = PageFlag.ACTIVE | PageFlag.REFERENCED | PageFlag.DIRTY | PageFlag.UNEVICTABLE;

export class LruMigration {
  readonly #kernel: Kernel;
  readonly #folios: Folios;

  constructor(kernel: Kernel, folios: Folios) {
    this.#kernel = kernel;
    this.#folios = folios;
  }

  /**
   * Everything that maps the page holds a migration entry instead. EAGAIN: something still maps it,
   * or it has just left its object and is about to be freed.
   */
  unmap(src: Pfn): Errno {
    const { pages, mappings } = this.#folios;
    const mapping = mappings.of(src);
    if (!mapping) return Errno.EAGAIN;
    if (pages.mapcount[src] === 0) return Errno.OK;
    mapping.unmapForMigration(src, pages.mappingIndex(src));
    return pages.mapcount[src] === 0 ? Errno.OK : Errno.EAGAIN;
  }

  /** Undoes `unmap`. */
  remap(src: Pfn): void {
    const { pages, mappings } = this.#folios;
    mappings.of(src)?.removeMigrationPtes(src, src, pages.mappingIndex(src));
  }

  /**
   * Moves the unmapped, locked page. EAGAIN: somebody else holds a reference, now. EBUSY: its
   * object cannot move dirty pages. On success `dst` is mapped and on the LRU; the caller unlocks
   * both and drops a reference of each.
   */
  move(dst: Pfn, src: Pfn): Errno {
    const { pages, mappings, lruvec } = this.#folios;
    const mapping = mappings.of(src);
    if (!mapping) return Errno.EAGAIN;
    if (!mapping.migratesDirty && pages.hasFlag(src, PageFlag.DIRTY)) return Errno.EBUSY;
    const { cacheReferences } = mapping;
    if (!pages.freeze(src, cacheReferences + 1)) return Errno.EAGAIN;
    const index = pages.mappingIndex(src);
    this.#copy(dst, src);
    mapping.replace(src, dst, index);
    pages.refcount[dst]! += cacheReferences;
    pages.unfreeze(src, 1);
    mapping.removeMigrationPtes(src, dst, index);
    lruvec.uncountIsolated(src);
    pages.mapping[src] = 0;
    pages.clearFlag(src, KEPT_FLAGS);
    lruvec.add(dst);
    return Errno.OK;
  }

  #copy(dst: Pfn, src: Pfn): void {
    const { pages } = this.#folios;
    const pageCount = 1 << pages.order[src]!;
    for (let i = 0; i < pageCount; i++) this.#kernel.ram.copy(src + i, dst + i);
    pages.owner[dst] = pages.owner[src]!;
    pages.migratetype[dst] = pages.migratetype[src]!;
    pages.mapping[dst] = pages.mapping[src]!;
    pages.setFlag(dst, pages.flags[src]! & KEPT_FLAGS);
  }
}
