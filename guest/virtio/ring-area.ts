/** One area of a queue as the device's hand sees it: an address, and a view while it lasts. */
import type { Gpa } from '../../shared/index.ts';
import type { GuestBytes } from './queue.ts';

const NO_VIEW = new DataView(new ArrayBuffer(0));

export class RingArea {
  /** Valid from `map` until the guest runs on. */
  view: DataView = NO_VIEW;
  readonly #memory: GuestBytes;
  readonly #gpa: Gpa;
  readonly #lengthBytes: number;

  constructor(memory: GuestBytes, gpa: Gpa, lengthBytes: number) {
    this.#memory = memory;
    this.#gpa = gpa;
    this.#lengthBytes = lengthBytes;
  }

  /** False: there is no such memory. */
  map(): boolean {
    const bytes = this.#memory.map(this.#gpa, this.#lengthBytes);
    if (bytes === null) return false;
    const { view } = this;
    if (view.buffer !== bytes.buffer || view.byteOffset !== bytes.byteOffset) {
      this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    }
    return true;
  }

  /** The bytes there were changed through the view. */
  touched(offset: number, lengthBytes: number): void {
    this.#memory.touched(this.#gpa + offset, lengthBytes);
  }
}
