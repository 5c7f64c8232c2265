/**
 * Precopy live migration by QEMU's algorithm (migration/migration.c, migration/ram.c): dirty syncs,
 * a linear scan in ascending order, zero page detection, the bandwidth limit in windows of 100 ms,
 * and switchover when what is left fits into the downtime limit. Hints take pages out of the bitmap
 * whenever the device takes them, so also between two requests of the thread.
 */
import type { MigrateParams } from '../../protocol/index.ts';
import {
  type Nanoseconds,
  NS_PER_MS,
  PAGE_SIZE_BYTES,
  type Pfn,
  type Plants,
} from '../../shared/index.ts';
import type { HintOrigin } from '../balloon/hinting.ts';
import { BandwidthWindow } from './bandwidth-window.ts';
import { Convergence, giveUpAfterNs } from './convergence.ts';
import { createMigrationLog } from './create-migration-log.ts';
import { DirtyBitmap } from './dirty-bitmap.ts';
import { HintLedger } from './hint-ledger.ts';
import {
  MigrationCounters,
  type MigrationTimes,
  type PrecopyFigures,
} from './migration-counters.ts';
import type { MigrationLog } from './migration-log.ts';
import type { MigrationStream } from './stream.ts';
import {
  advanceFor,
  type EnterState,
  type MigrationMachine,
  type MigrationThread,
  type MigrationWatcher,
  preempt,
  readRecords,
} from './thread.ts';
import {
  EOS_BYTES,
  FIRMWARE_BYTES,
  FIRMWARE_DATA_PAGES,
  FIRMWARE_PAGES,
  PAGE_HEADER_BYTES,
  ZERO_PAGE_BYTES,
} from './wire-sizes.ts';

/** MAX_WAIT: one ram_save_iterate leaves after so long. */
const MAX_WAIT_NS = 50 * NS_PER_MS;
/** A stalled thread looks so often whether it was cancelled. */
const STALL_STEP_NS = 10 * NS_PER_MS;
/** A slice ends after so much time or so many pages, so that hints and the guest get their turn. */
const SLICE_NS = NS_PER_MS;
const SLICE_PAGES_MAX = 4096;
/** What the plant makes of every log. */
const UNSAFE_LOG = { dirtyLog: 'kvm-bitmap', hintRemedy: 'none' } as const;

export interface PrecopyOptions {
  /** `dirtyLogClearedAtHint`: the log of kvm-bitmap without a remedy, whatever the parameters say. */
  readonly plants?: Pick<Plants, 'dirtyLogClearedAtHint'>;
  /** Planted: a page that a hint once kept out of the stream is never sent, though it was written. */
  readonly neverResendHinted?: boolean;
  /** Pages whose records are read at once; default 4096. */
  readonly slicePagesMax?: number;
}

export class Precopy {
  readonly ledger: HintLedger;
  readonly bitmap: DirtyBitmap;
  readonly convergence: Convergence;
  readonly #machine: MigrationMachine;
  #params: MigrateParams;
  readonly #log: MigrationLog;
  readonly #stream: MigrationStream;
  readonly #watcher: MigrationWatcher;
  readonly #options: PrecopyOptions;
  readonly #counters = new MigrationCounters();
  readonly #window = new BandwidthWindow();
  /** The firmware's blocks are still to be sent. */
  #firmwareDirty = true;
  /** The vCPUs ran when the switchover stopped them; a paused guest stays paused (qemu vm_old_state). */
  stoppedRunning = false;
  /** The vCPUs were stopped for the switchover. */
  hasStopped = false;
  #stalledUntilNs: Nanoseconds = 0;
  /** Passes that have begun: syncs whose log was read. */
  passes = 0;
  /** How it ends before it has converged; null: it goes on. */
  #ended: 'cancelled' | 'failed' | null = null;
  /** last_seen_block/page: where the scan goes on. */
  #scanPfn: Pfn = 0;

  constructor(
    machine: MigrationMachine,
    params: MigrateParams,
    stream: MigrationStream,
    watcher: MigrationWatcher,
    options: PrecopyOptions = {},
  ) {
    const { ram, ramPages } = machine.options;
    this.#machine = machine;
    this.#params = params;
    const planted = options.plants?.dirtyLogClearedAtHint ? UNSAFE_LOG : {};
    this.#log = createMigrationLog({ ...params, ...planted }, machine, ram);
    this.#stream = stream;
    this.#watcher = watcher;
    this.#options = options;
    this.convergence = new Convergence(params, machine, (downtimeLimitMs) =>
      this.setLimits({ downtimeLimitMs }),
    );
    this.bitmap = new DirtyBitmap(ram);
    this.ledger = new HintLedger(ramPages);
  }

  /** migrate-set-parameters: from the next window on. */
  setLimits(limits: Partial<MigrateParams>): void {
    this.#params = { ...this.#params, ...limits };
  }

  /** The link carries nothing for so long. */
  stallLink(ns: Nanoseconds): void {
    this.#stalledUntilNs = Math.max(this.#stalledUntilNs, this.#machine.now + ns);
  }

  /** migrate_cancel, or a broken stream: the thread ends before its next iteration; the vCPUs go on. */
  end(how: 'cancelled' | 'failed'): void {
    this.#ended ??= how;
  }

  get hasEnded(): boolean {
    return this.#ended !== null;
  }

  /** As query-migrate counts, at any moment. */
  get counters(): Readonly<MigrationCounters> {
    return this.#counters;
  }

  /**
   * The migration thread, for one run; the vCPUs are stopped when it returns status completed.
   */
  *run(enter: EnterState = () => {}): MigrationThread<PrecopyFigures> {
    this.#log.start();
    try {
      return yield* this.#migrate(enter);
    } finally {
      this.#log.stop();
      this.convergence.stop();
    }
  }

  *#migrate(enter: EnterState): MigrationThread<PrecopyFigures> {
    const machine = this.#machine;
    const startNs = machine.now;
    machine.log.add(startNs, 'migrate', { bandwidth: this.#params.bandwidthBytesPerS });
    yield* this.#sync();
    const setupNs = machine.now - startNs;
    enter('active');
    this.#window.begin(machine.now);
    const giveUpNs = giveUpAfterNs(this.remainingBytes, this.#params);
    while (!(yield* this.#converged())) {
      if (machine.now - startNs > giveUpNs) this.end('cancelled');
      if (this.#ended) {
        machine.device.hintDone();
        return this.#report(this.#ended, { startNs, setupNs, downtimeNs: 0 });
      }
      yield* this.#iterate();
      yield* this.#limitRate();
    }
    const stoppedNs = machine.now;
    const isComplete = yield* this.#complete(enter);
    if (!isComplete) {
      machine.device.hintDone();
      machine.running = this.stoppedRunning;
    }
    const status = isComplete ? 'completed' : this.#ended!;
    return this.#report(status, { startNs, setupNs, downtimeNs: machine.now - stoppedNs });
  }

  #report(status: PrecopyFigures['status'], times: Omit<MigrationTimes, 'endNs'>): PrecopyFigures {
    const { now, log } = this.#machine;
    const { normal, duplicate, dirtySyncs } = this.#counters;
    log.add(now, 'migrated', { status, normal, duplicate, dirtySyncs });
    const { throttlePercentage } = this.convergence;
    const figures = this.#counters.figures(status, { ...times, endNs: now }, this.ledger);
    return { ...figures, throttle_percentage: throttlePercentage };
  }

  /** migration_bitmap_sync_precopy: no hint is applied between its beginning and its end. */
  *#sync(): MigrationThread {
    const machine = this.#machine;
    machine.device.hintStop();
    yield preempt('hints stopped');
    this.#counters.dirtySyncs++;
    const log = yield* this.#log.sync();
    yield preempt('log read');
    const added = this.bitmap.sync(log);
    this.convergence.synced(machine.now, added, this.#counters.transferredBytes);
    if (this.#options.neverResendHinted) this.bitmap.clearAll(this.ledger.everSkipped);
    this.#stream.mark(this.#counters.dirtySyncs);
    this.passes = this.#counters.dirtySyncs;
    machine.emit('MIGRATION_PASS', { pass: this.passes });
    machine.log.add(machine.now, 'dirty_sync', { added, dirty: this.bitmap.dirtyPages });
    const { costs, ramPages } = machine.options;
    yield* advanceFor(machine, costs.dirtySyncPageNs * ramPages);
    if (!machine.running) machine.device.hintDone();
    const cmdId = machine.running ? yield* this.#startRound() : null;
    yield { kind: 'passStarted', cmdId };
  }

  /** Returns the id of the round, or null: hinting was not negotiated. */
  *#startRound(): MigrationThread<number | null> {
    const { device } = this.#machine;
    if (!device.canHint) return null;
    yield* this.#log.beforeRound();
    device.hintStart();
    return device.hintCmdId;
  }

  /** The top of QEMU's loop: a sync when the estimate fits, and the decision on the exact figure. */
  *#converged(): MigrationThread<boolean> {
    if (this.#ended) return false;
    if (this.remainingBytes < this.#window.thresholdBytes) yield* this.#sync();
    return this.remainingBytes === 0 || this.remainingBytes < this.#window.thresholdBytes;
  }

  /** Still to be sent. */
  get remainingBytes(): number {
    const firmware = this.#firmwareDirty ? FIRMWARE_PAGES : 0;
    return (this.bitmap.dirtyPages + firmware) * PAGE_SIZE_BYTES;
  }

  /** ram_save_iterate: send until the window is full, 50 ms are over, or nothing is left. */
  *#iterate(): MigrationThread {
    const startNs = this.#machine.now;
    for (;;) {
      const windowLeft = this.#window.leftBytes(this.#params);
      if (windowLeft < 0 || this.#ended) break;
      if (this.bitmap.dirtyPages === 0) {
        // The pass is over, and what is left of it is the firmware's.
        this.#sendFirmware();
        break;
      }
      if (this.#machine.now - startNs > MAX_WAIT_NS) break;
      yield* this.#sendSlice(windowLeft);
    }
    this.#count(EOS_BYTES);
  }

  #count(bytes: number): void {
    this.#counters.transferredBytes += bytes;
    this.#window.count(bytes);
  }

  /** migration_rate_limit and migration_update_counters. */
  *#limitRate(): MigrationThread {
    const machine = this.#machine;
    const { endNs } = this.#window;
    if (this.#window.leftBytes(this.#params) < 0 && machine.now < endNs) {
      yield { kind: 'advanceTo', atNs: endNs };
    }
    if (machine.now < endNs) return;
    this.#window.end(machine.now, this.#params);
    this.#watcher.progress(this.#counters.normal, this.bitmap.dirtyPages);
  }

  /**
   * Sends the next dirty pages, ascending. Their records are read at the start of the slice, at
   * most a slice early; that is safe because their log was cleared before, so a later write is seen.
   */
  *#sendSlice(leftBytes: number): MigrationThread {
    yield* this.#waitForLink();
    if (this.#ended) return;
    const { costs } = this.#machine.options;
    const pagesMax = this.#options.slicePagesMax ?? SLICE_PAGES_MAX;
    const ranges = this.#nextDirty(Math.min(pagesMax, SLICE_NS / costs.sendZeroPageNs));
    for (let i = 0; i < ranges.length; i += 2) this.#log.beforeSend(ranges[i]!, ranges[i + 1]!);
    yield preempt('log cleared');
    const records = yield* readRecords(ranges);
    yield preempt('records read');
    let costNs = 0;
    let bytes = 0;
    let index = 0;
    for (let i = 0; i < ranges.length; i += 2) {
      for (let pfn = ranges[i]!; pfn < ranges[i]! + ranges[i + 1]!; pfn++) {
        if (bytes > leftBytes || costNs > SLICE_NS) break;
        const tag = records[index++]!;
        // A hint has taken it since the slice was chosen.
        if (!this.bitmap.bits.get(pfn)) continue;
        const zero = tag === 0;
        bytes += zero ? ZERO_PAGE_BYTES : PAGE_HEADER_BYTES + PAGE_SIZE_BYTES;
        costNs += zero ? costs.sendZeroPageNs : costs.sendPageNs;
        this.#send(pfn, tag);
      }
    }
    this.#count(bytes);
    yield* advanceFor(this.#machine, costNs);
  }

  /** What is sent waits for as long as the link is stalled; there is no time-out, as in QEMU. */
  *#waitForLink(): MigrationThread {
    const machine = this.#machine;
    while (machine.now < this.#stalledUntilNs && !this.#ended) {
      const leftNs = this.#stalledUntilNs - machine.now;
      yield* advanceFor(machine, Math.min(leftNs, STALL_STEP_NS));
    }
  }

  #send(pfn: Pfn, tag: number): void {
    this.bitmap.clear(pfn);
    this.ledger.sent(pfn);
    this.#stream.page(pfn, tag);
    this.#watcher.sent?.(pfn, tag);
    if (tag === 0) this.#counters.duplicate++;
    else this.#counters.normal++;
    this.#scanPfn = pfn + 1;
  }

  /** At the end of the first pass over guest memory; nobody writes it, so once is enough. */
  #sendFirmware(): void {
    if (!this.#firmwareDirty) return;
    this.#firmwareDirty = false;
    const zeroPages = FIRMWARE_PAGES - FIRMWARE_DATA_PAGES;
    this.#counters.normal += FIRMWARE_DATA_PAGES;
    this.#counters.duplicate += zeroPages;
    this.#count(FIRMWARE_BYTES);
  }

  /** The next dirty pages from the scan position on, wrapping once, as pairs (first, count). */
  #nextDirty(pagesMax: number): Uint32Array {
    const { bits } = this.bitmap;
    const ranges: number[] = [];
    let left = Math.min(Math.floor(pagesMax), this.bitmap.dirtyPages);
    let pfn = bits.nextSet(this.#scanPfn);
    if (pfn < 0) {
      this.#sendFirmware();
      pfn = bits.nextSet(0);
    }
    while (left > 0 && pfn >= 0) {
      const count = Math.min(left, bits.nextClear(pfn) - pfn);
      ranges.push(pfn, count);
      left -= count;
      // The scan wraps between slices, not inside one: ranges stay ascending.
      pfn = bits.nextSet(pfn + count);
    }
    return Uint32Array.from(ranges);
  }

  /**
   * migration_completion: the vCPUs stop, a last sync, and everything left without a limit. False: it
   * was ended in a pause before the last sync.
   */
  *#complete(enter: EnterState): MigrationThread<boolean> {
    const machine = this.#machine;
    this.stoppedRunning = machine.running;
    this.hasStopped = true;
    machine.running = false;
    yield* advanceFor(machine, machine.options.costs.vmStopNs);
    if (this.#params.pauseBeforeSwitchover) {
      enter('pre-switchover');
      yield { kind: 'paused' };
      if (this.#ended) return false;
    }
    enter('device');
    yield* this.#sync();
    this.#sendFirmware();
    while (this.bitmap.dirtyPages > 0 && !this.#ended) {
      yield* this.#sendSlice(Number.POSITIVE_INFINITY);
    }
    this.#count(EOS_BYTES);
    return true;
  }

  /**
   * qemu_guest_free_page_hint: the pages need not be sent unless they are written again. For the
   * device, at any time while `run` runs.
   */
  applyHint(first: Pfn, pageCount: number, origin: HintOrigin): void {
    const { bits } = this.bitmap;
    // QEMU's order since 6.1: docs/decisions/005 says what it can lose.
    this.#log.beforeHint(first, pageCount);
    let skippedPages = 0;
    const end = Math.min(first + pageCount, bits.bitCount);
    const alreadySentPages =
      end - first - bits.countRange(first, end - first) - this.ledger.countSkipped(first, end);
    for (let pfn = bits.nextSet(first, end); pfn >= 0; pfn = bits.nextSet(pfn + 1, end)) {
      if (!this.#log.mayTakeHint(pfn)) continue;
      this.bitmap.clear(pfn);
      this.ledger.skip(pfn);
      skippedPages++;
    }
    this.ledger.add(first, pageCount, origin, this.#machine.now, {
      skippedPages,
      alreadySentPages,
    });
    this.#watcher.hinted(first, pageCount);
  }
}
