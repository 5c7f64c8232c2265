import { Bitmap } from '../../shared/index.ts';

/**
 * The dirty log of guest memory (KVM_GET_DIRTY_LOG, KVM_CLEAR_DIRTY_LOG): one bit per page, set by
 * every write while logging is on. It belongs to the machine: the guest kernel cannot see it.
 */
export class DirtyLog {
  readonly bits: Bitmap;
  #enabled = false;

  constructor(pageCount: number) {
    this.bits = new Bitmap(pageCount);
  }

  /** Logging starts with every bit clear. */
  enable(enabled: boolean): void {
    if (enabled && !this.#enabled) this.bits.clearAll();
    this.#enabled = enabled;
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
    if (this.#enabled) this.bits.set(pfn);
  }

  markRange(pfn: number, pageCount: number): void {
    if (this.#enabled) this.bits.setRange(pfn, pageCount);
  }
}
