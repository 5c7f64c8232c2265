/**
 * The guest's page allocator: the zonelist walk with watermarks and fallbacks of Linux 6.1
 * (mm/page_alloc.c), and what a replay needs besides: taking given frames. Reclaim is a hook.
 */

import type { MmOptions } from '../../protocol/control.ts';
import { assert, type Bitmap, Errno, type Pfn } from '../../shared/index.ts';
import { Buddy } from './buddy.ts';
import { reserveHighatomic, unreserveHighatomic } from './fallback.ts';
import type { FreeLists } from './free-lists.ts';
import { Gfp, type GfpMask, highestZoneOf, migratetypeOf } from './gfp.ts';
import { isMergeable, MigrateType } from './migratetype.ts';
import type { PageAllocatorHooks, PageAllocatorOptions } from './page-allocator-options.ts';
import { auditPages } from './page-audit.ts';
import {
  MAX_PAGE_ORDER,
  NR_PAGE_ORDERS,
  PAGEBLOCK_NR_PAGES,
  PAGEBLOCK_ORDER,
  PageFlag,
  PageOwner,
  Pages,
} from './pages.ts';
import { PAGE_ALLOC_COSTLY_ORDER, PerCpuLists, pcpListCount } from './pcp.ts';
import { type MmVmstat, PGALLOC, zeroVmstat } from './vmstat.ts';
import {
  ALLOC_WMARK_MASK,
  AllocFlag,
  defaultMinFreeKbytes,
  LISTS_PER_ZONE,
  layOutZones,
  Pageblocks,
  setUpWatermarks,
  type Zone,
} from './zone.ts';
import { MAX_NR_ZONES, ZoneType } from './zone-type.ts';

export class PageAllocator {
  readonly pages: Pages;
  readonly zones: readonly Zone[];
  readonly pageblocks: Pageblocks;
  readonly buddy: Buddy;
  readonly pcp: PerCpuLists;
  readonly vmstat: MmVmstat = zeroVmstat();
  readonly #vcpus: number;
  readonly #mm: MmOptions;
  readonly #minFreeKbytes: number | undefined;
  readonly #hooks: PageAllocatorHooks;

  constructor(options: PageAllocatorOptions, hooks: PageAllocatorHooks) {
    const freeLists = MAX_NR_ZONES * LISTS_PER_ZONE;
    this.#vcpus = options.vcpus;
    this.#hooks = hooks;
    this.#minFreeKbytes = options.minFreeKbytes;
    // Poisoning overrides both: a page cannot be zero and keep the pattern.
    const initialises = !options.mm.pagePoison;
    this.#mm = {
      initOnAlloc: initialises && options.mm.initOnAlloc,
      initOnFree: initialises && options.mm.initOnFree,
      pagePoison: options.mm.pagePoison,
    };
    this.pages = new Pages(options.ramPages, freeLists + pcpListCount(options.vcpus));
    this.zones = layOutZones(options.ramPages, options.movablePages ?? 0);
    this.pageblocks = new Pageblocks(options.ramPages);
    this.buddy = new Buddy(this.pages, this.pageblocks);
    const firstPcpHead = this.pages.listBase + freeLists;
    this.pcp = new PerCpuLists(this.buddy, this.zones, options.vcpus, firstPcpHead);
    this.#setUpWatermarks();
  }

  /** What every freed page holds: the poison, zeroes (init_on_free), or nothing in particular. */
  get freedContent(): 'zero' | 'poison' | null {
    if (this.#mm.pagePoison) return 'poison';
    return this.#mm.initOnFree ? 'zero' : null;
  }

  get freeLists(): FreeLists {
    return this.buddy.lists;
  }

  /**
   * Boot: hands these frames to the buddy lists, ascending, at the tail, in maximal aligned
   * blocks. `onPcp`: frames that are on the per-CPU lists of CPU 0. `reserved`: frames that were
   * never the allocator's, which do not count for the watermarks. All others stay as they are.
   */
  adoptFreeSet(free: Bitmap, onPcp?: Bitmap, reserved?: Bitmap): void {
    for (const zone of this.zones) {
      let start = free.nextSet(zone.startPfn);
      while (start >= 0 && start < zone.endPfn) {
        const end = Math.min(free.nextClear(start), zone.endPfn);
        this.#adoptRun(zone, start, end);
        start = free.nextSet(end);
      }
      if (reserved) {
        zone.managedPages =
          zone.endPfn -
          zone.startPfn -
          reserved.countRange(zone.startPfn, zone.endPfn - zone.startPfn);
      }
    }
    for (let pfn = onPcp?.nextSet(0) ?? -1; onPcp && pfn >= 0; pfn = onPcp.nextSet(pfn + 1)) {
      this.pages.disown(pfn, 0);
      this.pages.setFree(pfn, 0, true);
      this.pcp.adopt(this.zoneOf(pfn), pfn, this.pageblocks.typeOf(pfn));
    }
    for (
      let pfn = reserved?.nextSet(0) ?? -1;
      reserved && pfn >= 0;
      pfn = reserved.nextSet(pfn + 1)
    ) {
      assert(!this.pages.isFree(pfn), 'a reserved frame is not free');
      this.pages.flags[pfn]! |= PageFlag.RESERVED;
    }
    this.#setUpWatermarks();
  }

  /**
   * A block of 2^order pages. EINVAL above order 10, ENOMEM where Linux returns NULL: watermarks,
   * reserves and reclaim decide. `__GFP_ZERO` and init_on_alloc clear it.
   */
  alloc(order: number, gfp: GfpMask, cpu = 0): Pfn | Errno {
    if (!(order >= 0 && order <= MAX_PAGE_ORDER)) return Errno.EINVAL;
    const migratetype = migratetypeOf(gfp);
    const highest = highestZoneOf(gfp);
    let flags: number = AllocFlag.WMARK_LOW;
    if (migratetype === MigrateType.MOVABLE) flags |= AllocFlag.CMA;
    // Where a lower zone can serve instead, mixing types in ZONE_NORMAL comes second.
    const normal = this.zones[ZoneType.NORMAL]!;
    const lower = this.zones[ZoneType.DMA32]!;
    if (highest === ZoneType.NORMAL && normal.isPopulated && lower.isPopulated) {
      flags |= AllocFlag.NOFRAGMENT;
    }
    let pfn = this.#fromFreelists(order, migratetype, highest, flags, cpu);
    if (pfn < 0) pfn = this.#allocSlow(order, gfp, migratetype, highest, cpu);
    if (pfn < 0) {
      this.vmstat.alloc_failures++;
      return Errno.ENOMEM;
    }
    this.pages.setFree(pfn, order, false);
    this.#prepare(pfn, order, gfp, migratetype);
    return pfn;
  }

  /**
   * Takes exactly these frames, wherever they are free; false and no change if one of them is
   * not. What a replay does, where the real kernel chose.
   */
  allocExact(pfn: Pfn, order: number, gfp: GfpMask): boolean {
    if (!this.#isBlock(pfn, order) || !this.pages.areAll(pfn, order, true)) return false;
    const zone = this.zoneOf(pfn);
    const end = pfn + (1 << order);
    let at = pfn;
    while (at < end) {
      // The first block may be larger than what is asked for; the others are inside it.
      const head = at === pfn ? this.pages.headOf(at) : at;
      const take = Math.min(this.pages.order[head]!, order);
      this.#takeFree(zone, head, at, take);
      at += 1 << take;
    }
    this.pages.setFree(pfn, order, false);
    this.#prepare(pfn, order, gfp, migratetypeOf(gfp));
    return true;
  }

  /**
   * Frees 2^order pages, which need not be one allocation: a part of one (split_page) and several
   * together are as good. Asserts that none of them is free.
   */
  free(pfn: Pfn, order: number, cpu = 0): void {
    assert(this.#isBlock(pfn, order), 'what is freed is an aligned block of RAM');
    assert(this.pages.areAll(pfn, order, false), 'a block is freed once');
    this.pages.disown(pfn, order);
    const pageCount = 1 << order;
    this.vmstat.pgfree += pageCount;
    if (this.#mm.pagePoison) this.#hooks.clearPages(pfn, pageCount, 'poison');
    else if (this.#mm.initOnFree) this.#hooks.clearPages(pfn, pageCount, 'zero');
    this.pages.setFree(pfn, order, true);
    const zone = this.zoneOf(pfn);
    const type = this.pageblocks.typeOf(pfn);
    if (order <= PAGE_ALLOC_COSTLY_ORDER && type !== MigrateType.ISOLATE) {
      this.pcp.free(zone, cpu, pfn, order, type);
    } else {
      this.buddy.free(zone, pfn, order, type);
    }
  }

  /** Sets the type of a pageblock (by number) and moves its free blocks to the lists of the type. */
  setMigratetype(pageblock: number, type: MigrateType): void {
    const pfn = pageblock << PAGEBLOCK_ORDER;
    assert(pfn < this.pages.ramPages, 'the pageblock is in RAM');
    const zone = this.zoneOf(pfn);
    if (!isMergeable(type)) this.#splitAcross(zone, pfn);
    this.pageblocks.setType(pfn, type);
    this.buddy.movePageblock(zone, pfn, type);
  }

  /** A block that was isolated from the buddy lists becomes the caller's, with one reference. */
  claimIsolated(pfn: Pfn, order: number, gfp: GfpMask): void {
    this.#prepare(pfn, order, gfp, migratetypeOf(gfp));
  }

  /** Returns all pages of a CPU's lists to the buddy lists. */
  drainPcp(cpu: number): void {
    this.pcp.drain(cpu);
  }

  /** drain_all_pages */
  drainAllPcp(): void {
    for (let cpu = 0; cpu < this.#vcpus; cpu++) this.pcp.drain(cpu);
  }

  /** Free pages may be pinned to per-CPU lists or to the atomic reserve: the last resort. */
  drainForReclaim(migratetype: MigrateType): void {
    for (const zone of this.zones) unreserveHighatomic(this.buddy, zone, migratetype);
    this.drainAllPcp();
  }

  /** On a buddy or a per-CPU list. */
  isFree(pfn: Pfn): boolean {
    return this.pages.isFree(pfn);
  }

  /** Size of the free set: buddy and per-CPU lists. `Zone.freePages` is NR_FREE_PAGES. */
  freePages(): number {
    let total = 0;
    for (const zone of this.zones) {
      total += this.pcp.countPages(zone);
      for (let order = 0; order < NR_PAGE_ORDERS; order++) total += zone.nrFree[order]! << order;
    }
    return total;
  }

  /** Blocks on the buddy lists by order, all zones together: /proc/buddyinfo. */
  freeCountByOrder(): number[] {
    const counts = new Array<number>(NR_PAGE_ORDERS).fill(0);
    for (const zone of this.zones) {
      for (let order = 0; order < NR_PAGE_ORDERS; order++) counts[order]! += zone.nrFree[order]!;
    }
    return counts;
  }

  /** Overwrites `into` with the free set. */
  writeFreeSet(into: Bitmap): void {
    assert(into.bitCount === this.pages.ramPages, 'the bitmap has one bit for each frame');
    into.words.set(this.pages.freeBits.subarray(0, into.words.length));
  }

  zoneOf(pfn: Pfn): Zone {
    for (const zone of this.zones) if (pfn < zone.endPfn) return zone;
    assert(false, 'the frame is in RAM');
  }

  /** Every frame has one owner, counts equal list walks, blocks are merged. Empty: all is well. */
  audit(): string[] {
    return auditPages(this);
  }

  #setUpWatermarks(): void {
    setUpWatermarks(this.zones, this.#minFreeKbytes ?? defaultMinFreeKbytes(this.zones));
    this.pcp.setUp();
  }

  #adoptRun(zone: Zone, start: Pfn, end: Pfn): void {
    let at = start;
    while (at < end) {
      // Larger blocks form by merging, which knows the types of both pageblocks.
      let order = Math.min(PAGEBLOCK_ORDER, 31 - Math.clz32(end - at));
      if (at !== 0) order = Math.min(order, 31 - Math.clz32(at & -at));
      this.pages.disown(at, order);
      this.pages.setFree(at, order, true);
      this.buddy.free(zone, at, order, this.pageblocks.typeOf(at), true);
      at += 1 << order;
    }
  }

  /** get_page_from_freelist: the first zone with enough memory, from the highest down. */
  #fromFreelists(
    order: number,
    migratetype: MigrateType,
    highest: ZoneType,
    flags: number,
    cpu: number,
  ): Pfn {
    for (let index: number = highest; index >= 0; index--) {
      const zone = this.zones[index]!;
      if (!zone.isPopulated) continue;
      if ((flags & AllocFlag.NO_WATERMARKS) === 0) {
        const mark = zone.watermarkPages[flags & ALLOC_WMARK_MASK]!;
        if (!zone.watermarkOk(order, mark, highest, flags)) continue;
      }
      const pfn = this.#rmqueue(zone, order, migratetype, flags, cpu);
      if (pfn < 0) continue;
      this.vmstat[PGALLOC[index]!] += 1 << order;
      return pfn;
    }
    if ((flags & AllocFlag.NOFRAGMENT) === 0) return -1;
    return this.#fromFreelists(order, migratetype, highest, flags & ~AllocFlag.NOFRAGMENT, cpu);
  }

  #rmqueue(zone: Zone, order: number, migratetype: MigrateType, flags: number, cpu: number): Pfn {
    if (order <= PAGE_ALLOC_COSTLY_ORDER) {
      const pfn = this.pcp.alloc(zone, cpu, order, migratetype, flags);
      if (pfn >= 0 || (flags & AllocFlag.HARDER) === 0) return pfn;
    }
    const mayUseReserve = order > 0 && (flags & AllocFlag.HARDER) !== 0;
    let pfn = -1;
    if (mayUseReserve) pfn = this.buddy.takeSmallest(zone, order, MigrateType.HIGHATOMIC);
    if (pfn < 0) pfn = this.buddy.take(zone, order, migratetype, flags);
    if (pfn >= 0 && mayUseReserve) reserveHighatomic(this.buddy, zone, pfn);
    return pfn;
  }

  /** __alloc_pages_slowpath: the minimum watermark and the reserves, then direct reclaim once. */
  #allocSlow(
    order: number,
    gfp: GfpMask,
    migratetype: MigrateType,
    highest: ZoneType,
    cpu: number,
  ): Pfn {
    if ((gfp & Gfp.__GFP_KSWAPD_RECLAIM) !== 0) {
      this.vmstat.kswapd_wakeups++;
      this.#hooks.wakeKswapd?.(order, highest);
    }
    let flags: number = AllocFlag.WMARK_MIN;
    if (migratetype === MigrateType.MOVABLE) flags |= AllocFlag.CMA;
    if ((gfp & Gfp.__GFP_HIGH) !== 0) flags |= AllocFlag.HIGH;
    const mayUseReserves = (gfp & Gfp.__GFP_NOMEMALLOC) === 0;
    if ((gfp & Gfp.__GFP_ATOMIC) !== 0 && mayUseReserves) flags |= AllocFlag.HARDER;
    let pfn = this.#fromFreelists(order, migratetype, highest, flags, cpu);
    if (pfn >= 0) return pfn;
    if ((gfp & Gfp.__GFP_MEMALLOC) !== 0 && mayUseReserves) {
      flags |= AllocFlag.NO_WATERMARKS;
      pfn = this.#fromFreelists(order, migratetype, highest, flags, cpu);
    }
    if (pfn >= 0 || (gfp & Gfp.__GFP_DIRECT_RECLAIM) === 0) return pfn;
    this.vmstat.allocstall++;
    this.#hooks.reclaim?.(order, gfp);
    this.drainForReclaim(migratetype);
    return this.#fromFreelists(order, migratetype, highest, flags, cpu);
  }

  /** post_alloc_hook: the block becomes the caller's. */
  #prepare(pfn: Pfn, order: number, gfp: GfpMask, migratetype: MigrateType): void {
    const { pages } = this;
    pages.flags[pfn] = PageFlag.ALLOCATED;
    pages.order[pfn] = order;
    pages.migratetype[pfn] = migratetype;
    pages.owner[pfn] = migratetype === MigrateType.MOVABLE ? PageOwner.USER : PageOwner.KERNEL;
    pages.refcount[pfn] = 1;
    const { freedContent } = this;
    if (freedContent !== null) this.#hooks.trustPages?.(pfn, 1 << order, freedContent);
    // With init_on_free it is zero already.
    const zeroes = !this.#mm.initOnFree && (this.#mm.initOnAlloc || (gfp & Gfp.__GFP_ZERO) !== 0);
    if (zeroes) this.#hooks.clearPages(pfn, 1 << order, 'zero');
    else if (freedContent === null) this.#hooks.leavePages?.(pfn, 1 << order);
  }

  #isBlock(pfn: Pfn, order: number): boolean {
    return (
      order >= 0 &&
      order <= MAX_PAGE_ORDER &&
      pfn >= 0 &&
      pfn + (1 << order) <= this.pages.ramPages &&
      (pfn & ((1 << order) - 1)) === 0
    );
  }

  /** Takes a free block out of the block at `head`, which is on a buddy or a per-CPU list. */
  #takeFree(zone: Zone, head: Pfn, pfn: Pfn, order: number): void {
    this.vmstat[PGALLOC[zone.index]!] += 1 << order;
    const { pages, buddy } = this;
    if ((pages.flags[head]! & PageFlag.BUDDY) !== 0) {
      buddy.takeExact(zone, head, pfn, order);
      return;
    }
    const type = pages.migratetype[head]!;
    let high = pages.order[head]!;
    this.pcp.remove(zone, head);
    // The other parts of a per-CPU block cannot stay there in pieces.
    let start = head;
    while (high > order) {
      high--;
      const upper = start + (1 << high);
      buddy.free(zone, pfn < upper ? upper : start, high, type);
      if (pfn >= upper) start = upper;
    }
  }

  /** A free block of order 10 over two pageblocks is halved, when one half changes its kind. */
  #splitAcross(zone: Zone, pfn: Pfn): void {
    const head = pfn & -(2 * PAGEBLOCK_NR_PAGES);
    const isLarge = (this.pages.flags[head]! & PageFlag.BUDDY) !== 0;
    if (!isLarge || this.pages.order[head]! <= PAGEBLOCK_ORDER) return;
    const pending = this.freeLists.isPending(head);
    const type = this.pages.migratetype[head]!;
    this.buddy.takeExact(zone, head, pfn, PAGEBLOCK_ORDER);
    this.freeLists.add(zone, pfn, PAGEBLOCK_ORDER, type, true, pending);
  }
}
