/**
 * Precopy live migration by QEMU's algorithm (migration/migration.c, migration/ram.c): dirty syncs,
 * a linear scan in ascending order, zero page detection, the bandwidth limit in windows of 100 ms,
 * and switchover when what is left fits into the downtime limit. Hints take pages out of the bitmap.
 */
import type { MigrateParams, MigrationFigures } from '../../protocol/index.ts';
import {
  gpaToPfn,
  type Nanoseconds,
  NS_PER_MS,
  NS_PER_S,
  PAGE_SIZE_BYTES,
  type Pfn,
} from '../../shared/index.ts';
import type { HintEvent, Vmm } from '../vmm.ts';
import { Destination } from './destination.ts';
import { DirtyBitmap } from './dirty-bitmap.ts';
import { HintLedger } from './hint-ledger.ts';

/** BUFFER_DELAY: bandwidth is limited and measured in windows of so long. */
const WINDOW_NS = 100 * NS_PER_MS;
/** MAX_WAIT: one ram_save_iterate leaves after so long. */
const MAX_WAIT_NS = 50 * NS_PER_MS;
/** A slice ends after so much time or so many pages, so that hints and the guest get their turn. */
const SLICE_NS = NS_PER_MS;
const SLICE_PAGES_MAX = 4096;
/** Stream: page header with RAM_SAVE_FLAG_CONTINUE; a zero page adds one byte. */
const PAGE_HEADER_BYTES = 8;
const ZERO_PAGE_BYTES = PAGE_HEADER_BYTES + 1;
/** Stream: RAM_SAVE_FLAG_EOS after each iteration. */
const EOS_BYTES = 8;
/**
 * QEMU's pc machine migrates RAM blocks besides the guest's memory, after it: pc.bios, pc.rom, the
 * ACPI tables and their loader, 532,480 bytes. So many of their pages have content.
 */
const FIRMWARE_PAGES = 130;
const FIRMWARE_DATA_PAGES = 48;
/**
 * A guest that dirties faster than the link carries never converges, and somebody cancels: here after
 * ten minutes, or after so many times what its memory takes on a link of that bandwidth.
 */
const GIVE_UP_NS = 600 * NS_PER_S;
const GIVE_UP_PASSES = 3;

/** Who watches a migration without being part of it: evaluation, progress. */
export interface MigrationObserver {
  /** A round began under this id, right after the sync. */
  roundStarted(cmdId: number): Promise<void>;
  /** The device took a hint. */
  hinted(pfn: Pfn, pageCount: number): void;
  /** All hints of one notification were applied. */
  hintsApplied(): Promise<void>;
  progress(sentPages: number, remainingPages: number): void;
}

export class Precopy {
  readonly destination: Destination;
  readonly ledger: HintLedger;
  readonly #vmm: Vmm;
  readonly #params: MigrateParams;
  readonly #observer: MigrationObserver;
  readonly #bitmap: DirtyBitmap;
  readonly #counters = { normal: 0, duplicate: 0, transferredBytes: 0, dirtySyncs: 0 };
  #windowStartNs: Nanoseconds = 0;
  #windowBytes = 0;
  #thresholdBytes = 0;
  /** The firmware's blocks are still to be sent. */
  #firmwareDirty = true;
  /** last_seen_block/page: where the scan goes on. */
  #scanPfn: Pfn = 0;

  private constructor(vmm: Vmm, params: MigrateParams, observer: MigrationObserver) {
    const { ram, ramPages } = vmm.options;
    this.#vmm = vmm;
    this.#params = params;
    this.#observer = observer;
    this.#bitmap = new DirtyBitmap(ram);
    this.destination = new Destination(ramPages);
    this.ledger = new HintLedger(ramPages);
  }

  /** Runs one migration; the vCPUs are stopped when it resolves with status completed. */
  static async run(
    vmm: Vmm,
    params: MigrateParams,
    observer: MigrationObserver,
  ): Promise<{ precopy: Precopy; figures: MigrationFigures }> {
    const precopy = new Precopy(vmm, params, observer);
    vmm.hintConsumer = {
      onHint: (hint) => precopy.#applyHint(hint),
      afterHints: () => precopy.#observer.hintsApplied(),
    };
    try {
      return { precopy, figures: await precopy.#migrate() };
    } finally {
      vmm.hintConsumer = null;
      vmm.post({ name: 'dirtyLogEnable', enabled: false });
    }
  }

  async #migrate(): Promise<MigrationFigures> {
    const vmm = this.#vmm;
    const startNs = vmm.now;
    vmm.log.add(startNs, 'migrate', { bandwidth: this.#params.bandwidthBytesPerS });
    vmm.emit('MIGRATION', { status: 'setup' });
    vmm.post({ name: 'dirtyLogEnable', enabled: true });
    await this.#sync();
    const setupNs = vmm.now - startNs;
    vmm.emit('MIGRATION', { status: 'active' });
    this.#windowStartNs = vmm.now;
    const passNs = (this.#pendingBytes * NS_PER_S) / this.#params.bandwidthBytesPerS;
    const giveUpNs = Math.max(GIVE_UP_NS, GIVE_UP_PASSES * passNs);
    while (!(await this.#converged())) {
      if (vmm.now - startNs > giveUpNs) {
        vmm.device.hintDone();
        return this.#report('cancelled', startNs, setupNs, 0);
      }
      await this.#iterate();
      await this.#limitRate();
    }
    const stoppedNs = vmm.now;
    await this.#complete();
    return this.#report('completed', startNs, setupNs, vmm.now - stoppedNs);
  }

  #report(
    status: MigrationFigures['status'],
    startNs: Nanoseconds,
    setupNs: Nanoseconds,
    downtimeNs: Nanoseconds,
  ): MigrationFigures {
    const { normal, duplicate, transferredBytes, dirtySyncs } = this.#counters;
    this.#vmm.emit('MIGRATION', { status });
    this.#vmm.log.add(this.#vmm.now, 'migrated', { status, normal, duplicate, dirtySyncs });
    return {
      status,
      total_ms: Math.round((this.#vmm.now - startNs) / NS_PER_MS),
      downtime_ms: Math.round(downtimeNs / NS_PER_MS),
      setup_ms: Math.round(setupNs / NS_PER_MS),
      transferred_bytes: transferredBytes,
      normal_pages: normal,
      duplicate_pages: duplicate,
      skipped_pages: this.ledger.everSkipped.count(),
      resent_pages: this.ledger.resentPages,
      dirty_sync_count: dirtySyncs,
    };
  }

  /** migration_bitmap_sync_precopy: no hint is applied between its beginning and its end. */
  async #sync(): Promise<void> {
    const vmm = this.#vmm;
    const { device } = vmm;
    device.hintStop();
    this.#counters.dirtySyncs++;
    const lazy = this.#params.clearLog === 'lazy';
    const log = await vmm.getDirtyLog(!lazy);
    const added = this.#bitmap.sync(log);
    if (lazy) this.#bitmap.postponeClears(log);
    vmm.emit('MIGRATION_PASS', { pass: this.#counters.dirtySyncs });
    vmm.log.add(vmm.now, 'dirty_sync', { added, dirty: this.#bitmap.dirtyPages });
    await vmm.advanceFor(vmm.options.costs.dirtySyncPageNs * vmm.options.ramPages);
    if (!vmm.running) device.hintDone();
    else if (device.hintStart()) await this.#observer.roundStarted(device.hintCmdId);
  }

  /** The top of QEMU's loop: a sync when the estimate fits, and the decision on the exact figure. */
  async #converged(): Promise<boolean> {
    if (this.#pendingBytes < this.#thresholdBytes) await this.#sync();
    return this.#pendingBytes === 0 || this.#pendingBytes < this.#thresholdBytes;
  }

  get #pendingBytes(): number {
    const firmware = this.#firmwareDirty ? FIRMWARE_PAGES : 0;
    return (this.#bitmap.dirtyPages + firmware) * PAGE_SIZE_BYTES;
  }

  /** ram_save_iterate: send until the window is full, 50 ms are over, or nothing is left. */
  async #iterate(): Promise<void> {
    const startNs = this.#vmm.now;
    for (;;) {
      const windowLeft = this.#windowLimitBytes - this.#windowBytes;
      if (windowLeft < 0) break;
      if (this.#bitmap.dirtyPages === 0) {
        // The pass is over, and what is left of it is the firmware's.
        this.#sendFirmware();
        break;
      }
      if (this.#vmm.now - startNs > MAX_WAIT_NS) break;
      await this.#sendSlice(windowLeft);
    }
    this.#count(EOS_BYTES);
  }

  get #windowLimitBytes(): number {
    return (this.#params.bandwidthBytesPerS * WINDOW_NS) / NS_PER_S;
  }

  #count(bytes: number): void {
    this.#counters.transferredBytes += bytes;
    this.#windowBytes += bytes;
  }

  /** migration_rate_limit and migration_update_counters. */
  async #limitRate(): Promise<void> {
    const vmm = this.#vmm;
    const windowEnd = this.#windowStartNs + WINDOW_NS;
    if (this.#windowBytes > this.#windowLimitBytes && vmm.now < windowEnd) {
      await vmm.advanceTo(windowEnd);
    }
    if (vmm.now < windowEnd) return;
    const bytesPerNs = this.#windowBytes / (vmm.now - this.#windowStartNs);
    this.#thresholdBytes = bytesPerNs * this.#params.downtimeLimitMs * NS_PER_MS;
    this.#windowStartNs = vmm.now;
    this.#windowBytes = 0;
    this.#observer.progress(this.#counters.normal, this.#bitmap.dirtyPages);
  }

  /**
   * Sends the next dirty pages, ascending. Their records are read at the start of the slice, at
   * most a slice early; that is safe because their log was cleared before, so a later write is seen.
   */
  async #sendSlice(leftBytes: number): Promise<void> {
    const { costs } = this.#vmm.options;
    const ranges = this.#nextDirty(Math.min(SLICE_PAGES_MAX, SLICE_NS / costs.sendZeroPageNs));
    this.#clearLog(ranges);
    const records = await this.#vmm.readRecords(ranges);
    let costNs = 0;
    let bytes = 0;
    let index = 0;
    for (let i = 0; i < ranges.length; i += 2) {
      for (let pfn = ranges[i]!; pfn < ranges[i]! + ranges[i + 1]!; pfn++) {
        if (bytes > leftBytes || costNs > SLICE_NS) break;
        const tag = records[index++]!;
        const zero = tag === 0;
        bytes += zero ? ZERO_PAGE_BYTES : PAGE_HEADER_BYTES + PAGE_SIZE_BYTES;
        costNs += zero ? costs.sendZeroPageNs : costs.sendPageNs;
        this.#send(pfn, tag);
      }
    }
    this.#count(bytes);
    await this.#vmm.advanceFor(costNs);
  }

  #send(pfn: Pfn, tag: number): void {
    this.#bitmap.clear(pfn);
    this.ledger.sent(pfn);
    this.destination.receive(pfn, tag);
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
    this.#count(
      FIRMWARE_DATA_PAGES * (PAGE_HEADER_BYTES + PAGE_SIZE_BYTES) + zeroPages * ZERO_PAGE_BYTES,
    );
  }

  /** The next dirty pages from the scan position on, wrapping once, as pairs (first, count). */
  #nextDirty(pagesMax: number): Uint32Array {
    const { bits } = this.#bitmap;
    const ranges: number[] = [];
    let left = Math.min(Math.floor(pagesMax), this.#bitmap.dirtyPages);
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

  /** clear_bmap: the log of a chunk is cleared before its first page is read. */
  #clearLog(ranges: Uint32Array): void {
    for (let i = 0; i < ranges.length; i += 2) this.#clearLogOf(ranges[i]!, ranges[i + 1]!);
  }

  /** Posts the postponed log clears of every chunk that these pages touch. */
  #clearLogOf(first: Pfn, pageCount: number): void {
    for (const { firstPfn, bits } of this.#bitmap.takeClears(first, pageCount)) {
      this.#vmm.post({ name: 'clearDirtyLog', first_pfn: firstPfn, bits });
    }
  }

  /** migration_completion: the vCPUs stop, a last sync, and everything left without a limit. */
  async #complete(): Promise<void> {
    const vmm = this.#vmm;
    vmm.running = false;
    await vmm.advanceFor(vmm.options.costs.vmStopNs);
    await this.#sync();
    this.#sendFirmware();
    while (this.#bitmap.dirtyPages > 0) await this.#sendSlice(Number.POSITIVE_INFINITY);
    this.#count(EOS_BYTES);
  }

  /** qemu_guest_free_page_hint: the pages need not be sent unless they are written again. */
  #applyHint(hint: HintEvent): void {
    const first = gpaToPfn(hint.gpa);
    const pageCount = Math.floor(hint.sizeBytes / PAGE_SIZE_BYTES);
    const { bits } = this.#bitmap;
    // QEMU ≥ 6.1 clears here, not when the id was issued: docs/decisions/005 says what that can lose.
    this.#clearLogOf(first, pageCount);
    let skippedPages = 0;
    for (
      let pfn = bits.nextSet(first);
      pfn >= 0 && pfn < first + pageCount;
      pfn = bits.nextSet(pfn)
    ) {
      this.#bitmap.clear(pfn);
      this.ledger.skip(pfn);
      skippedPages++;
    }
    this.ledger.add({
      pfn: first,
      pageCount,
      cmdId: hint.cmdId,
      queuedAtNs: hint.queuedAtNs,
      consumedAtNs: this.#vmm.now,
      skippedPages,
    });
    this.#observer.hinted(first, pageCount);
  }
}
