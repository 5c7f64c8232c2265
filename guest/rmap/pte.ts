/**
 * Page table entries: pfn << 5 | bits; 0 is none. A present entry holds a reference of its page and
 * counts in its mapcount; a migration entry holds nothing.
 */
import type { Pfn } from '../../shared/index.ts';
import type { Pages } from '../mm/index.ts';

export const Pte = {
  PRESENT: 1 << 0,
  WRITE: 1 << 1,
  DIRTY: 1 << 2,
  ACCESSED: 1 << 3,
  /** The page is on its way to another frame: whoever needs it waits for its lock. */
  MIGRATION: 1 << 4,
  SHIFT: 5,
} as const;

/** What the reverse mapping sees of an address space of a process. */
export interface PageTable {
  /** By virtual page number. Replaced by a longer one when the address space grows. */
  readonly ptes: Uint32Array;
  /** Entries that are not none: MM_ANONPAGES and its likes, in pages. */
  rssPages: number;
}

export function pteOf(pfn: Pfn, bits: number): number {
  return (pfn << Pte.SHIFT) | bits;
}

export function ptePfn(pte: number): Pfn {
  return pte >>> Pte.SHIFT;
}

/** Whether the entry maps the page, or did until page migration unmapped it (`bit`). */
export function isPteOf(pte: number, pfn: Pfn, bit: number): boolean {
  return (pte & bit) !== 0 && pte >>> Pte.SHIFT === pfn;
}

/** try_to_migrate_one: the entry, if it maps the page, becomes a migration entry. */
export function unmapPte(pages: Pages, table: PageTable, vpn: number, pfn: Pfn): void {
  const pte = table.ptes[vpn]!;
  if (!isPteOf(pte, pfn, Pte.PRESENT)) return;
  table.ptes[vpn] = pte ^ (Pte.PRESENT | Pte.MIGRATION);
  pages.mapcount[pfn]!--;
  pages.refcount[pfn]!--;
}

/** remove_migration_pte: a migration entry of `from` maps `to`. */
export function remapPte(pages: Pages, table: PageTable, vpn: number, from: Pfn, to: Pfn): void {
  const pte = table.ptes[vpn]!;
  if (!isPteOf(pte, from, Pte.MIGRATION)) return;
  const kept = pte & (Pte.WRITE | Pte.DIRTY | Pte.ACCESSED);
  table.ptes[vpn] = pteOf(to, kept | Pte.PRESENT);
  pages.mapcount[to]!++;
  pages.refcount[to]!++;
}
