/**
 * Inflate and deflate, device side (virtio 1.4 §5.5.6): every PFN is checked on its own, a bad one
 * is skipped and counted, and the buffer is acknowledged in any case, as QEMU does.
 */
import {
  BALLOON_PFN_BYTES,
  type DeviceQuirk,
  VIRTIO_BALLOON_PFNS_MAX,
} from '../../protocol/index.ts';
import { Bitmap } from '../../shared/index.ts';
import { bytesText, type State, type StateFields } from '../state/fields.ts';
import { type BalloonMetrics, countViolation } from './metrics.ts';
import type { RangeBuilder } from './range-builder.ts';

/** The buffer is not given back: Firecracker's answer to one that is too long. */
export const KEPT = -1;

export class InflatedSet {
  /** One bit per page that is in the balloon. */
  readonly bits: Bitmap;
  readonly #ram: Bitmap;
  readonly #metrics: BalloonMetrics;
  readonly #maxPfns: number;
  readonly #keepsTooLong: boolean;
  readonly #ignoresStrayBytes: boolean;

  /** `ram`: the frames that hold RAM. */
  constructor(ram: Bitmap, metrics: BalloonMetrics, quirks: ReadonlySet<DeviceQuirk>) {
    this.bits = new Bitmap(ram.bitCount);
    this.#ram = ram;
    this.#metrics = metrics;
    this.#keepsTooLong = quirks.has('pfns-over-256-never-returned');
    const isLimited = this.#keepsTooLong || quirks.has('pfns-over-256-ignored');
    this.#maxPfns = isLimited ? VIRTIO_BALLOON_PFNS_MAX : Number.POSITIVE_INFINITY;
    this.#ignoresStrayBytes = quirks.has('stray-pfn-bytes-ignored');
  }

  saveState(): State {
    return { inflated: bytesText(this.bits.bytes) };
  }

  loadState(fields: StateFields): void {
    const { bytes } = this.bits;
    const saved = fields.bytes('inflated', bytes.length);
    if (saved.length !== bytes.length) throw fields.bad('inflated', `${bytes.length} bytes`);
    bytes.set(saved);
  }

  /** Pages in the balloon by the count of PFNs alone. */
  get balance(): number {
    return this.#metrics.inflated_pfns - this.#metrics.deflated_pfns;
  }

  /**
   * Applies a buffer of le32 PFNs. Pages that entered go to `entered`. Returns how many PFNs, or
   * `KEPT`.
   */
  inflate(buffer: DataView, start: number, lengthBytes: number, entered: RangeBuilder): number {
    const pfnCount = this.#pfnCount(lengthBytes);
    for (let i = 0; i < pfnCount; i++) {
      const pfn = buffer.getUint32(start + i * BALLOON_PFN_BYTES, true);
      if (!this.#isRam(pfn)) continue;
      this.#metrics.inflated_pfns++;
      if (this.bits.get(pfn)) {
        // Its backing went when it entered; a buffer full of it would fill a message.
        countViolation(this.#metrics, 'double_inflated_pfns');
        continue;
      }
      this.bits.set(pfn);
      entered.addRange(pfn, 1);
    }
    return pfnCount;
  }

  deflate(buffer: DataView, start: number, lengthBytes: number): number {
    const pfnCount = this.#pfnCount(lengthBytes);
    for (let i = 0; i < pfnCount; i++) {
      const pfn = buffer.getUint32(start + i * BALLOON_PFN_BYTES, true);
      if (!this.#isRam(pfn)) continue;
      if (!this.bits.get(pfn)) {
        countViolation(this.#metrics, 'double_deflated_pfns');
        continue;
      }
      this.bits.clear(pfn);
      this.#metrics.deflated_pfns++;
    }
    return pfnCount;
  }

  /** How many PFNs of a buffer count: none if it has a wrong length. */
  #pfnCount(lengthBytes: number): number {
    const pfnCount = Math.floor(lengthBytes / BALLOON_PFN_BYTES);
    const isWhole = lengthBytes % BALLOON_PFN_BYTES === 0 && pfnCount > 0;
    if (isWhole && pfnCount <= this.#maxPfns) return pfnCount;
    countViolation(this.#metrics, 'bad_lengths');
    if (pfnCount > this.#maxPfns) return this.#keepsTooLong ? KEPT : 0;
    return this.#ignoresStrayBytes ? pfnCount : 0;
  }

  #isRam(pfn: number): boolean {
    if (pfn < this.#ram.bitCount && this.#ram.get(pfn)) return true;
    countViolation(this.#metrics, 'bad_pfns');
    return false;
  }
}
