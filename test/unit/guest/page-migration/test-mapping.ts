/** An object with LRU pages, as small as one can be: a slot, and at most so many PTEs, a page. */
import type { Mapping } from '../../../../guest/folio/index.ts';
import { PageFlag, PageOwner, type Pages } from '../../../../guest/mm/index.ts';
import type { MigrationMachine } from './machine.ts';

export class TestMapping implements Mapping {
  readonly cacheReferences: 0 | 1;
  migratesDirty = true;
  /** Page of each index of the object. */
  readonly slots: number[] = [];
  /** Page table entries of each index. */
  readonly ptes: number[] = [];
  /** Migration entries of each index. */
  readonly migrationPtes: number[] = [];
  /** PTEs that cannot be unmapped: another page table holds its lock. */
  stubborn = 0;
  readonly #machine: MigrationMachine;
  readonly #pages: Pages;
  readonly #number: number;

  constructor(machine: MigrationMachine, cacheReferences: 0 | 1) {
    this.cacheReferences = cacheReferences;
    this.#machine = machine;
    this.#pages = machine.pages;
    this.#number = machine.folios.mappings.add(this);
  }

  /** Takes a page with one reference: it is at a new index, mapped so often, and on the LRU. */
  add(pfn: number, pteCount = 0): number {
    const pages = this.#pages;
    const index = this.slots.length;
    const isFile = this.cacheReferences === 1;
    pages.setOwner(pfn, isFile ? PageOwner.FILE : PageOwner.ANON);
    pages.setMapping(pfn, this.#number, index);
    pages.refcount[pfn] = this.cacheReferences + pteCount;
    pages.mapcount[pfn] = pteCount;
    this.slots.push(pfn);
    this.ptes.push(pteCount);
    this.migrationPtes.push(0);
    this.#machine.folios.lruvec.add(pfn);
    return index;
  }

  content(index: number): number {
    return this.#machine.ram.tags[this.slots[index]!]!;
  }

  /** truncate, or the exit of all processes. */
  drop(index: number): void {
    const pfn = this.slots[index]!;
    const references = this.cacheReferences + this.ptes[index]!;
    this.#pages.mapcount[pfn] = 0;
    if (this.cacheReferences === 1) this.#pages.mapping[pfn] = 0;
    for (let i = 0; i < references; i++) this.#machine.folios.put(pfn);
    this.ptes[index] = 0;
    this.migrationPtes[index] = 0;
  }

  unmapForMigration(pfn: number, index: number): void {
    const count = this.ptes[index]! - this.stubborn;
    this.ptes[index]! -= count;
    this.migrationPtes[index]! += count;
    this.#pages.mapcount[pfn]! -= count;
    this.#pages.refcount[pfn]! -= count;
  }

  removeMigrationPtes(_from: number, to: number, index: number): void {
    const count = this.migrationPtes[index]!;
    this.migrationPtes[index] = 0;
    this.ptes[index]! += count;
    this.#pages.mapcount[to]! += count;
    this.#pages.refcount[to]! += count;
    if (this.cacheReferences === 0) this.slots[index] = to;
  }

  replace(_from: number, to: number, index: number): void {
    this.slots[index] = to;
  }

  tryToDrop(pfn: number, index: number): boolean {
    const pages = this.#pages;
    if (this.cacheReferences === 0 || pages.hasFlag(pfn, PageFlag.DIRTY)) return false;
    if (pages.mapcount[pfn] !== 0 || pages.refcount[pfn] !== 2) return false;
    pages.refcount[pfn] = 1;
    pages.mapping[pfn] = 0;
    this.slots[index] = -1;
    return true;
  }
}
