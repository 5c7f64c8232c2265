/** IN_ORDER on the device's side: chains in the order in which they were taken. */
export class OutstandingOrder {
  readonly #heads: Uint16Array;
  #oldest = 0;
  #count = 0;

  constructor(size: number) {
    this.#heads = new Uint16Array(size);
  }

  add(head: number): void {
    this.#heads[(this.#oldest + this.#count++) % this.#heads.length] = head;
  }

  /** Oldest first. */
  list(): number[] {
    return Array.from(
      { length: this.#count },
      (_, i) => this.#heads[(this.#oldest + i) % this.#heads.length]!,
    );
  }

  /** Takes the head out if no other has waited longer; false otherwise. */
  takeIfOldest(head: number): boolean {
    if (this.#count === 0 || this.#heads[this.#oldest] !== head) return false;
    this.#oldest = (this.#oldest + 1) % this.#heads.length;
    this.#count--;
    return true;
  }
}
