/** Unsigned LEB128 numbers up to 2^53 and their zigzag form: the columns of a compact recording. */

export class VarintWriter {
  #bytes = new Uint8Array(1 << 16);
  #length = 0;

  get bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }

  unsigned(value: number): void {
    if (this.#length + 8 > this.#bytes.length) this.#grow();
    let rest = value;
    // Division, not shifts: times need more than 32 bits.
    while (rest >= 128) {
      this.#bytes[this.#length++] = (rest % 128) | 128;
      rest = Math.floor(rest / 128);
    }
    this.#bytes[this.#length++] = rest;
  }

  signed(value: number): void {
    this.unsigned(value >= 0 ? 2 * value : -2 * value - 1);
  }

  #grow(): void {
    const larger = new Uint8Array(2 * this.#bytes.length);
    larger.set(this.#bytes);
    this.#bytes = larger;
  }
}

/** Reading past the end gives 0 and sets `overrun`: the caller checks once, after its loop. */
export class VarintReader {
  overrun = false;
  readonly #bytes: Uint8Array;
  #p = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  get atEnd(): boolean {
    return this.#p === this.#bytes.length;
  }

  unsigned(): number {
    const bytes = this.#bytes;
    let p = this.#p;
    if (p >= bytes.length) {
      this.overrun = true;
      return 0;
    }
    let byte = bytes[p++]!;
    let value = byte & 127;
    let scale = 128;
    while (byte >= 128 && p < bytes.length && scale < Number.MAX_SAFE_INTEGER) {
      byte = bytes[p++]!;
      value += (byte & 127) * scale;
      scale *= 128;
    }
    if (byte >= 128) this.overrun = true;
    this.#p = p;
    return value;
  }

  signed(): number {
    const value = this.unsigned();
    return value % 2 === 0 ? value / 2 : -(value + 1) / 2;
  }
}
