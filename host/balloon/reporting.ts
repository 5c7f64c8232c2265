/**
 * Free page reporting, device side (virtio 1.4 §5.5.6.7): each range of a buffer stands for itself,
 * is discarded if it is made of whole pages of guest memory, and is left alone otherwise; the buffer
 * is acknowledged in any case, as QEMU does.
 */
import type { DeviceQuirk } from '../../protocol/index.ts';
import { type Gpa, gpaToPfn, PAGE_SIZE_BYTES } from '../../shared/index.ts';
import type { AvailCursor } from '../virtio/queue.ts';
import type { Discards } from './discards.ts';
import { type BalloonMetrics, countViolation } from './metrics.ts';
import type { PoisonVal } from './poison-val.ts';

const USED_LENGTH_MAX = 0xffff_ffff;

export class Reporting {
  /** Not 0: freed pages are to keep it, so nothing is discarded. */
  readonly #poison: PoisonVal;
  readonly #metrics: BalloonMetrics;
  readonly #discards: Discards;
  readonly #ramBytes: number;
  readonly #clipsToRam: boolean;
  readonly #usesTotalLength: boolean;

  constructor(
    poison: PoisonVal,
    ramPages: number,
    metrics: BalloonMetrics,
    discards: Discards,
    quirks: ReadonlySet<DeviceQuirk>,
  ) {
    this.#poison = poison;
    this.#metrics = metrics;
    this.#discards = discards;
    this.#ramBytes = ramPages * PAGE_SIZE_BYTES;
    this.#clipsToRam = quirks.has('report-clipped-to-ram');
    this.#usesTotalLength = quirks.has('report-used-length-total');
  }

  /** The chain under the cursor. Returns its used length. */
  handle({ outBytes, inStart, inCount, inGpa, inBytes }: AvailCursor): number {
    if (outBytes > 0 || inCount === 0) countViolation(this.#metrics, 'bad_directions');
    let totalBytes = 0;
    for (let i = inStart; i < inStart + inCount; i++) {
      this.#report(inGpa[i]!, inBytes[i]!);
      totalBytes += inBytes[i]!;
    }
    return this.#usesTotalLength ? Math.min(totalBytes, USED_LENGTH_MAX) : 0;
  }

  /** One writable segment. */
  #report(gpa: Gpa, lengthBytes: number): void {
    const inRamBytes = this.#clipsToRam
      ? Math.max(0, Math.min(lengthBytes, this.#ramBytes - gpa))
      : lengthBytes;
    const first = gpaToPfn(gpa);
    const end = first + inRamBytes / PAGE_SIZE_BYTES;
    const isWhole = gpa % PAGE_SIZE_BYTES === 0 && inRamBytes % PAGE_SIZE_BYTES === 0;
    if (!isWhole || inRamBytes === 0 || !this.#discards.isRam(first, end)) {
      countViolation(this.#metrics, 'bad_reports');
      return;
    }
    this.#metrics.reports++;
    this.#metrics.report_pages += end - first;
    if (this.#poison.value !== 0) {
      this.#metrics.reports_poisoned++;
      return;
    }
    this.#discards.addRange(first, end);
  }
}
