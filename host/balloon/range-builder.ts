/** PFN ranges as they travel: u32 pairs of first PFN and count. */
export class RangeBuilder {
  #pairs = new Uint32Array(64);
  #length = 0;
  #pageCount = 0;

  /** Pages added since the last `take`. */
  get pageCount(): number {
    return this.#pageCount;
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
