/** `poison_val` of the configuration space (virtio 1.4 §5.5.6.6): what the guest's freed pages hold. */
import { bit, type DeviceQuirk, DeviceStatus } from '../../protocol/index.ts';
import type { State, StateFields } from '../state/fields.ts';

const DRIVER_OK = bit(DeviceStatus.DRIVER_OK);

export class PoisonVal {
  /** Not 0: freed pages are to keep it. */
  value = 0;
  /** What the driver wrote last, whatever was reset since then. */
  #written = 0;
  readonly #isWritableLate: boolean;

  constructor(quirks: ReadonlySet<DeviceQuirk>) {
    this.#isWritableLate = quirks.has('poison-writable-any-time');
  }

  /** It is written before DRIVER_OK, and constant from then on. */
  write(value: number, status: number): boolean {
    if ((status & DRIVER_OK) !== 0 && !this.#isWritableLate) return false;
    this.value = this.#written = value;
    return true;
  }

  /** A device that remembers it over a reset. */
  restore(): void {
    this.value = this.#written;
  }

  saveState(): State {
    return { value: this.value, written: this.#written };
  }

  loadState(fields: StateFields): void {
    this.value = fields.int('value', 0xffff_ffff);
    this.#written = fields.int('written', 0xffff_ffff);
  }
}
