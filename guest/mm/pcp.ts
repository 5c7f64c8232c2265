/**
 * Per-CPU page lists of Linux 6.1: orders 0–3 of the three common migrate types, refilled and
 * drained in batches. Lists of transparent huge pages (order 9) are not modelled.
 */

import type { Pfn } from '../../shared/index.ts';
import type { Buddy } from './buddy.ts';
import { MIGRATE_PCPTYPES, MigrateType } from './migratetype.ts';
import { PageFlag, type Pages } from './pages.ts';
import { AllocFlag, type Zone } from './zone.ts';
import { MAX_NR_ZONES } from './zone-type.ts';

/** Larger orders go to the buddy lists directly. */
export const PAGE_ALLOC_COSTLY_ORDER = 3;
const PCP_LISTS = (PAGE_ALLOC_COSTLY_ORDER + 1) * MIGRATE_PCPTYPES;
/** A batch of one mebibyte of pages at most, before it is quartered. */
const MAX_BATCH_PAGES = 256;

/** List heads that the per-CPU lists need. */
export function pcpListCount(vcpus: number): number {
  return MAX_NR_ZONES * vcpus * PCP_LISTS;
}

/** zone_batchsize: a quarter of a thousandth of the zone, near a power of two, less one. */
export function zoneBatchPages(managedPages: number): number {
  const quarter = Math.max(1, Math.min(managedPages >> 10, MAX_BATCH_PAGES) >> 2);
  const rounded = 1 << (31 - Math.clz32(quarter + (quarter >> 1)));
  return Math.max(1, rounded - 1);
}

export class PerCpuLists {
  readonly #buddy: Buddy;
  readonly #pages: Pages;
  readonly #zones: readonly Zone[];
  readonly #vcpus: number;
  readonly #firstHead: number;
  /** Pages, by zone and CPU. */
  readonly #count: Int32Array;
  /** How often frees came without an allocation between: a longer run drains larger batches. */
  readonly #freeFactor: Uint8Array;
  readonly #highPages = new Int32Array(MAX_NR_ZONES);
  readonly #batchPages = new Int32Array(MAX_NR_ZONES);

  constructor(buddy: Buddy, zones: readonly Zone[], vcpus: number, firstHead: number) {
    this.#buddy = buddy;
    this.#pages = buddy.pages;
    this.#zones = zones;
    this.#vcpus = vcpus;
    this.#firstHead = firstHead;
    this.#count = new Int32Array(MAX_NR_ZONES * vcpus);
    this.#freeFactor = new Uint8Array(MAX_NR_ZONES * vcpus);
    this.setUp();
  }

  /** Batch and high mark from the zones' watermarks: zone_batchsize, zone_highsize. */
  setUp(): void {
    for (const zone of this.#zones) {
      const batch = zoneBatchPages(zone.managedPages);
      const share = Math.floor(zone.watermarkPages[AllocFlag.WMARK_LOW]! / this.#vcpus);
      this.#batchPages[zone.index] = batch;
      this.#highPages[zone.index] = Math.max(share, batch << 2);
    }
  }

  /** A block of nobody from the CPU's list, which is refilled first if it is empty; −1 if it stays so. */
  alloc(zone: Zone, cpu: number, order: number, migratetype: MigrateType, flags: number): Pfn {
    const slot = zone.index * this.#vcpus + cpu;
    const list = this.#headOf(slot, order, migratetype);
    this.#freeFactor[slot]! >>= 1;
    if (this.#pages.next[list] === list) this.#refill(zone, slot, order, migratetype, flags);
    const pfn = this.#pages.next[list]!;
    if (pfn === list) return -1;
    this.#unlink(slot, pfn);
    return pfn;
  }

  /** free_unref_page: puts a block of nobody at the head of the CPU's list, and drains above high. */
  free(zone: Zone, cpu: number, pfn: Pfn, order: number, migratetype: MigrateType): void {
    const slot = zone.index * this.#vcpus + cpu;
    this.#link(slot, pfn, order, migratetype, false);
    const count = this.#count[slot]!;
    const batch = this.#batchPages[zone.index]!;
    // A run of frees of larger blocks flushes all: they are worth more merged than cached.
    const flushes = order > 0 && this.#freeFactor[slot]! > 0;
    const high = flushes ? 0 : this.#highPages[zone.index]!;
    if (count < high) return;
    this.#drain(zone, slot, flushes ? count : this.#drainPages(slot, high, batch));
  }

  /** A frame that was on the list of CPU 0 when the emulation began. */
  adopt(zone: Zone, pfn: Pfn, migratetype: MigrateType): void {
    this.#link(zone.index * this.#vcpus, pfn, 0, migratetype, true);
  }

  /** Takes a given block off whatever list it is on. */
  remove(zone: Zone, head: Pfn): void {
    this.#unlink(zone.index * this.#vcpus + this.#pages.owner[head]!, head);
  }

  drain(cpu: number): void {
    for (const zone of this.#zones) {
      const slot = zone.index * this.#vcpus + cpu;
      this.#drain(zone, slot, this.#count[slot]!);
    }
  }

  /** Pages on all lists of a zone. */
  countPages(zone: Zone): number {
    let total = 0;
    for (let cpu = 0; cpu < this.#vcpus; cpu++)
      total += this.#count[zone.index * this.#vcpus + cpu]!;
    return total;
  }

  highPages(zone: Zone): number {
    return this.#highPages[zone.index]!;
  }

  batchPages(zone: Zone): number {
    return this.#batchPages[zone.index]!;
  }

  /** Every block on the lists of a zone, list by list, for audits. */
  *nodes(zone: Zone): Generator<{ cpu: number; order: number; pfn: Pfn }> {
    for (let cpu = 0; cpu < this.#vcpus; cpu++) {
      for (let list = 0; list < PCP_LISTS; list++) {
        const head = this.#firstHead + (zone.index * this.#vcpus + cpu) * PCP_LISTS + list;
        const order = Math.floor(list / MIGRATE_PCPTYPES);
        for (let pfn = this.#pages.next[head]!; pfn !== head; pfn = this.#pages.next[pfn]!) {
          yield { cpu, order, pfn };
        }
      }
    }
  }

  #headOf(slot: number, order: number, migratetype: number): number {
    // Blocks of the rare types travel with the movable ones, as Linux has no list for them.
    const type = migratetype < MIGRATE_PCPTYPES ? migratetype : MigrateType.MOVABLE;
    return this.#firstHead + slot * PCP_LISTS + order * MIGRATE_PCPTYPES + type;
  }

  #link(slot: number, pfn: Pfn, order: number, migratetype: MigrateType, toTail: boolean): void {
    const pages = this.#pages;
    pages.link(this.#headOf(slot, order, migratetype), pfn, toTail);
    pages.flags[pfn] = PageFlag.PCP;
    pages.order[pfn] = order;
    pages.migratetype[pfn] = migratetype;
    // Of a page on a per-CPU list, `owner` is the CPU: whoever takes it away must know whose count falls.
    pages.owner[pfn] = slot % this.#vcpus;
    this.#count[slot]! += 1 << order;
  }

  #unlink(slot: number, pfn: Pfn): void {
    const pages = this.#pages;
    pages.unlink(pfn);
    pages.flags[pfn] = 0;
    pages.owner[pfn] = 0;
    this.#count[slot]! -= 1 << pages.order[pfn]!;
  }

  /** rmqueue_bulk: at the tail, so that pages leave in the order in which they came. */
  #refill(zone: Zone, slot: number, order: number, migratetype: MigrateType, flags: number): void {
    const batch = this.#batchPages[zone.index]!;
    const blocks = batch > 1 ? Math.max(batch >> order, 2) : batch;
    for (let i = 0; i < blocks; i++) {
      const pfn = this.#buddy.take(zone, order, migratetype, flags);
      if (pfn < 0) return;
      this.#link(slot, pfn, order, migratetype, true);
    }
  }

  /** nr_pcp_free. */
  #drainPages(slot: number, high: number, batch: number): number {
    if (high < batch) return 1;
    const most = high - batch;
    const wanted = batch << this.#freeFactor[slot]!;
    if (wanted < most) this.#freeFactor[slot]!++;
    return Math.min(Math.max(wanted, batch), most);
  }

  /** free_pcppages_bulk: list after list, each from its tail, where the coldest pages are. */
  #drain(zone: Zone, slot: number, pageCount: number): void {
    const { prev, order: orders, migratetype: types } = this.#pages;
    const firstHead = this.#firstHead + slot * PCP_LISTS;
    let left = Math.min(pageCount, this.#count[slot]!);
    for (let list = 0; list < PCP_LISTS && left > 0; list++) {
      const head = firstHead + list;
      while (left > 0 && prev[head] !== head) {
        const pfn = prev[head]!;
        const order = orders[pfn]!;
        this.#unlink(slot, pfn);
        left -= 1 << order;
        const blockType = this.#buddy.pageblocks.typeOf(pfn);
        // A pageblock may have been isolated while its pages were here.
        const type = blockType === MigrateType.ISOLATE ? blockType : types[pfn]!;
        this.#buddy.free(zone, pfn, order, type);
      }
    }
  }
}
