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

  mark(pfn: number): void {
    if (this.#enabled) this.bits.set(pfn);
  }

  markRange(pfn: number, pageCount: number): void {
    if (this.#enabled) this.bits.setRange(pfn, pageCount);
  }
}
