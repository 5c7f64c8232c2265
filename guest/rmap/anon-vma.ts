/**
 * Reverse mapping of anonymous memory (linux mm/rmap.c): the processes that descend from one, each
 * of which may map a page at its virtual page number. One object for the family, where Linux has a
 * tree of them.
 */
import { assert, type Pfn } from '../../shared/index.ts';
import type { Folios, Mapping } from '../folio/index.ts';
import type { Pages } from '../mm/index.ts';
import { isPteOf, type PageTable, Pte, remapPte, unmapPte } from './pte.ts';

/** A page's mapcount is a byte, and each member maps it once at most. */
const MEMBERS_MAX = 255;

export class AnonVma implements Mapping {
  readonly cacheReferences = 0;
  readonly migratesDirty = true;
  /** As `Pages.mapping` names it. */
  readonly number: number;
  readonly #folios: Folios;
  readonly #pages: Pages;
  readonly #members: PageTable[] = [];

  constructor(folios: Folios) {
    this.#folios = folios;
    this.#pages = folios.pages;
    this.number = folios.mappings.add(this);
  }

  get isFull(): boolean {
    return this.#members.length >= MEMBERS_MAX;
  }

  join(table: PageTable): void {
    assert(!this.isFull, 'the family has room for one more');
    this.#members.push(table);
  }

  /** A process is gone, whose entries are none by now; with the last one the object goes. */
  leave(table: PageTable): void {
    this.#members.splice(this.#members.indexOf(table), 1);
    if (this.#members.length === 0) this.#folios.mappings.remove(this.number);
  }

  unmapForMigration(pfn: Pfn, index: number): void {
    for (const table of this.#members) unmapPte(this.#pages, table, index, pfn);
  }

  removeMigrationPtes(from: Pfn, to: Pfn, index: number): void {
    for (const table of this.#members) remapPte(this.#pages, table, index, from, to);
  }

  /** Nothing but page tables names an anonymous page. */
  replace(): void {}

  /** There is no swap. */
  tryToDrop(): boolean {
    return false;
  }

  /**
   * An entry of the page is gone (its reference is not dropped here). A page that somebody else
   * keeps when the last entry goes, a pin or an isolation, is nobody's memory from now on.
   */
  forget(pfn: Pfn, index: number): void {
    const pages = this.#pages;
    if (pages.mapcount[pfn] !== 0 || pages.mappingObject(pfn) !== this.number) return;
    const isMigrating = this.#members.some(({ ptes }) =>
      isPteOf(ptes[index] ?? 0, pfn, Pte.MIGRATION),
    );
    if (!isMigrating) pages.mapping[pfn] = 0;
  }
}
