/**
 * Inflate and deflate, device side (virtio 1.4 §5.5.6): every PFN is checked on its own, a bad one
 * is skipped and counted, and the buffer is acknowledged in any case, as QEMU does.
 */
import { BALLOON_PFN_BYTES, VIRTIO_BALLOON_PFNS_MAX } from '../../protocol/index.ts';
import { Bitmap } from '../../shared/index.ts';
import { type BalloonMetrics, countViolation } from './metrics.ts';

/** PFN ranges as they travel: u32 pairs of first PFN and count. */
export class RangeBuilder {
  #pairs = new Uint32Array(64);
  #length = 0;
  #pageCount = 0;

  /** Pages added since the last `take`. */
  get pageCount(): number {
    return this.#pageCount;
  }

  add(pfn: number): void {
    this.addRange(pfn, 1);
  }

  /** Consecutive ranges, ascending or descending, join the last one. */
  addRange(pfn: number, pageCount: number): void {
    this.#pageCount += pageCount;
    if (this.#length > 0) {
      const first = this.#pairs[this.#length - 2]!;
      const count = this.#pairs[this.#length - 1]!;
      if (pfn === first + count || pfn + pageCount === first) {
        if (pfn < first) this.#pairs[this.#length - 2] = pfn;
        this.#pairs[this.#length - 1] = count + pageCount;
        return;
      }
    }
    if (this.#length === this.#pairs.length) {
      const grown = new Uint32Array(this.#pairs.length * 2);
      grown.set(this.#pairs);
      this.#pairs = grown;
    }
    this.#pairs[this.#length++] = pfn;
    this.#pairs[this.#length++] = pageCount;
  }

  /** The ranges since the last call, or null. */
  take(): Uint32Array | null {
    if (this.#length === 0) return null;
    const ranges = this.#pairs.slice(0, this.#length);
    this.#length = 0;
    this.#pageCount = 0;
    return ranges;
  }
}

export class InflatedSet {
  /** One bit per page that is in the balloon. */
  readonly bits: Bitmap;
  readonly #ram: Bitmap;
  readonly #metrics: BalloonMetrics;

  /** `ram`: the frames that hold RAM. */
  constructor(ram: Bitmap, metrics: BalloonMetrics) {
    this.bits = new Bitmap(ram.bitCount);
    this.#ram = ram;
    this.#metrics = metrics;
  }

  /** Applies a buffer of le32 PFNs. Pages that entered go to `entered`. Returns how many PFNs. */
  inflate(buffer: DataView, start: number, lengthBytes: number, entered: RangeBuilder): number {
    if (!this.#lengthIsFine(lengthBytes)) return 0;
    for (let at = start; at < start + lengthBytes; at += BALLOON_PFN_BYTES) {
      const pfn = buffer.getUint32(at, true);
      if (!this.#isRam(pfn)) continue;
      if (this.bits.get(pfn)) countViolation(this.#metrics, 'double_inflated_pfns');
      this.bits.set(pfn);
      this.#metrics.inflated_pfns++;
      entered.add(pfn);
    }
    return lengthBytes / BALLOON_PFN_BYTES;
  }

  deflate(buffer: DataView, start: number, lengthBytes: number): number {
    if (!this.#lengthIsFine(lengthBytes)) return 0;
    for (let at = start; at < start + lengthBytes; at += BALLOON_PFN_BYTES) {
      const pfn = buffer.getUint32(at, true);
      if (!this.#isRam(pfn)) continue;
      if (!this.bits.get(pfn)) {
        countViolation(this.#metrics, 'double_deflated_pfns');
        continue;
      }
      this.bits.clear(pfn);
      this.#metrics.deflated_pfns++;
    }
    return lengthBytes / BALLOON_PFN_BYTES;
  }

  #lengthIsFine(lengthBytes: number): boolean {
    const pfnCount = lengthBytes / BALLOON_PFN_BYTES;
    if (Number.isInteger(pfnCount) && pfnCount >= 1 && pfnCount <= VIRTIO_BALLOON_PFNS_MAX) {
      return true;
    }
    countViolation(this.#metrics, 'bad_lengths');
    return false;
  }

  #isRam(pfn: number): boolean {
    if (pfn < this.#ram.bitCount && this.#ram.get(pfn)) return true;
    countViolation(this.#metrics, 'bad_pfns');
    return false;
  }
}
