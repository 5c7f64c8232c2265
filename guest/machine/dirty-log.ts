import { Bitmap } from '../../shared/index.ts';

export interface DirtyLogMode {
  /** Logging starts with every bit set: a write to a page whose bit is set leaves no other trace. */
  readonly initiallySet: boolean;
  /** Entries of the dirty ring; 0: a bitmap alone. */
  readonly ringEntries: number;
}

/**
 * The dirty log of guest memory (KVM_GET_DIRTY_LOG, KVM_CLEAR_DIRTY_LOG): one bit per page, set by
 * every write while logging is on. It belongs to the machine: the guest kernel cannot see it. With a
 * dirty ring, writes go through the ring; whoever runs the vCPU reaps it into the bitmap when it is
 * full, which stops the vCPU each time.
 */
export class DirtyLog {
  readonly bits: Bitmap;
  /** Times that a vCPU stopped because the ring was full. */
  ringFullCount = 0;
  /** Writes that found the bit of their page clear: each is a fault of write protection. */
  faultCount = 0;
  /** A vCPU that causes more of them waits; 0: there is no limit. */
  limitPagesPerS = 0;
  /** What they have waited for so far. */
  limitedNs = 0;
  #enabled = false;
  #ringEntries = 0;
  /** Pages in the ring: one is pushed once until the ring is reaped. Null: there is no ring. */
  #pushed: Bitmap | null = null;
  #used = 0;

  constructor(pageCount: number) {
    this.bits = new Bitmap(pageCount);
  }

  enable(enabled: boolean, mode: DirtyLogMode = { initiallySet: false, ringEntries: 0 }): void {
    if (enabled && !this.#enabled) {
      if (mode.initiallySet) this.bits.setAll();
      else this.bits.clearAll();
      this.#ringEntries = mode.ringEntries;
      this.#pushed = mode.ringEntries > 0 ? new Bitmap(this.bits.bitCount) : null;
      this.#used = 0;
    }
    this.#enabled = enabled;
  }

  /** The log as it is now, and clear from here on if asked to. */
  take(clear: boolean): Bitmap {
    this.#reap();
    const log = this.bits.clone();
    if (clear) this.bits.clearAll();
    return log;
  }

  /** Clears what is set in `bits`, a piece of the log from `firstPfn` on; false if it is none. */
  clear(firstPfn: number, bits: Uint8Array): boolean {
    const bytes = this.bits.bytes;
    const first = firstPfn / 8;
    if (firstPfn % 32 !== 0 || first + bits.length > bytes.length) return false;
    for (let i = 0; i < bits.length; i++) bytes[first + i]! &= ~bits[i]!;
    return true;
  }

  mark(pfn: number): void {
    if (!this.#enabled) return;
    if (!this.bits.get(pfn)) this.faultCount++;
    this.bits.set(pfn);
    if (this.#pushed) this.#push(this.#pushed, pfn);
  }

  markRange(pfn: number, pageCount: number): void {
    if (!this.#enabled) return;
    this.faultCount += pageCount - this.bits.countRange(pfn, pageCount);
    this.bits.setRange(pfn, pageCount);
    if (!this.#pushed) return;
    for (let i = pfn; i < pfn + pageCount; i++) this.#push(this.#pushed, i);
  }

  #push(pushed: Bitmap, pfn: number): void {
    if (pushed.get(pfn)) return;
    pushed.set(pfn);
    if (++this.#used < this.#ringEntries) return;
    this.ringFullCount++;
    this.#reap();
  }

  #reap(): void {
    if (this.#used === 0) return;
    this.#pushed?.clearAll();
    this.#used = 0;
  }
}
