/**
 * Memory that the kernel itself keeps writing, whatever the workload does, and that a trace of the
 * page allocator does not show: its struct pages and the working set of an idle system.
 */
import { Bitmap, type Nanoseconds, NS_PER_MS, type Pfn } from '../../shared/index.ts';
import type { Recording } from '../../shared/recording/index.ts';
import type { Ram } from '../machine/ram.ts';
import type { Workload } from '../sched/scheduler.ts';

/** sizeof(struct page) is 64 bytes: one page of memmap describes 64 pages. */
const PAGES_PER_MEMMAP_PAGE = 64;

/**
 * Where the memmap lies: the highest run of reserved frames that is long enough, because memblock
 * hands out memory from the top. −1: there is none.
 */
export function findMemmap(recording: Recording): Pfn {
  const { reserved, noPage } = recording.start;
  const { frameCount } = recording.header;
  const needed = Math.ceil(frameCount / PAGES_PER_MEMMAP_PAGE);
  let run = 0;
  for (let pfn = frameCount - 1; pfn >= 0; pfn--) {
    run = reserved.get(pfn) && !noPage.get(pfn) ? run + 1 : 0;
    if (run === needed) return pfn;
  }
  return -1;
}

export function memmapPageOf(memmap: Pfn, pfn: Pfn): Pfn {
  return memmap + Math.floor(pfn / PAGES_PER_MEMMAP_PAGE);
}

/** CONFIG_HZ=250, Debian's. */
const TICK_NS = 4 * NS_PER_MS;
/** Written at each tick: run queue, timers, clock, statistics, the running task. */
const HOT_PAGES = 16;
/** Written now and then: one more of these at each tick. */
const WARM_PAGES = 64;

/** The timer tick and what an idle system does between two of them. */
export class KernelTicks implements Workload {
  readonly #ram: Ram;
  readonly #pages: readonly Pfn[];
  #nextNs: Nanoseconds;
  #tick = 0;

  constructor(ram: Ram, pages: readonly Pfn[], startNs: Nanoseconds) {
    this.#ram = ram;
    this.#pages = pages;
    this.#nextNs = startNs;
  }

  /** Interrupts come when they come: a busy vCPU does not hold them up. */
  nextAt(): Nanoseconds {
    return this.#pages.length > 0 ? this.#nextNs : Number.POSITIVE_INFINITY;
  }

  advance(_freeAt: Nanoseconds, until: Nanoseconds): Nanoseconds {
    let at = this.#nextNs;
    for (; this.#nextNs <= until; this.#nextNs += TICK_NS) {
      at = this.#nextNs;
      for (let i = 0; i < Math.min(HOT_PAGES, this.#pages.length); i++) this.#write(i);
      this.#write(HOT_PAGES + (this.#tick++ % WARM_PAGES));
    }
    return at;
  }

  #write(index: number): void {
    const pfn = this.#pages[index];
    if (pfn !== undefined) this.#ram.write(pfn);
  }
}

/** Frames for the working set: the kernel's for the whole recording, with content, evenly spread. */
export function workingSetOf(recording: Recording): Pfn[] {
  const { start, events } = recording;
  const taken = new Bitmap(recording.header.frameCount);
  taken.or(start.free);
  taken.or(start.onPcp);
  taken.or(start.reserved);
  taken.or(start.zero);
  for (let i = 0; i < events.count; i++) taken.setRange(events.pfn[i]!, 1 << events.order[i]!);
  const candidates: Pfn[] = [];
  for (let pfn = taken.nextClear(0); pfn < taken.bitCount; pfn = taken.nextClear(pfn + 1)) {
    candidates.push(pfn);
  }
  const wanted = Math.min(HOT_PAGES + WARM_PAGES, candidates.length);
  const step = Math.floor(candidates.length / Math.max(1, wanted));
  return Array.from({ length: wanted }, (_, i) => candidates[i * step]!);
}
