/**
 * Whole-state audit of the page allocator: says in words what does not hold. It trusts nothing
 * that it can recompute, so it is slow, and meant for tests and for `audit_every_events`.
 */

import type { Pfn } from '../../shared/index.ts';
import type { FreeLists } from './free-lists.ts';
import { MIGRATE_TYPES, MigrateType } from './migratetype.ts';
import { NR_PAGE_ORDERS, PAGEBLOCK_ORDER, PageFlag, type Pages } from './pages.ts';
import type { PerCpuLists } from './pcp.ts';
import { freeListIndex, type Pageblocks, type Zone } from './zone.ts';

/** What is audited: an allocator as it is, every part of it. */
export interface AuditedMemory {
  readonly pages: Pages;
  readonly pageblocks: Pageblocks;
  readonly zones: readonly Zone[];
  readonly freeLists: FreeLists;
  readonly pcp: PerCpuLists;
}

const MAX_FINDINGS = 20;
const HEAD = PageFlag.BUDDY | PageFlag.PCP | PageFlag.ALLOCATED;

export function auditPages(mm: AuditedMemory): string[] {
  const findings: string[] = [];
  const report = (text: string): void => {
    if (findings.length < MAX_FINDINGS) findings.push(text);
  };
  /** 1: seen on a buddy list; 2: on a per-CPU list. */
  const seen = new Uint8Array(mm.pages.ramPages);
  for (const zone of mm.zones) {
    auditFreeLists(mm, zone, seen, report);
    auditPcp(mm, zone, seen, report);
  }
  auditFrames(mm, seen, report);
  return findings;
}

type Report = (text: string) => void;

function auditFreeLists(mm: AuditedMemory, zone: Zone, seen: Uint8Array, report: Report): void {
  let freePages = 0;
  let cmaPages = 0;
  for (let order = 0; order < NR_PAGE_ORDERS; order++) {
    let blocks = 0;
    for (let type = 0; type < MIGRATE_TYPES; type++) {
      const counted = zone.nrFreeByList[freeListIndex(order, type)]!;
      const walked = auditList(mm, zone, order, type, seen, report);
      if (walked !== counted) {
        report(
          `zone ${zone.name} order ${order} type ${type}: ${walked} blocks, counted ${counted}`,
        );
      }
      blocks += walked;
      if (type !== MigrateType.ISOLATE) freePages += walked << order;
      if (type === MigrateType.CMA) cmaPages += walked << order;
    }
    if (blocks !== zone.nrFree[order]) {
      report(`zone ${zone.name} order ${order}: ${blocks} blocks, nr_free ${zone.nrFree[order]}`);
    }
  }
  if (freePages !== zone.freePages) {
    report(`zone ${zone.name}: ${freePages} free pages, NR_FREE_PAGES ${zone.freePages}`);
  }
  if (cmaPages !== zone.freeCmaPages) {
    report(`zone ${zone.name}: ${cmaPages} free CMA pages, counted ${zone.freeCmaPages}`);
  }
}

/** Walks one list; returns its length. Stops at the first bad link, since it leads anywhere. */
function auditList(
  mm: AuditedMemory,
  zone: Zone,
  order: number,
  type: number,
  seen: Uint8Array,
  report: Report,
): number {
  const { pages } = mm;
  const head = mm.freeLists.headOf(zone, order, type);
  let previous = head;
  let blocks = 0;
  for (let node = pages.next[head]!; node !== head; node = pages.next[node]!) {
    const where = `frame ${node} on list ${zone.name}/${order}/${type}`;
    if (node < zone.startPfn || node + (1 << order) > zone.endPfn) {
      report(`${where}: outside the zone`);
      return blocks;
    }
    if (pages.prev[node] !== previous) report(`${where}: prev is ${pages.prev[node]}`);
    if (seen[node] !== 0) {
      report(`${where}: on a list twice`);
      return blocks;
    }
    if ((pages.flags[node]! & HEAD) !== PageFlag.BUDDY) report(`${where}: not marked BUDDY`);
    if (pages.order[node] !== order) report(`${where}: its order is ${pages.order[node]}`);
    if (pages.migratetype[node] !== type)
      report(`${where}: its type is ${pages.migratetype[node]}`);
    seen.fill(1, node, node + (1 << order));
    if (isUnmerged(mm, node, order)) report(`${where}: its buddy is free and was not merged`);
    previous = node;
    blocks++;
  }
  if (pages.prev[head] !== previous) report(`list ${zone.name}/${order}/${type}: bad tail link`);
  return blocks;
}

/** Pairs of whole pageblocks are left out: their types may change while both lie on lists. */
function isUnmerged(mm: AuditedMemory, pfn: Pfn, order: number): boolean {
  const { pages } = mm;
  const buddy = pfn ^ (1 << order);
  if (order >= PAGEBLOCK_ORDER || (pages.flags[buddy]! & PageFlag.BUDDY) === 0) return false;
  return pages.order[buddy] === order;
}

function auditPcp(mm: AuditedMemory, zone: Zone, seen: Uint8Array, report: Report): void {
  const { pages } = mm;
  let counted = 0;
  for (const { cpu, order, pfn } of mm.pcp.nodes(zone)) {
    const where = `frame ${pfn} on the lists of CPU ${cpu}`;
    if (pfn < zone.startPfn || pfn >= zone.endPfn) {
      report(`${where}: outside zone ${zone.name}`);
      return;
    }
    if (seen[pfn] !== 0) {
      report(`${where}: on a list twice`);
      return;
    }
    if ((pages.flags[pfn]! & HEAD) !== PageFlag.PCP) report(`${where}: not marked PCP`);
    if (pages.order[pfn] !== order) report(`${where}: its order is ${pages.order[pfn]}`);
    if (pages.owner[pfn] !== cpu) report(`${where}: belongs to CPU ${pages.owner[pfn]}`);
    seen.fill(2, pfn, pfn + (1 << order));
    counted += 1 << order;
  }
  if (counted !== mm.pcp.countPages(zone)) {
    report(`zone ${zone.name}: ${counted} per-CPU pages, counted ${mm.pcp.countPages(zone)}`);
  }
}

/** The blocks partition memory: each begins where the one before ends, and tails carry no state. */
function auditFrames(mm: AuditedMemory, seen: Uint8Array, report: Report): void {
  const { pages } = mm;
  for (let pfn = 0; pfn < pages.ramPages; ) {
    const flags = pages.flags[pfn]! & HEAD;
    if (flags !== PageFlag.BUDDY && flags !== PageFlag.PCP && flags !== PageFlag.ALLOCATED) {
      report(`frame ${pfn}: flags ${pages.flags[pfn]} where a block begins`);
      pfn++;
      continue;
    }
    const end = pfn + (1 << pages.order[pfn]!);
    const isFree = flags !== PageFlag.ALLOCATED;
    const expected = flags === PageFlag.BUDDY ? 1 : flags === PageFlag.PCP ? 2 : 0;
    if ((pfn & (end - pfn - 1)) !== 0) report(`frame ${pfn}: block of ${end - pfn} is not aligned`);
    if (end > pages.ramPages) report(`frame ${pfn}: its block ends beyond RAM`);
    if (isFree && pages.refcount[pfn] !== 0) report(`frame ${pfn}: free with references`);
    for (let at = pfn; at < end && at < pages.ramPages; at++) {
      if (at > pfn && pages.flags[at] !== 0)
        report(`frame ${at}: a tail with flags ${pages.flags[at]}`);
      if (seen[at] !== expected)
        report(`frame ${at}: flags say ${expected}, lists say ${seen[at]}`);
      if (pages.isFree(at) !== isFree) report(`frame ${at}: its free bit is ${pages.isFree(at)}`);
    }
    pfn = end;
  }
}
