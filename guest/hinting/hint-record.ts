/**
 * The guest's part of the hint ledger: when each hinted range was recorded and queued, and whether
 * its pages were free when it was recorded. For evaluation; the driver never reads it.
 */
import type { Nanoseconds, Pfn } from '../../shared/index.ts';
import type { HintObserver } from '../balloon/hinting.ts';

/** Ranges that are remembered for the history of a page; the oldest are forgotten. */
const KEPT_RANGES = 1 << 16;

export class HintRecord implements HintObserver {
  readonly counters = { hint_recorded_pages: 0, hint_recorded_free_pages: 0 };
  readonly #isUnused: (pfn: Pfn) => boolean;
  readonly #keptRanges: number;
  readonly #pfn: Uint32Array;
  readonly #pageCount: Uint32Array;
  readonly #cmdId: Uint32Array;
  readonly #recordedAtNs: Float64Array;
  readonly #queuedAtNs: Float64Array;
  #total = 0;
  /** Of blocks recorded together, as many of each as nobody used then. */
  #batch = new Uint32Array(0);
  #batchAt = 0;

  /** `isUnused`: free, or held by the strategy itself. */
  constructor(isUnused: (pfn: Pfn) => boolean, keptRanges: number = KEPT_RANGES) {
    this.#isUnused = isUnused;
    this.#keptRanges = keptRanges;
    this.#pfn = new Uint32Array(keptRanges);
    this.#pageCount = new Uint32Array(keptRanges);
    this.#cmdId = new Uint32Array(keptRanges);
    this.#recordedAtNs = new Float64Array(keptRanges);
    this.#queuedAtNs = new Float64Array(keptRanges);
  }

  /** Blocks were recorded now; their hints follow, in this order. */
  onRecord(pfns: Uint32Array, orders: Uint8Array, count: number): void {
    this.#batch = Uint32Array.from({ length: count }, (_, i) =>
      this.#countUnused(pfns[i]!, 1 << orders[i]!),
    );
    this.#batchAt = 0;
  }

  onHint(
    pfn: Pfn,
    pageCount: number,
    recordedAtNs: Nanoseconds,
    queuedAtNs: Nanoseconds,
    cmdId: number,
  ): void {
    const slot = this.#total++ % this.#keptRanges;
    this.#pfn[slot] = pfn;
    this.#pageCount[slot] = pageCount;
    this.#cmdId[slot] = cmdId;
    this.#recordedAtNs[slot] = recordedAtNs;
    this.#queuedAtNs[slot] = queuedAtNs;
    this.counters.hint_recorded_pages += pageCount;
    const isRecorded = this.#batchAt < this.#batch.length;
    this.counters.hint_recorded_free_pages += isRecorded
      ? this.#batch[this.#batchAt++]!
      : this.#countUnused(pfn, pageCount);
  }

  #countUnused(pfn: Pfn, pageCount: number): number {
    let unused = 0;
    for (let i = pfn; i < pfn + pageCount; i++) if (this.#isUnused(i)) unused++;
    return unused;
  }

  onUsed(): void {}

  /** What was hinted of this page, oldest first. */
  historyOf(pfn: Pfn): string[] {
    const lines: string[] = [];
    for (let i = Math.max(0, this.#total - this.#keptRanges); i < this.#total; i++) {
      const slot = i % this.#keptRanges;
      const first = this.#pfn[slot]!;
      if (pfn < first || pfn >= first + this.#pageCount[slot]!) continue;
      lines.push(
        `hint recorded at ${this.#recordedAtNs[slot]} ns, queued at ${this.#queuedAtNs[slot]} ns ` +
          `under id ${this.#cmdId[slot]}, pages ${first}+${this.#pageCount[slot]}`,
      );
    }
    return lines;
  }
}
