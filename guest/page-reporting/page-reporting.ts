/**
 * Free page reporting (linux mm/page_reporting.c): large free blocks are taken off the free lists,
 * told to the host, and put back marked as reported. Freeing a block of at least a pageblock asks
 * for a pass two seconds later; a pass works through the lists of every zone with a budget for each.
 */
import { assert, type Bitmap, Errno, NS_PER_S, type Pfn } from '../../shared/index.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { WorkItem } from '../kernel/work-item.ts';
import {
  AllocFlag,
  isolateFreePage,
  MAX_PAGE_ORDER,
  MIGRATE_TYPES,
  MigrateType,
  PageFlag,
  PageOwner,
  putbackIsolatedPage,
  type Zone,
} from '../mm/index.ts';
import type { Kthread } from '../sched/kthread.ts';

/** PAGE_REPORTING_DELAY */
const DELAY_NS = 2 * NS_PER_S;
/** PAGE_REPORTING_CAPACITY: blocks of one report at most. */
export const PAGE_REPORTING_CAPACITY = 32;
/** A pass reports at most this share of a list, in reports, so that an idle guest needs half a minute. */
const BUDGET_SHARE = PAGE_REPORTING_CAPACITY * 16;

/** PAGE_REPORTING_IDLE, _REQUESTED, _ACTIVE */
const State = { IDLE: 0, REQUESTED: 1, ACTIVE: 2 } as const;
type State = (typeof State)[keyof typeof State];

/** Blocks of one report, in the order in which the host is told. */
export interface ReportedBlocks {
  readonly pfns: Uint32Array;
  readonly orders: Uint8Array;
  /** The first of them, and how many there are. */
  readonly start: number;
  readonly count: number;
}

/** struct page_reporting_dev_info */
export interface PageReportingDevice {
  /** Tells the host and waits for its answer. Anything but OK: the blocks do not count as reported. */
  report(blocks: ReportedBlocks): Kthread<Errno>;
}

export class PageReporting {
  readonly counters = {
    page_reporting_passes: 0,
    /** Calls of the device, each with at most 32 blocks. */
    page_reports: 0,
    reported_blocks: 0,
    reported_pages: 0,
    /** Blocks that the device refused. */
    unreported_blocks: 0,
  };
  readonly #kernel: Kernel;
  readonly #order: number;
  readonly #work: WorkItem;
  #device: PageReportingDevice | null = null;
  #state: State = State.IDLE;
  /** The scatterlist: filled from its end, so `#free` is both the next place and what is left. */
  readonly #pfns = new Uint32Array(PAGE_REPORTING_CAPACITY);
  readonly #orders = new Uint8Array(PAGE_REPORTING_CAPACITY);
  #free = PAGE_REPORTING_CAPACITY;
  /** List nodes that the present pass has looked at since it last paid for it. */
  #owedNodes = 0;

  /** `order`: page_reporting_order, the smallest block that is worth a report. */
  constructor(kernel: Kernel, order: number) {
    assert(order >= 0 && order <= MAX_PAGE_ORDER, 'a reported block is one of the buddy lists');
    this.#kernel = kernel;
    this.#order = order;
    this.#work = new WorkItem(kernel, 'page_reporting', () => this.#process());
  }

  /** page_reporting_register. EBUSY: another device has registered. */
  register(device: PageReportingDevice): Errno {
    if (this.#device) return Errno.EBUSY;
    this.#device = device;
    this.#state = State.IDLE;
    this.#work.start();
    // What is free already has not been reported to this device.
    this.#request();
    this.#kernel.mm.buddy.onFree = (order) => {
      if (order >= this.#order) this.#request();
    };
    return Errno.OK;
  }

  /**
   * page_reporting_unregister: waits for the pass that is under way. Blocks stay reported, since the
   * host has let go of their content whoever told it.
   */
  *unregister(device: PageReportingDevice): Kthread {
    if (this.#device !== device) return;
    this.#kernel.mm.buddy.onFree = null;
    yield* this.#work.cancel();
    this.#device = null;
    this.#state = State.IDLE;
  }

  /** Pages that are isolated while the host is told of them. */
  get isolatedPages(): number {
    let pages = 0;
    for (let i = this.#free; i < PAGE_REPORTING_CAPACITY; i++) pages += 1 << this.#orders[i]!;
    return pages;
  }

  /** Whether this frame is among them. */
  holds(pfn: Pfn): boolean {
    for (let i = this.#free; i < PAGE_REPORTING_CAPACITY; i++) {
      if (pfn >>> this.#orders[i]! === this.#pfns[i]! >>> this.#orders[i]!) return true;
    }
    return false;
  }

  /** Adds the isolated frames to a set. */
  writeHeldSet(into: Bitmap): void {
    for (let i = this.#free; i < PAGE_REPORTING_CAPACITY; i++) {
      into.setRange(this.#pfns[i]!, 1 << this.#orders[i]!);
    }
  }

  /** Empty when exactly the blocks that the host is told of are REPORTING's. */
  audit(): string[] {
    const { pages } = this.#kernel.mm;
    const problems: string[] = [];
    for (let i = this.#free; i < PAGE_REPORTING_CAPACITY; i++) {
      const pfn = this.#pfns[i]!;
      const isHeld = pages.hasFlag(pfn, PageFlag.ALLOCATED) && pages.order[pfn] === this.#orders[i];
      if (!isHeld || pages.owner[pfn] !== PageOwner.REPORTING || pages.refcount[pfn] !== 0) {
        problems.push(`block ${pfn} is being reported and not isolated`);
      }
    }
    let owned = 0;
    for (let pfn = 0; pfn < pages.ramPages; pfn += 1 << pages.order[pfn]!) {
      if (pages.hasFlag(pfn, PageFlag.ALLOCATED) && pages.owner[pfn] === PageOwner.REPORTING) {
        owned += 1 << pages.order[pfn]!;
      }
    }
    if (owned !== this.isolatedPages) {
      problems.push(`${owned} pages are isolated for reporting, listed ${this.isolatedPages}`);
    }
    return problems;
  }

  /** __page_reporting_request */
  #request(): void {
    if (this.#state === State.REQUESTED) return;
    const wasIdle = this.#state === State.IDLE;
    this.#state = State.REQUESTED;
    if (wasIdle) this.#work.queue(this.#kernel.now + DELAY_NS);
  }

  /** page_reporting_process */
  *#process(): Kthread {
    this.counters.page_reporting_passes++;
    this.#state = State.ACTIVE;
    for (const zone of this.#kernel.mm.zones) {
      if ((yield* this.#processZone(zone)) !== Errno.OK) break;
    }
    // Somebody has freed more meanwhile, or a budget was used up.
    if ((this.#state as State) === State.REQUESTED) this.#work.queue(this.#kernel.now + DELAY_NS);
    else this.#state = State.IDLE;
  }

  /** page_reporting_process_zone */
  *#processZone(zone: Zone): Kthread<Errno> {
    // Enough must stay for whoever allocates while a full report is away.
    const mark =
      zone.watermarkPages[AllocFlag.WMARK_LOW]! + (PAGE_REPORTING_CAPACITY << this.#order);
    if (!zone.watermarkOk(0, mark, 0, AllocFlag.CMA)) return Errno.OK;
    for (let order = this.#order; order <= MAX_PAGE_ORDER; order++) {
      for (let type = 0; type < MIGRATE_TYPES; type++) {
        if (type === MigrateType.ISOLATE) continue;
        const result = yield* this.#cycle(zone, order, type as MigrateType);
        if (result !== Errno.OK) return result;
      }
    }
    yield* this.#pay();
    return this.#free < PAGE_REPORTING_CAPACITY ? yield* this.#report(zone) : Errno.OK;
  }

  /** page_reporting_cycle: one free list. The zone lock is dropped only while the host is told. */
  *#cycle(zone: Zone, order: number, type: MigrateType): Kthread<Errno> {
    const { mm } = this.#kernel;
    const { pages, freeLists } = mm;
    let budget = Math.ceil(zone.nrFree[order]! / BUDGET_SHARE);
    let pfn = freeLists.first(zone, order, type);
    while (pfn >= 0) {
      const next = freeLists.after(pfn);
      this.#owedNodes++;
      if (pages.hasFlag(pfn, PageFlag.REPORTED)) {
        pfn = next;
        continue;
      }
      if (budget < 0) {
        this.#state = State.REQUESTED;
        break;
      }
      if (this.#free === 0) {
        // The next pass begins with what this one has not looked at.
        freeLists.rotateToFront(zone, pfn);
        yield* this.#pay();
        const result = yield* this.#report(zone);
        budget--;
        if (result !== Errno.OK) return result;
        pfn = freeLists.first(zone, order, type);
        continue;
      }
      if (isolateFreePage(mm, zone, pfn, PageOwner.REPORTING) === 0) break;
      this.#free--;
      this.#pfns[this.#free] = pfn;
      this.#orders[this.#free] = order;
      pfn = next;
    }
    if (pfn >= 0) freeLists.rotateToFront(zone, pfn);
    return Errno.OK;
  }

  /** Tells the host of what is isolated, and drains it: page_reporting_drain. */
  *#report(zone: Zone): Kthread<Errno> {
    const { mm } = this.#kernel;
    const { pages } = mm;
    const start = this.#free;
    const count = PAGE_REPORTING_CAPACITY - start;
    const blocks = { pfns: this.#pfns, orders: this.#orders, start, count };
    this.counters.page_reports++;
    const result = this.#device ? yield* this.#device.report(blocks) : Errno.EIO;
    this.#free = PAGE_REPORTING_CAPACITY;
    for (let i = start; i < PAGE_REPORTING_CAPACITY; i++) {
      const pfn = this.#pfns[i]!;
      const order = this.#orders[i]!;
      putbackIsolatedPage(mm, zone, pfn, order);
      if (result !== Errno.OK) {
        this.counters.unreported_blocks++;
        continue;
      }
      this.counters.reported_blocks++;
      this.counters.reported_pages += 1 << order;
      // What has merged is another block, which will be reported as a whole.
      const isWhole = pages.hasFlag(pfn, PageFlag.BUDDY) && pages.order[pfn] === order;
      if (isWhole) pages.setFlag(pfn, PageFlag.REPORTED);
    }
    return result;
  }

  /** CPU time of the list nodes that were looked at with the zone lock held. */
  *#pay(): Kthread {
    const { costs } = this.#kernel;
    const ns = costs.zoneLockNs + this.#owedNodes * costs.listNodeNs;
    this.#owedNodes = 0;
    yield { kind: 'cpu', ns };
  }
}
