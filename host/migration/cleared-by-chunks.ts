/**
 * KVM's log with manual protect (KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE, KVM_DIRTY_LOG_INITIALLY_SET) and
 * QEMU's clear_bmap: it begins with all ones, a sync only reads it, and it is cleared by chunks, each
 * before its first page is sent, and also by the first hint in it. Only bits that the sync has found
 * are cleared, which keeps a later write to a page that was clean; but a page whose bit was set is
 * not write-protected, so that a write between the sync and the clear leaves no trace.
 */
import {
  CLEAR_BITMAP_SHIFT_MIN,
  type DirtyLogParams,
  type HintRemedy,
} from '../../protocol/index.ts';
import { assert, Bitmap, type Pfn } from '../../shared/index.ts';
import type { MigrationLog } from './migration-log.ts';
import { type MigrationMachine, type MigrationThread, preempt, readDirtyLog } from './thread.ts';

export class ClearedByChunks implements MigrationLog {
  readonly #machine: MigrationMachine;
  readonly #ram: Bitmap;
  readonly #remedy: HintRemedy;
  readonly #shift: number;
  /** clear_bmap: one bit per chunk whose log must be cleared before its next page is sent. */
  readonly #chunks: Bitmap;
  /** The log as the last sync found it. */
  #found: Bitmap | null = null;

  constructor(machine: MigrationMachine, ram: Bitmap, params: DirtyLogParams) {
    assert(params.clearBitmapShift >= CLEAR_BITMAP_SHIFT_MIN, 'a chunk of the log is whole words');
    this.#machine = machine;
    this.#ram = ram;
    this.#remedy = params.hintRemedy;
    this.#shift = params.clearBitmapShift;
    this.#chunks = new Bitmap(Math.ceil(ram.bitCount / 2 ** params.clearBitmapShift));
  }

  start(): void {
    this.#enable(true);
  }

  stop(): void {
    this.#enable(false);
  }

  *sync(): MigrationThread<Bitmap> {
    const found = yield* readDirtyLog(false);
    // All ones are so in holes, too.
    found.and(this.#ram);
    this.#found = found;
    this.#chunks.setAll();
    return found;
  }

  *beforeRound(): MigrationThread {
    if (this.#remedy !== 'clear-at-id') return;
    // From here on each write leaves its bit, so a hint of the new id can undo none.
    this.#clear(0, this.#ram.bitCount);
    yield preempt('log cleared');
  }

  beforeSend(first: Pfn, pageCount: number): void {
    this.#clear(first, pageCount);
  }

  beforeHint(first: Pfn, pageCount: number): void {
    this.#clear(first, pageCount);
  }

  /**
   * A page that the sync found clean is write-protected: a write since leaves a bit that no postponed
   * clear takes away. No chunk is cleared between a sync and the id of its round, so every other page
   * may have been written without a trace when its hint comes.
   */
  mayTakeHint(pfn: Pfn): boolean {
    if (this.#remedy !== 'cleared-chunks-only') return true;
    return this.#found?.get(pfn) !== true;
  }

  /** Posts the clears of every chunk that these pages touch and that is still to be cleared. */
  #clear(first: Pfn, pageCount: number): void {
    const found = this.#found;
    if (!found || pageCount === 0) return;
    const chunkPages = 2 ** this.#shift;
    const end = Math.min(((first + pageCount - 1) >>> this.#shift) + 1, this.#chunks.bitCount);
    // Neighbours go in one message.
    for (let chunk = this.#chunks.nextSet(first >>> this.#shift, end); chunk >= 0; ) {
      const clear = this.#chunks.nextClear(chunk);
      const runEnd = clear < 0 ? end : Math.min(clear, end);
      this.#chunks.clearRange(chunk, runEnd - chunk);
      const bits = found.bytes.subarray((chunk * chunkPages) / 8, (runEnd * chunkPages) / 8);
      this.#machine.post({ name: 'clearDirtyLog', first_pfn: chunk * chunkPages, bits });
      chunk = runEnd < end ? this.#chunks.nextSet(runEnd, end) : -1;
    }
  }

  #enable(enabled: boolean): void {
    this.#machine.post({ name: 'dirtyLogEnable', enabled, initially_set: true, ring_entries: 0 });
  }
}
