/**
 * The hint ledger: which ranges the device took hints for, when, under which id, and what became of
 * each page: skipped to the end, sent again because it was dirtied, or sent before its hint came.
 */
import { Bitmap, type Nanoseconds, type Pfn } from '../../shared/index.ts';

export interface LedgerEntry {
  readonly pfn: Pfn;
  readonly pageCount: number;
  readonly cmdId: number;
  readonly queuedAtNs: Nanoseconds;
  readonly consumedAtNs: Nanoseconds;
  /** Pages that were still to be sent: what the hint really saved at that moment. */
  readonly skippedPages: number;
}

/** Entries kept for the history of a page; the counters stay exact beyond it. */
const KEPT_ENTRIES = 1 << 18;

export class HintLedger {
  /** Kept out of the stream by a hint and not sent since. */
  readonly skipped: Bitmap;
  /** Kept out of the stream by a hint at least once. */
  readonly everSkipped: Bitmap;
  blocks = 0;
  pages = 0;
  resentPages = 0;
  readonly #entries: LedgerEntry[] = [];

  constructor(pageCount: number) {
    this.skipped = new Bitmap(pageCount);
    this.everSkipped = new Bitmap(pageCount);
  }

  add(entry: LedgerEntry): void {
    this.blocks++;
    this.pages += entry.pageCount;
    if (this.#entries.length < KEPT_ENTRIES) this.#entries.push(entry);
  }

  /** A hint took this page out of the migration bitmap. */
  skip(pfn: Pfn): void {
    this.skipped.set(pfn);
    this.everSkipped.set(pfn);
  }

  /** The page goes out after all. */
  sent(pfn: Pfn): void {
    if (!this.skipped.get(pfn)) return;
    this.skipped.clear(pfn);
    this.resentPages++;
  }

  historyOf(pfn: Pfn): string[] {
    return this.#entries
      .filter((entry) => pfn >= entry.pfn && pfn < entry.pfn + entry.pageCount)
      .map(
        (entry) =>
          `hint consumed at ${entry.consumedAtNs} ns under id ${entry.cmdId} ` +
          `(queued at ${entry.queuedAtNs} ns), ${entry.skippedPages} of ${entry.pageCount} pages skipped`,
      );
  }
}
