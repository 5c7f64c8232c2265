/**
 * Zones, their free areas and watermarks (Linux 6.1 mm/page_alloc.c: setup_per_zone_wmarks,
 * setup_per_zone_lowmem_reserve, zone_watermark_ok), and the migrate types of pageblocks.
 */

import { assert, type Pfn } from '../../shared/index.ts';
import { MIGRATE_PCPTYPES, MIGRATE_TYPES, MigrateType } from './migratetype.ts';
import {
  MAX_ORDER_NR_PAGES,
  MAX_PAGE_ORDER,
  NR_PAGE_ORDERS,
  PAGEBLOCK_NR_PAGES,
  PAGEBLOCK_ORDER,
} from './pages.ts';
import { MAX_NR_ZONES, ZONE_NAMES, ZoneType } from './zone-type.ts';

/** First frame at 16 MiB, which ISA DMA cannot reach, and at 4 GiB. */
const DMA_END_PFN = 1 << 12;
const DMA32_END_PFN = 1 << 20;
const KIB_PER_PAGE = 4;
/** vm.lowmem_reserve_ratio. */
const LOWMEM_RESERVE_RATIO = [256, 256, 32, 0];
/** vm.watermark_scale_factor, in units of 1/10000 of the zone. */
const WATERMARK_SCALE_FACTOR = 10;
const MIN_FREE_KBYTES_LIMITS = [128, 262_144] as const;

/** ALLOC_* of mm/internal.h: how far an allocation may go. The two low bits name a watermark. */
export const AllocFlag = {
  WMARK_MIN: 0,
  WMARK_LOW: 1,
  WMARK_HIGH: 2,
  NO_WATERMARKS: 1 << 2,
  HARDER: 1 << 4,
  HIGH: 1 << 5,
  CMA: 1 << 7,
  NOFRAGMENT: 1 << 8,
} as const;
export const ALLOC_WMARK_MASK = 3;

/** Free lists of one zone: order by order from the highest, in each order by migrate type. */
export const LISTS_PER_ZONE = NR_PAGE_ORDERS * MIGRATE_TYPES;

/** Index of a free list within its zone; a walk visits lists in ascending index. */
export function freeListIndex(order: number, migratetype: number): number {
  return (MAX_PAGE_ORDER - order) * MIGRATE_TYPES + migratetype;
}

export class Zone {
  readonly index: ZoneType;
  readonly name: (typeof ZONE_NAMES)[number];
  readonly startPfn: Pfn;
  /** Exclusive. */
  readonly endPfn: Pfn;
  /** Index of the zone's first free list among all lists. */
  readonly firstList: number;
  managedPages: number;
  /** NR_FREE_PAGES: on buddy lists, isolated pageblocks excepted. */
  freePages = 0;
  freeCmaPages = 0;
  reservedHighatomicPages = 0;
  /** Counts every change of a free list: two equal readings mean that nothing happened between. */
  generation = 0;
  /** Blocks per order, isolated ones included. */
  readonly nrFree = new Int32Array(NR_PAGE_ORDERS);
  /** Blocks per list, by `freeListIndex`. */
  readonly nrFreeByList = new Int32Array(LISTS_PER_ZONE);
  /** min, low, high, in pages. */
  readonly watermarkPages = new Int32Array(3);
  /** Pages kept from requests that could have used a higher zone, by that zone. */
  readonly lowmemReservePages = new Int32Array(MAX_NR_ZONES);

  constructor(index: ZoneType, startPfn: Pfn, endPfn: Pfn) {
    this.index = index;
    this.name = ZONE_NAMES[index]!;
    this.startPfn = startPfn;
    this.endPfn = endPfn;
    this.firstList = index * LISTS_PER_ZONE;
    this.managedPages = endPfn - startPfn;
  }

  get isPopulated(): boolean {
    return this.managedPages > 0;
  }

  /** zone_watermark_ok: enough free memory, and a block of that order on a list that may be used. */
  watermarkOk(order: number, markPages: number, highestZone: ZoneType, flags: number): boolean {
    const harder = (flags & AllocFlag.HARDER) !== 0;
    let minPages = markPages;
    if ((flags & AllocFlag.HIGH) !== 0) minPages -= minPages >> 1;
    if (harder) minPages -= minPages >> 2;
    let freePages = this.freePages - ((1 << order) - 1);
    if (!harder) freePages -= this.reservedHighatomicPages;
    if ((flags & AllocFlag.CMA) === 0) freePages -= this.freeCmaPages;
    if (freePages <= minPages + this.lowmemReservePages[highestZone]!) return false;
    return order === 0 || this.#hasBlock(order, flags, harder);
  }

  #hasBlock(order: number, flags: number, harder: boolean): boolean {
    for (let o = order; o <= MAX_PAGE_ORDER; o++) {
      if (this.nrFree[o] === 0) continue;
      const list = freeListIndex(o, 0);
      for (let type = 0; type < MIGRATE_PCPTYPES; type++) {
        if (this.nrFreeByList[list + type]! > 0) return true;
      }
      if ((flags & AllocFlag.CMA) !== 0 && this.nrFreeByList[list + MigrateType.CMA]! > 0) {
        return true;
      }
      if (harder && this.nrFreeByList[list + MigrateType.HIGHATOMIC]! > 0) return true;
    }
    return false;
  }
}

/**
 * All four zones, empty ones included, so that a zone's place is its `ZoneType`. The movable zone
 * is carved from the top, as `movablecore=` does, and begins at a block of the largest order.
 */
export function layOutZones(ramPages: number, movablePages: number): readonly Zone[] {
  assert(movablePages >= 0 && movablePages < ramPages, 'some memory is not movable');
  const rounded = Math.ceil((ramPages - movablePages) / MAX_ORDER_NR_PAGES) * MAX_ORDER_NR_PAGES;
  const movableStart = movablePages === 0 ? ramPages : Math.min(rounded, ramPages);
  const ends = [DMA_END_PFN, DMA32_END_PFN, movableStart, ramPages].map((end) =>
    Math.min(end, movableStart),
  );
  ends[ZoneType.MOVABLE] = ramPages;
  let start = 0;
  return ends.map((end, index) => {
    const zone = new Zone(index as ZoneType, start, end);
    start = end;
    return zone;
  });
}

/** init_per_zone_wmark_min: the square root of 16 times the memory below the movable zone, in KiB. */
export function defaultMinFreeKbytes(zones: readonly Zone[]): number {
  let lowmemPages = 0;
  for (const zone of zones) if (zone.index !== ZoneType.MOVABLE) lowmemPages += zone.managedPages;
  const kbytes = Math.floor(Math.sqrt(lowmemPages * KIB_PER_PAGE * 16));
  return Math.min(Math.max(kbytes, MIN_FREE_KBYTES_LIMITS[0]), MIN_FREE_KBYTES_LIMITS[1]);
}

/** Sets watermarks and reserves of all zones from their managed pages. */
export function setUpWatermarks(zones: readonly Zone[], minFreeKbytes: number): void {
  const minPages = Math.floor(minFreeKbytes / KIB_PER_PAGE);
  const totalPages = zones.reduce((sum, zone) => sum + zone.managedPages, 0);
  for (const zone of zones) {
    const managed = zone.managedPages;
    const share = totalPages === 0 ? 0 : Math.floor((minPages * managed) / totalPages);
    const gap = Math.max(share >> 2, Math.floor((managed * WATERMARK_SCALE_FACTOR) / 10_000));
    zone.watermarkPages.set([share, share + gap, share + 2 * gap]);
    let abovePages = 0;
    zone.lowmemReservePages.fill(0);
    for (let above = zone.index + 1; above < MAX_NR_ZONES; above++) {
      abovePages += zones[above]!.managedPages;
      const ratio = LOWMEM_RESERVE_RATIO[zone.index]!;
      if (ratio > 0 && managed > 0) {
        zone.lowmemReservePages[above] = Math.floor(abovePages / ratio);
      }
    }
  }
}

/** The migrate type of every pageblock; all of them begin MOVABLE, as at boot. */
export class Pageblocks {
  readonly types: Uint8Array;

  constructor(ramPages: number) {
    this.types = new Uint8Array(Math.ceil(ramPages / PAGEBLOCK_NR_PAGES)).fill(MigrateType.MOVABLE);
  }

  typeOf(pfn: Pfn): MigrateType {
    return this.types[pfn >>> PAGEBLOCK_ORDER]! as MigrateType;
  }

  setType(pfn: Pfn, type: MigrateType): void {
    this.types[pfn >>> PAGEBLOCK_ORDER] = type;
  }
}
