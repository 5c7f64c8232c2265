/**
 * Memory compaction of the node: its entry points (linux mm/compaction.c). Direct compaction of an
 * allocation that waits, kcompactd when it is woken or on its own, and by hand.
 */
import { Errno, type Nanoseconds } from '../../shared/index.ts';
import type { Folios } from '../folio/index.ts';
import type { Kernel } from '../kernel/kernel.ts';
import {
  AllocFlag,
  Gfp,
  type GfpMask,
  highestZoneOf,
  MigrateType,
  migratetypeOf,
  type Zone,
  type ZoneType,
} from '../mm/index.ts';
import { MigrateMode, type PageMigration } from '../page-migration/index.ts';
import type { Kthread } from '../sched/kthread.ts';
import { CompactContext, type CompactionOptions } from './compact-context.ts';
import { type CompactControl, type CompactRequest, NO_ORDER } from './compact-control.ts';
import { ZoneCompactor } from './compact-zone.ts';
import { ContigRanges } from './contig-range.ts';
import { CompactPriority, CompactResult } from './result.ts';
import { nodeScore, suitOrder } from './suitability.ts';

/** From the gentlest to the hardest, as an allocation that keeps failing tries them. */
const PRIORITIES = [CompactPriority.ASYNC, CompactPriority.SYNC_LIGHT, CompactPriority.SYNC_FULL];

export class Compaction {
  readonly counters = {
    /** CPU time of all compaction, page migration for it included. */
    compaction_cpu_ns: 0,
    kcompactd_cpu_ns: 0,
  };
  readonly contig: ContigRanges;
  readonly #kernel: Kernel;
  readonly #context: CompactContext;
  readonly #compactor: ZoneCompactor;

  constructor(
    kernel: Kernel,
    folios: Folios,
    migration: PageMigration,
    options: CompactionOptions,
  ) {
    this.#kernel = kernel;
    this.#context = new CompactContext(kernel, folios, migration, options);
    this.#compactor = new ZoneCompactor(this.#context);
    this.contig = new ContigRanges(this.#context, this.#compactor.scanner);
  }

  /** Above this node score kcompactd works unasked. */
  get proactiveScore(): number {
    return this.#context.marks.high;
  }

  /** Proactive compaction gives way while this says true. */
  set isKswapdRunning(isRunning: () => boolean) {
    this.#compactor.isKswapdRunning = isRunning;
  }

  /**
   * Direct compaction: tries harder and harder until a block of that order can be had. True: it can.
   * With __GFP_NORETRY the asynchronous attempt is the only one.
   */
  *directCompact(order: number, gfp: GfpMask, cpu = 0): Kthread<boolean> {
    if (order === 0 || (gfp & Gfp.__GFP_IO) === 0) return false;
    for (const priority of PRIORITIES) {
      if (yield* this.tryToCompact(order, gfp, priority, cpu)) return true;
      if ((gfp & Gfp.__GFP_NORETRY) !== 0) break;
    }
    return false;
  }

  /** __alloc_pages_direct_compact with one priority, as far as the allocation itself. */
  *tryToCompact(order: number, gfp: GfpMask, priority: CompactPriority, cpu = 0): Kthread<boolean> {
    const { vmstat } = this.#kernel.mm;
    const result = yield* this.#metered(this.#compactZones(order, gfp, priority, cpu), false);
    if (result <= CompactResult.DEFERRED) return false;
    vmstat.compact_stall++;
    const zone = this.#zoneWithBlock(order, gfp);
    if (!zone) {
      vmstat.compact_fail++;
      return false;
    }
    this.#context.stateOf(zone).resetDefer(order, true);
    vmstat.compact_success++;
    return true;
  }

  /** /proc/sys/vm/compact_memory: EINVAL unless 1 is written. */
  *compactMemory(value: number): Kthread<Errno> {
    if (value !== 1) return Errno.EINVAL;
    yield* this.#metered(this.#compactNode(false), false);
    return Errno.OK;
  }

  /** proactive_compact_node, for kcompactd. */
  *compactProactively(): Kthread {
    yield* this.#metered(this.#compactNode(true), true);
  }

  /** kcompactd_do_work: compacts for a request that somebody else could not wait for. */
  *compactFor(order: number, highestZone: ZoneType): Kthread {
    yield* this.#metered(this.#compactInBackground(order, highestZone), true);
  }

  /** kcompactd_node_suitable: whether waking kcompactd for it makes sense. */
  isSuitable(order: number, highestZone: ZoneType): boolean {
    return this.#populated(highestZone).some(
      (zone) => suitOrder(zone, order, highestZone, 0) === CompactResult.CONTINUE,
    );
  }

  /** fragmentation_score_node, 0 to 100. */
  get nodeScore(): number {
    return nodeScore(this.#kernel.mm.zones);
  }

  /** reset_isolation_suitable: kswapd goes to sleep, so that the next run may look again. */
  onKswapdSleep(): void {
    for (const zone of this.#populated()) {
      const state = this.#context.stateOf(zone);
      if (state.blockskipFlush) this.#context.skip.reset(state);
    }
  }

  /** try_to_compact_pages */
  *#compactZones(
    order: number,
    gfp: GfpMask,
    priority: CompactPriority,
    cpu: number,
  ): Kthread<CompactResult> {
    const isFull = priority === CompactPriority.SYNC_FULL;
    const isAsync = priority === CompactPriority.ASYNC;
    let result: CompactResult = CompactResult.SKIPPED;
    for (const zone of this.#populated(highestZoneOf(gfp))) {
      const state = this.#context.stateOf(zone);
      if (!isFull && state.isDeferred(order)) {
        result = greater(CompactResult.DEFERRED, result);
        continue;
      }
      const status = yield* this.#run({
        zone,
        order,
        gfp,
        cpu,
        mode: isAsync ? MigrateMode.ASYNC : MigrateMode.SYNC_LIGHT,
        direct: true,
        wholeZone: isFull,
        ignoreSkipHint: isFull,
        ignoreBlockSuitable: isFull,
      });
      result = greater(status, result);
      if (status === CompactResult.SUCCESS) {
        state.resetDefer(order, false);
        break;
      }
      if (!isAsync && haveFailed(status)) state.defer(order);
    }
    return result;
  }

  *#compactNode(proactive: boolean): Kthread {
    for (const zone of this.#populated()) {
      yield* this.#run({
        zone,
        order: NO_ORDER,
        mode: proactive ? MigrateMode.SYNC_LIGHT : MigrateMode.SYNC,
        proactive,
        wholeZone: true,
        ignoreSkipHint: true,
      });
    }
  }

  *#compactInBackground(order: number, highestZone: ZoneType): Kthread {
    const { mm } = this.#kernel;
    mm.vmstat.compact_daemon_wake++;
    for (const zone of this.#populated(highestZone)) {
      const state = this.#context.stateOf(zone);
      if (state.isDeferred(order)) continue;
      if (suitOrder(zone, order, highestZone, 0) !== CompactResult.CONTINUE) continue;
      const cc = this.#context.begin({ zone, order, mode: MigrateMode.SYNC_LIGHT });
      const status = yield* this.#compactor.compact(cc, 0);
      this.#endDaemon(cc);
      if (status === CompactResult.SUCCESS) state.resetDefer(order, false);
      else if (haveFailed(status)) {
        mm.drainAllPcp();
        state.defer(order);
      }
    }
  }

  *#run(request: CompactRequest): Kthread<CompactResult> {
    const cc = this.#context.begin(request);
    const allocFlags = migratetypeOf(cc.gfp) === MigrateType.MOVABLE ? AllocFlag.CMA : 0;
    const result = yield* this.#compactor.compact(cc, allocFlags);
    if (cc.proactive) this.#endDaemon(cc);
    else this.#context.end(cc);
    return result;
  }

  #endDaemon(cc: CompactControl): void {
    const { vmstat } = this.#kernel.mm;
    vmstat.compact_daemon_migrate_scanned += cc.totalMigrateScanned;
    vmstat.compact_daemon_free_scanned += cc.totalFreeScanned;
    this.#context.end(cc);
  }

  /** Passes on what the body asks for, and books its CPU time. */
  *#metered<T>(body: Kthread<T>, byDaemon: boolean): Kthread<T> {
    let { value, done } = body.next();
    while (!done) {
      const request = value as Exclude<typeof value, T>;
      if (request.kind === 'cpu') this.#book(request.ns, byDaemon);
      ({ value, done } = body.next(yield request));
    }
    return value as T;
  }

  #book(ns: Nanoseconds, byDaemon: boolean): void {
    this.counters.compaction_cpu_ns += ns;
    if (byDaemon) this.counters.kcompactd_cpu_ns += ns;
  }

  /** From the highest zone down, as zonelists go. */
  #populated(highestZone?: ZoneType): Zone[] {
    const { zones } = this.#kernel.mm;
    return zones
      .slice(0, highestZone === undefined ? zones.length : highestZone + 1)
      .filter((zone) => zone.isPopulated)
      .reverse();
  }

  /** The zone that would serve the allocation now. */
  #zoneWithBlock(order: number, gfp: GfpMask): Zone | undefined {
    const highest = highestZoneOf(gfp);
    const flags = migratetypeOf(gfp) === MigrateType.MOVABLE ? AllocFlag.CMA : 0;
    return this.#populated(highest).find((zone) =>
      zone.watermarkOk(order, zone.watermarkPages[AllocFlag.WMARK_MIN]!, highest, flags),
    );
  }
}

/** The scanners have met, and what was wanted is not there. */
function haveFailed(status: CompactResult): boolean {
  return status === CompactResult.COMPLETE || status === CompactResult.PARTIAL_SKIPPED;
}

function greater(a: CompactResult, b: CompactResult): CompactResult {
  return a > b ? a : b;
}
