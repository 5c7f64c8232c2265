/**
 * The hint ledger: which ranges the device took hints for, when, under which id, and what became of
 * each page: skipped to the end, sent again because it was dirtied, or sent before its hint came.
 */
import { Bitmap, type Nanoseconds, type Pfn } from '../../shared/index.ts';

/** Entries kept for the history of a page; the counters stay exact beyond it. */
const KEPT_ENTRIES = 1 << 18;
const FIRST_CAPACITY = 1 << 10;

/** Entries by columns: hints come by the million, and nobody looks at most of them again. */
class Entries {
  readonly pfn: Uint32Array;
  readonly pageCount: Uint32Array;
  readonly cmdId: Uint32Array;
  readonly skippedPages: Uint32Array;
  readonly queuedAtNs: Float64Array;
  readonly consumedAtNs: Float64Array;

  constructor(capacity: number, old?: Entries) {
    this.pfn = new Uint32Array(capacity);
    this.pageCount = new Uint32Array(capacity);
    this.cmdId = new Uint32Array(capacity);
    this.skippedPages = new Uint32Array(capacity);
    this.queuedAtNs = new Float64Array(capacity);
    this.consumedAtNs = new Float64Array(capacity);
    if (!old) return;
    this.pfn.set(old.pfn);
    this.pageCount.set(old.pageCount);
    this.cmdId.set(old.cmdId);
    this.skippedPages.set(old.skippedPages);
    this.queuedAtNs.set(old.queuedAtNs);
    this.consumedAtNs.set(old.consumedAtNs);
  }
}

export class HintLedger {
  /** Kept out of the stream by a hint and not sent since. */
  readonly skipped: Bitmap;
  /** Kept out of the stream by a hint at least once. */
  readonly everSkipped: Bitmap;
  blocks = 0;
  pages = 0;
  resentPages = 0;
  #entries = new Entries(FIRST_CAPACITY);
  #entryCount = 0;

  constructor(pageCount: number) {
    this.skipped = new Bitmap(pageCount);
    this.everSkipped = new Bitmap(pageCount);
  }

  /** `skippedPages`: those that were still to be sent, what the hint really saved at that moment. */
  add(
    pfn: Pfn,
    pageCount: number,
    cmdId: number,
    queuedAtNs: Nanoseconds,
    consumedAtNs: Nanoseconds,
    skippedPages: number,
  ): void {
    this.blocks++;
    this.pages += pageCount;
    const i = this.#entryCount;
    if (i === KEPT_ENTRIES) return;
    if (i === this.#entries.pfn.length) this.#entries = new Entries(2 * i, this.#entries);
    const entries = this.#entries;
    entries.pfn[i] = pfn;
    entries.pageCount[i] = pageCount;
    entries.cmdId[i] = cmdId;
    entries.skippedPages[i] = skippedPages;
    entries.queuedAtNs[i] = queuedAtNs;
    entries.consumedAtNs[i] = consumedAtNs;
    this.#entryCount++;
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
    const { pfn: first, pageCount, cmdId, skippedPages, queuedAtNs, consumedAtNs } = this.#entries;
    const lines: string[] = [];
    for (let i = 0; i < this.#entryCount; i++) {
      if (pfn < first[i]! || pfn >= first[i]! + pageCount[i]!) continue;
      lines.push(
        `hint consumed at ${consumedAtNs[i]} ns under id ${cmdId[i]} ` +
          `(queued at ${queuedAtNs[i]} ns), ${skippedPages[i]} of ${pageCount[i]} pages skipped`,
      );
    }
    return lines;
  }
}
