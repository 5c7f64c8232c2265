/**
 * Replays what a recorded guest's page allocator did. Where the recorded frame is free it is taken;
 * where it is not, because a hinting strategy holds it, the allocator chooses another one and the
 * replay remembers the substitute. An allocated page is written at once by whoever asked for it.
 * Single pages of user data are on the LRU as pages of the replay's own mapping, so that compaction
 * may move them.
 */
import { Bitmap, type Nanoseconds, type Pfn } from '../../shared/index.ts';
import { EventKind, type GfpClass, type Recording } from '../../shared/recording/index.ts';
import type { Folios, Mapping } from '../folio/index.ts';
import { type Ram, ZERO_TAG } from '../machine/ram.ts';
import { gfpFromText, type PageAllocator, PageOwner } from '../mm/index.ts';
import type { Workload } from '../sched/scheduler.ts';
import { findMemmap, memmapPageOf } from './kernel-pages.ts';

/**
 * A longer pause between two events is sleep and not work: a workload that was held up makes it
 * good by sleeping less, but does not work faster than it did.
 */
const LONGEST_WORK_GAP_NS = 100_000;

const DROPPED = -1;

/** Page tables: asked for zeroed by the kernel, for itself, one page each, on the user's account. */
function isPageTable({ zero, movable, reclaimable }: GfpClass): boolean {
  return zero && !movable && !reclaimable;
}

export interface ReplayHooks {
  /** A page of user data came into being or went away. */
  onUserPage?(pfn: Pfn, live: boolean): void;
  /** After so many events, again and again: full audits that a run can switch on. */
  readonly audit?: { readonly everyEvents: number; run(): void };
}

export class Replay implements Workload, Mapping {
  readonly cacheReferences = 1;
  readonly migratesDirty = true;
  readonly counters = {
    replay_events: 0,
    /** Allocations that got another frame than the recorded one. */
    replay_substituted: 0,
    /** Allocations that failed here and had not failed there. */
    replay_failed: 0,
    /** Frees of what was free already: lost with a failed allocation, or the recording's own. */
    replay_stale_frees: 0,
    /** Greatest delay of an event against the recording. */
    replay_lag_ns_max: 0,
  };
  readonly #recording: Recording;
  readonly #mm: PageAllocator;
  readonly #folios: Folios;
  /** Of the replay as a mapping. */
  readonly #number: number;
  readonly #ram: Ram;
  readonly #vcpus: number;
  readonly #hooks: ReplayHooks;
  readonly #startNs: Nanoseconds;
  readonly #gfps: number[];
  readonly #isUserClass: boolean[];
  readonly #isHintClass: boolean[];
  readonly #isTableClass: boolean[];
  /** Pages that are page tables now: their entries are cleared one by one before they are freed. */
  readonly #tables: Bitmap;
  /** Recorded head frame → the frame that stands for it here, or DROPPED. */
  readonly #substitutes = new Map<Pfn, Pfn>();
  readonly #memmap: Pfn;
  /** Frames that hold a page of user data, which compaction may move. */
  readonly #userPages: Bitmap;
  /** The inverse of `#substitutes`. */
  readonly #recordedOf = new Map<Pfn, Pfn>();
  #next = 0;
  #lastNs: Nanoseconds;

  constructor(
    recording: Recording,
    machine: { folios: Folios; ram: Ram; vcpus: number; startNs: Nanoseconds },
    hooks: ReplayHooks = {},
  ) {
    this.#recording = recording;
    this.#folios = machine.folios;
    this.#number = machine.folios.mappings.add(this);
    this.#mm = machine.folios.mm;
    this.#ram = machine.ram;
    this.#vcpus = machine.vcpus;
    this.#hooks = hooks;
    this.#startNs = machine.startNs;
    this.#lastNs = machine.startNs;
    const classes = recording.header.gfpClasses;
    this.#gfps = classes.map(({ text }) => gfpFromText(text));
    this.#isUserClass = classes.map(({ movable }) => movable);
    this.#userPages = new Bitmap(machine.ram.pageCount);
    this.#memmap = findMemmap(recording);
    this.#isTableClass = classes.map(isPageTable);
    this.#tables = new Bitmap(machine.ram.pageCount);
    this.#isHintClass = classes.map(({ hintDriver }) => hintDriver);
  }

  nextAt(freeAt: Nanoseconds): Nanoseconds {
    if (this.#next >= this.#recording.events.count) return Number.POSITIVE_INFINITY;
    return this.#timeOf(this.#next, freeAt);
  }

  advance(freeAt: Nanoseconds, until: Nanoseconds): Nanoseconds {
    const { events } = this.#recording;
    const { kind, pfn, order, gfpClass, cpu, count } = events;
    const auditEvery = this.#hooks.audit?.everyEvents ?? Number.POSITIVE_INFINITY;
    const first = this.#next;
    while (this.#next < count) {
      const i = this.#next;
      const at = this.#timeOf(i, freeAt);
      if (at > until) break;
      this.#lastNs = at;
      this.#next = i + 1;
      if (kind[i] === EventKind.ALLOC) this.#alloc(pfn[i]!, order[i]!, gfpClass[i]!, cpu[i]!);
      else this.#free(pfn[i]!, order[i]!, cpu[i]!);
      if (this.#next % auditEvery === 0) this.#hooks.audit?.run();
    }
    this.counters.replay_events += this.#next - first;
    const lagNs = this.#next > 0 ? this.#lastNs - this.#plannedNs(this.#next - 1) : 0;
    if (lagNs > this.counters.replay_lag_ns_max) this.counters.replay_lag_ns_max = lagNs;
    return this.#lastNs;
  }

  #plannedNs(i: number): Nanoseconds {
    return this.#startNs + this.#recording.events.atNs[i]!;
  }

  /** As recorded, unless the vCPU was taken or the events before it are late. */
  #timeOf(i: number, freeAt: Nanoseconds): Nanoseconds {
    const { atNs } = this.#recording.events;
    const gapNs = i === 0 ? 0 : atNs[i]! - atNs[i - 1]!;
    const inSequence = this.#lastNs + Math.min(gapNs, LONGEST_WORK_GAP_NS);
    return Math.max(this.#plannedNs(i), inSequence, freeAt);
  }

  #alloc(pfn: Pfn, order: number, gfpClass: number, cpu: number): void {
    // The recorded driver's own allocations are what the strategies here stand for.
    if (this.#isHintClass[gfpClass]) {
      this.#substitute(pfn, DROPPED);
      return;
    }
    const gfp = this.#gfps[gfpClass]!;
    let actual = pfn;
    if (!this.#mm.allocExact(pfn, order, gfp)) {
      actual = this.#mm.alloc(order, gfp, cpu % this.#vcpus);
      if (actual < 0) {
        this.counters.replay_failed++;
        for (let i = 0; i < 1 << order; i++) this.#substitute(pfn + i, DROPPED);
        return;
      }
      this.counters.replay_substituted++;
      // Page by page: a block may be freed in parts.
      for (let i = 0; i < 1 << order; i++) this.#substitute(pfn + i, actual + i);
    } else if (this.#substitutes.size > 0) {
      for (let i = 0; i < 1 << order; i++) this.#forget(pfn + i);
    }
    for (let i = 0; i < 1 << order; i++) this.#ram.write(actual + i);
    this.#writeStructPage(actual);
    if (this.#isTableClass[gfpClass] && order === 0) this.#tables.set(actual);
    if (this.#isUserClass[gfpClass] && order === 0) this.#addUserPage(actual);
  }

  #free(pfn: Pfn, order: number, cpu: number): void {
    if (this.#substitutes.size > 0 && this.#freeSubstitute(pfn, order, cpu)) return;
    const pageCount = 1 << order;
    if (pfn % pageCount === 0 && this.#mm.pages.areAll(pfn, order, false)) {
      this.#release(pfn, order, cpu);
      return;
    }
    this.counters.replay_stale_frees++;
    // Where events were lost, a part of a block may be free already.
    if (order === 0) return;
    for (let i = pfn; i < pfn + pageCount; i++) {
      if (!this.#mm.isFree(i)) this.#release(i, 0, cpu);
    }
  }

  /** True: the recorded block is not where it was recorded, and what stands for it was dealt with. */
  #freeSubstitute(pfn: Pfn, order: number, cpu: number): boolean {
    const actual = this.#substitutes.get(pfn);
    if (actual === undefined) {
      // The frame stands for another page: what is freed here had never come to be.
      if (order > 0 || !this.#recordedOf.has(pfn)) return false;
      this.counters.replay_stale_frees++;
      return true;
    }
    let together = true;
    for (let i = 1; i < 1 << order && actual !== DROPPED; i++) {
      together &&= this.#substitutes.get(pfn + i) === actual + i;
    }
    if (!together) {
      for (let i = 0; i < 1 << order; i++) this.#free(pfn + i, 0, cpu);
      return true;
    }
    for (let i = 0; i < 1 << order; i++) this.#forget(pfn + i);
    if (actual !== DROPPED) this.#release(actual, order, cpu);
    return true;
  }

  #release(actual: Pfn, order: number, cpu: number): void {
    const pageCount = 1 << order;
    if (order > 0 && this.#userPages.countRange(actual, pageCount) > 0) {
      for (let i = 0; i < pageCount; i++) this.#release(actual + i, 0, cpu);
      return;
    }
    if (order === 0 && this.#tables.get(actual)) {
      this.#tables.clear(actual);
      this.#ram.fill(actual, 1, ZERO_TAG);
    }
    this.#writeStructPage(actual);
    if (order === 0 && this.#userPages.get(actual)) {
      this.#setUserPage(actual, false);
      // Whoever has isolated the page keeps it until it finds that nobody needs it any more.
      this.#folios.put(actual, cpu % this.#vcpus);
    } else {
      this.#mm.free(actual, order, cpu % this.#vcpus);
    }
  }

  #addUserPage(pfn: Pfn): void {
    const { pages, lruvec } = this.#folios;
    pages.setOwner(pfn, PageOwner.USER);
    pages.setMapping(pfn, this.#number, 0);
    lruvec.add(pfn);
    this.#setUserPage(pfn, true);
  }

  // As a mapping: no page tables are recorded, so that there is nothing to unmap.

  unmapForMigration(): void {}

  removeMigrationPtes(): void {}

  /** What the recorded guest did not reclaim is not reclaimed here. */
  tryToDrop(): boolean {
    return false;
  }

  replace(from: Pfn, to: Pfn): void {
    const recorded = this.#recordedOf.get(from) ?? from;
    this.#recordedOf.delete(from);
    this.#substitute(recorded, to);
    this.#writeStructPage(to);
    this.#setUserPage(from, false);
    this.#setUserPage(to, true);
  }

  #substitute(recorded: Pfn, actual: Pfn): void {
    this.#substitutes.set(recorded, actual);
    if (actual !== DROPPED) this.#recordedOf.set(actual, recorded);
  }

  #forget(recorded: Pfn): void {
    const actual = this.#substitutes.get(recorded);
    if (actual === undefined) return;
    this.#substitutes.delete(recorded);
    this.#recordedOf.delete(actual);
  }

  #setUserPage(pfn: Pfn, live: boolean): void {
    if (live) this.#userPages.set(pfn);
    else this.#userPages.clear(pfn);
    this.#hooks.onUserPage?.(pfn, live);
  }

  #writeStructPage(pfn: Pfn): void {
    if (this.#memmap >= 0) this.#ram.write(memmapPageOf(this.#memmap, pfn));
  }
}
