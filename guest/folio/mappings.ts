/** What LRU pages are part of: anon_vma and address_space, as page migration and reclaim see them. */
import { assert, type Pfn } from '../../shared/index.ts';
import type { Pages } from '../mm/index.ts';

/** Reverse mapping of the pages of one object; `index` is the page's place in it. */
export interface Mapping {
  /** References that the object itself holds on each of its pages: 1 for page cache, 0 for anonymous. */
  readonly cacheReferences: 0 | 1;
  /** Whether dirty pages can be moved without being written first (a migrate_folio operation). */
  readonly migratesDirty: boolean;
  /** try_to_migrate: every PTE becomes a migration entry; drops their references, mapcount is 0 then. */
  unmapForMigration(pfn: Pfn, index: number): void;
  /** remove_migration_ptes: the migration entries of `from` map `to`, with a reference each. */
  removeMigrationPtes(from: Pfn, to: Pfn, index: number): void;
  /** The object's own slot (page cache) means `to` where it meant `from`. Both are frozen or locked. */
  replace(from: Pfn, to: Pfn, index: number): void;
  /**
   * Reclaim: unmaps the page everywhere and drops it from the object, if it is clean and nobody but
   * the object and the caller (one reference) uses it. False: nothing was changed.
   */
  tryToDrop(pfn: Pfn, index: number): boolean;
  /** folio_referenced: entries through which the page was used since it was last asked. */
  referenced?(pfn: Pfn, index: number): number;
  /** writepage for reclaim: begins to write the locked, dirty page. False: it cannot be written. */
  writepage?(pfn: Pfn, index: number): boolean;
}

const MAPPINGS_MAX = 255;

/** All objects of the kernel by number, as `Pages.mapping` names them. */
export class Mappings {
  readonly #pages: Pages;
  readonly #objects: (Mapping | undefined)[] = [undefined];

  constructor(pages: Pages) {
    this.#pages = pages;
  }

  /** Returns its number. */
  add(mapping: Mapping): number {
    let number = this.#objects.indexOf(undefined, 1);
    if (number < 0) number = this.#objects.length;
    assert(number <= MAPPINGS_MAX, 'there are at most 255 objects that have pages');
    this.#objects[number] = mapping;
    return number;
  }

  /** Its number is free again; it has no pages any more. */
  remove(number: number): void {
    this.#objects[number] = undefined;
  }

  /** What the page is part of; undefined: nothing with a reverse mapping. */
  of(pfn: Pfn): Mapping | undefined {
    return this.#objects[this.#pages.mappingObject(pfn)];
  }
}
