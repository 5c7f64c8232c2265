/**
 * The hint ledger: which ranges the device took hints for, when, under which id, and what became of
 * each page: skipped to the end, sent again because it was dirtied, or sent before its hint came.
 */
import { Bitmap, type Nanoseconds, type Pfn } from '../../shared/index.ts';
import type { HintOrigin } from '../balloon/hinting.ts';

/** Entries kept for the history of a page; the counters stay exact beyond it. */
const KEPT_ENTRIES = 1 << 18;
const CHUNK_SHIFT = 14;
const CHUNK_ENTRIES = 1 << CHUNK_SHIFT;

/** Entries by columns: hints come by the million, and nobody looks at most of them again. */
class Chunk {
  readonly pfn = new Uint32Array(CHUNK_ENTRIES);
  readonly pageCount = new Uint32Array(CHUNK_ENTRIES);
  readonly cmdId = new Uint32Array(CHUNK_ENTRIES);
  readonly skippedPages = new Uint32Array(CHUNK_ENTRIES);
  readonly queuedAtNs = new Float64Array(CHUNK_ENTRIES);
  readonly consumedAtNs = new Float64Array(CHUNK_ENTRIES);
}

export interface HintOutcomePages {
  readonly skippedPages: number;
  readonly alreadySentPages: number;
}

export class HintLedger {
  /** Kept out of the stream by a hint and not sent since. */
  readonly skipped: Bitmap;
  /** Kept out of the stream by a hint at least once. */
  readonly everSkipped: Bitmap;
  /** Hinted at least once, whatever the hint saved. */
  readonly hinted: Bitmap;
  /** Sent at least once, with content or as a zero page. */
  readonly everSent: Bitmap;
  /** Pages of hints that had been sent when the hint came, and not written since. */
  alreadySentPages = 0;
  blocks = 0;
  pages = 0;
  resentPages = 0;
  readonly #chunks: Chunk[] = [];
  #entryCount = 0;

  constructor(pageCount: number) {
    this.skipped = new Bitmap(pageCount);
    this.everSkipped = new Bitmap(pageCount);
    this.hinted = new Bitmap(pageCount);
    this.everSent = new Bitmap(pageCount);
  }

  /** Distinct pages that were hinted and never sent. */
  get usefulPages(): number {
    return this.hinted.countAndNot(this.everSent);
  }

  /**
   * What became of its pages at that moment: `skippedPages` were still to be sent and are kept out,
   * `alreadySentPages` had been sent. Of the others an earlier hint keeps some out, and some are sent
   * in spite of it.
   */
  add(
    pfn: Pfn,
    pageCount: number,
    { cmdId, queuedAtNs }: HintOrigin,
    consumedAtNs: Nanoseconds,
    { skippedPages, alreadySentPages }: HintOutcomePages,
  ): void {
    this.blocks++;
    this.pages += pageCount;
    this.alreadySentPages += alreadySentPages;
    this.hinted.setRange(pfn, pageCount);
    if (this.#entryCount === KEPT_ENTRIES) return;
    const i = this.#entryCount & (CHUNK_ENTRIES - 1);
    if (i === 0) this.#chunks.push(new Chunk());
    const chunk = this.#chunks[this.#entryCount >>> CHUNK_SHIFT]!;
    chunk.pfn[i] = pfn;
    chunk.pageCount[i] = pageCount;
    chunk.cmdId[i] = cmdId;
    chunk.skippedPages[i] = skippedPages;
    chunk.queuedAtNs[i] = queuedAtNs;
    chunk.consumedAtNs[i] = consumedAtNs;
    this.#entryCount++;
  }

  /** Pages of `first` … `end − 1` that hints keep out now. */
  countSkipped(first: Pfn, end: Pfn): number {
    return this.skipped.countRange(first, end - first);
  }

  /** A hint took this page out of the migration bitmap. */
  skip(pfn: Pfn): void {
    this.skipped.set(pfn);
    this.everSkipped.set(pfn);
  }

  /** The page goes out after all. */
  sent(pfn: Pfn): void {
    this.everSent.set(pfn);
    if (!this.skipped.get(pfn)) return;
    this.skipped.clear(pfn);
    this.resentPages++;
  }

  historyOf(pfn: Pfn): string[] {
    const lines: string[] = [];
    for (let entry = 0; entry < this.#entryCount; entry++) {
      const chunk = this.#chunks[entry >>> CHUNK_SHIFT]!;
      const i = entry & (CHUNK_ENTRIES - 1);
      const pageCount = chunk.pageCount[i]!;
      if (pfn < chunk.pfn[i]! || pfn >= chunk.pfn[i]! + pageCount) continue;
      lines.push(
        `hint consumed at ${chunk.consumedAtNs[i]} ns under id ${chunk.cmdId[i]} ` +
          `(queued at ${chunk.queuedAtNs[i]} ns), ${chunk.skippedPages[i]} of ${pageCount} pages skipped`,
      );
    }
    if (this.skipped.get(pfn)) lines.push('skipped to the end');
    return lines;
  }
}
