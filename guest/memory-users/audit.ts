/**
 * What must hold of every page in use: where its references come from, who maps it, which list it is
 * on. It trusts nothing that it can count, so it is slow. It is for moments in which no thread is in
 * the middle of something, isolation excepted.
 */
import type { Pfn } from '../../shared/index.ts';
import { type Folios, LruList, type ReferenceHolder } from '../folio/index.ts';
import { PageFlag, PageOwner, type Pages } from '../mm/index.ts';
import type { MmVmstat } from '../mm/vmstat.ts';
import type { AddressSpace } from '../page-cache/page-cache.ts';
import type { Process } from '../process/process.ts';
import { Pte, ptePfn } from '../rmap/pte.ts';

const MAX_FINDINGS = 20;

/** Everything that has pages. */
export interface AuditedUsers {
  readonly folios: Folios;
  /** Those that are alive. */
  readonly processes: readonly Process[];
  readonly spaces: readonly AddressSpace[];
  /** Pins, the kernel's own memory, and whoever else has references of audited pages. */
  readonly holders: readonly ReferenceHolder[];
}

/** What was counted by frame. */
interface Counted {
  readonly references: Int32Array;
  /** Entries and slots of the cache: whose memory it is. */
  readonly owned: Uint8Array;
  readonly mapped: Int32Array;
}

type Report = (text: string) => void;

/** Says in words what does not hold; empty: all is well. */
export function auditFolios(users: AuditedUsers): string[] {
  const findings: string[] = [];
  const report = (text: string): void => {
    if (findings.length < MAX_FINDINGS) findings.push(text);
  };
  const { pages } = users.folios;
  const counted: Counted = {
    references: new Int32Array(pages.ramPages),
    owned: new Uint8Array(pages.ramPages),
    mapped: new Int32Array(pages.ramPages),
  };
  for (const process of users.processes) auditProcess(pages, process, counted, report);
  for (const space of users.spaces) auditSpace(pages, space, counted, report);
  for (const holder of [...users.processes, ...users.spaces, ...users.holders]) {
    holder.countReferences(counted.references);
  }
  auditFrames(users.folios, counted, report);
  auditLists(users.folios, report);
  auditGauges(users, report);
  return findings;
}

function isUserOwned(owner: number): boolean {
  return owner === PageOwner.ANON || owner === PageOwner.FILE || owner === PageOwner.SHMEM;
}

function isAllocated(pages: Pages, pfn: Pfn): boolean {
  return pfn < pages.ramPages && pages.hasFlag(pfn, PageFlag.ALLOCATED);
}

function auditProcess(pages: Pages, process: Process, counted: Counted, report: Report): void {
  let entries = 0;
  for (const [vpn, pte] of process.ptes.entries()) {
    if (pte === 0) continue;
    entries++;
    const pfn = ptePfn(pte);
    const where = `page ${vpn} of process ${process.name}, frame ${pfn}`;
    if ((pte & Pte.PRESENT) === 0) {
      if (!pages.hasFlag(pfn, PageFlag.LOCKED)) report(`${where}: migrates, but is not locked`);
      continue;
    }
    counted.mapped[pfn]!++;
    if (!isAllocated(pages, pfn)) report(`${where}: mapped, but not allocated`);
    const space = process.spaceAt(vpn);
    if (space) {
      if (pages.mappingObject(pfn) !== space.number) report(`${where}: not a page of its file`);
      continue;
    }
    counted.owned[pfn] = 1;
    if (pages.owner[pfn] !== PageOwner.ANON) report(`${where}: not anonymous`);
    else if (pages.mappingIndex(pfn) !== vpn) report(`${where}: its index is another page's`);
  }
  if (entries !== process.rssPages) {
    report(`process ${process.name}: ${entries} entries, counted ${process.rssPages}`);
  }
}

function auditSpace(pages: Pages, space: AddressSpace, counted: Counted, report: Report): void {
  const owner = space.kind === 'file' ? PageOwner.FILE : PageOwner.SHMEM;
  let cached = 0;
  for (let index = 0; index < space.sizePages; index++) {
    const pfn = space.pfnAt(index);
    if (pfn < 0) continue;
    cached++;
    const where = `page ${index} of ${space.name}, frame ${pfn}`;
    if (counted.owned[pfn] !== 0) report(`${where}: somebody else's, too`);
    counted.owned[pfn] = 1;
    if (!isAllocated(pages, pfn)) report(`${where}: in the cache, but not allocated`);
    const isItsOwn = pages.mappingObject(pfn) === space.number && pages.mappingIndex(pfn) === index;
    if (!isItsOwn || pages.owner[pfn] !== owner) report(`${where}: not marked as its page`);
  }
  if (cached !== space.nrPages) {
    report(`${space.name}: ${cached} pages in the cache, counted ${space.nrPages}`);
  }
}

function auditFrames({ pages }: Folios, counted: Counted, report: Report): void {
  for (let pfn = 0; pfn < pages.ramPages; pfn++) {
    const references = counted.references[pfn]!;
    const isUsers = isAllocated(pages, pfn) && isUserOwned(pages.owner[pfn]!);
    if (!isUsers && references === 0) continue;
    if (pages.mapcount[pfn] !== counted.mapped[pfn]) {
      report(`frame ${pfn}: mapcount ${pages.mapcount[pfn]}, ${counted.mapped[pfn]} entries`);
    }
    // On no list: isolated, by somebody with a reference.
    const isIsolated = isUsers && !pages.hasFlag(pfn, PageFlag.LRU);
    const expected = references + (isIsolated ? 1 : 0);
    if (pages.refcount[pfn] !== expected) {
      report(`frame ${pfn}: refcount ${pages.refcount[pfn]}, ${expected} are accounted for`);
    }
    const hasMapping = isUsers && pages.mapping[pfn] !== 0;
    if (hasMapping && counted.owned[pfn] === 0 && !isIsolated) {
      report(`frame ${pfn}: names an object that does not know it`);
    }
  }
}

/** Lists hold what they count, each page once, on the list that its flags name. */
function auditLists({ pages, lruvec }: Folios, report: Report): void {
  let onLists = 0;
  for (const list of Object.values(LruList)) {
    let listed = 0;
    for (let pfn = lruvec.oldest(list); pfn >= 0; pfn = lruvec.younger(list, pfn)) {
      listed += 1 << pages.order[pfn]!;
      if (!pages.hasFlag(pfn, PageFlag.LRU)) report(`frame ${pfn}: on LRU list ${list}, unmarked`);
      if (lruvec.listOf(pfn) !== list) report(`frame ${pfn}: on LRU list ${list}, not its own`);
      if (++onLists <= pages.ramPages) continue;
      report(`LRU list ${list} does not end`);
      return;
    }
    if (listed !== lruvec.nrPages[list]) {
      report(`LRU list ${list}: ${listed} pages, counted ${lruvec.nrPages[list]}`);
    }
  }
  let marked = 0;
  let isolated = 0;
  for (let pfn = 0; pfn < pages.ramPages; pfn++) {
    if (!isAllocated(pages, pfn)) continue;
    if (pages.hasFlag(pfn, PageFlag.LRU)) marked++;
    else if (isUserOwned(pages.owner[pfn]!)) isolated += 1 << pages.order[pfn]!;
  }
  if (marked !== onLists) report(`${marked} pages are marked LRU, ${onLists} are on lists`);
  const counted = lruvec.isolatedAnonPages + lruvec.isolatedFilePages;
  if (isolated !== counted) report(`${isolated} pages are isolated, NR_ISOLATED is ${counted}`);
}

function auditGauges({ folios, spaces }: AuditedUsers, report: Report): void {
  const { pages, mm } = folios;
  const expected = { nr_file_pages: 0, nr_shmem: 0, nr_dirty: 0, nr_writeback: 0 };
  for (const space of spaces) {
    expected.nr_file_pages += space.nrPages;
    if (space.kind === 'shmem') expected.nr_shmem += space.nrPages;
  }
  for (let pfn = 0; pfn < pages.ramPages; pfn++) {
    if (!isAllocated(pages, pfn)) continue;
    if (pages.hasFlag(pfn, PageFlag.WRITEBACK)) expected.nr_writeback++;
    const isFile = pages.owner[pfn] === PageOwner.FILE;
    if (isFile && pages.hasFlag(pfn, PageFlag.DIRTY)) expected.nr_dirty++;
  }
  for (const [name, value] of Object.entries(expected)) {
    const counted = mm.vmstat[name as keyof MmVmstat];
    if (counted !== value) report(`${name} is ${counted}, there are ${value}`);
  }
}
