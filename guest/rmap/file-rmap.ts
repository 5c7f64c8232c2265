/** Who maps a file (linux mm/rmap.c over mapping->i_mmap): ranges of processes' address spaces. */
import { assert, type Pfn } from '../../shared/index.ts';
import type { Folios } from '../folio/index.ts';
import type { Pages } from '../mm/index.ts';
import { isPteOf, type PageTable, Pte, remapPte, unmapPte } from './pte.ts';

/** A page's mapcount is a byte, and each range maps it once at most. */
const RANGES_MAX = 255;

export interface MappedRange {
  readonly table: PageTable;
  readonly startVpn: number;
  readonly pageCount: number;
  /** Index of its first page in the file. */
  readonly startIndex: number;
}

export class FileRmap {
  readonly #folios: Folios;
  readonly #pages: Pages;
  readonly #ranges: MappedRange[] = [];

  constructor(folios: Folios) {
    this.#folios = folios;
    this.#pages = folios.pages;
  }

  get isFull(): boolean {
    return this.#ranges.length >= RANGES_MAX;
  }

  get isMapped(): boolean {
    return this.#ranges.length > 0;
  }

  add(range: MappedRange): void {
    assert(!this.isFull, 'a file has room for one more range');
    this.#ranges.push(range);
  }

  /** The range has no entries any more. */
  remove(range: MappedRange): void {
    this.#ranges.splice(this.#ranges.indexOf(range), 1);
  }

  unmapForMigration(pfn: Pfn, index: number): void {
    for (const range of this.#ranges) {
      const vpn = vpnOf(range, index);
      if (vpn >= 0) unmapPte(this.#pages, range.table, vpn, pfn);
    }
  }

  removeMigrationPtes(from: Pfn, to: Pfn, index: number): void {
    for (const range of this.#ranges) {
      const vpn = vpnOf(range, index);
      if (vpn >= 0) remapPte(this.#pages, range.table, vpn, from, to);
    }
  }

  /** try_to_unmap: the entries become none. The caller holds a reference. */
  unmapAll(pfn: Pfn, index: number): void {
    if (this.#pages.mapcount[pfn] === 0) return;
    for (const range of this.#ranges) {
      const vpn = vpnOf(range, index);
      const { table } = range;
      if (vpn < 0 || !isPteOf(table.ptes[vpn]!, pfn, Pte.PRESENT)) continue;
      table.ptes[vpn] = 0;
      table.rssPages--;
      this.#pages.mapcount[pfn]!--;
      this.#folios.put(pfn);
    }
  }

  /** Entries through which the page was used since the last call: their ACCESSED bits are cleared. */
  referenced(pfn: Pfn, index: number): number {
    if (this.#pages.mapcount[pfn] === 0) return 0;
    let count = 0;
    for (const range of this.#ranges) {
      const vpn = vpnOf(range, index);
      if (vpn < 0) continue;
      const pte = range.table.ptes[vpn]!;
      if (!isPteOf(pte, pfn, Pte.PRESENT) || (pte & Pte.ACCESSED) === 0) continue;
      range.table.ptes[vpn] = pte & ~Pte.ACCESSED;
      count++;
    }
    return count;
  }
}

/** Where a range maps a page of the file, or −1. */
function vpnOf({ startVpn, pageCount, startIndex }: MappedRange, index: number): number {
  const offset = index - startIndex;
  return offset >= 0 && offset < pageCount ? startVpn + offset : -1;
}
