import { assert } from './assert.ts';
import type { Nanoseconds } from './units.ts';

interface Entry<T> {
  readonly at: Nanoseconds;
  readonly sequence: number;
  readonly value: T;
  cancelled: boolean;
}

export type EventHandle = { readonly at: Nanoseconds };

/**
 * Future events ordered by (time, order of scheduling): two events at one instant happen in the
 * order in which they were asked for, on every engine. A binary heap.
 */
export class EventQueue<T> {
  #heap: Entry<T>[] = [];
  #sequence = 0;

  schedule(at: Nanoseconds, value: T): EventHandle {
    assert(Number.isInteger(at) && at >= 0, 'an event time is an integer number of nanoseconds');
    const entry: Entry<T> = { at, sequence: this.#sequence++, value, cancelled: false };
    this.#heap.push(entry);
    this.#up(this.#heap.length - 1);
    return entry;
  }

  /** Cancelling twice, or after the event was taken, does nothing. */
  cancel(handle: EventHandle): void {
    (handle as Entry<T>).cancelled = true;
  }

  /** Time of the next event, or Infinity. */
  get nextAt(): Nanoseconds {
    this.#dropCancelled();
    return this.#heap[0]?.at ?? Number.POSITIVE_INFINITY;
  }

  take(): { at: Nanoseconds; value: T } | undefined {
    this.#dropCancelled();
    const top = this.#heap[0];
    if (top) this.#removeTop();
    return top;
  }

  #dropCancelled(): void {
    while (this.#heap[0]?.cancelled) this.#removeTop();
  }

  #removeTop(): void {
    const last = this.#heap.pop()!;
    if (this.#heap.length === 0) return;
    this.#heap[0] = last;
    this.#down(0);
  }

  #before(a: number, b: number): boolean {
    const x = this.#heap[a]!;
    const y = this.#heap[b]!;
    return x.at < y.at || (x.at === y.at && x.sequence < y.sequence);
  }

  #swap(a: number, b: number): void {
    const x = this.#heap[a]!;
    this.#heap[a] = this.#heap[b]!;
    this.#heap[b] = x;
  }

  #up(start: number): void {
    let i = start;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (!this.#before(i, parent)) return;
      this.#swap(i, parent);
      i = parent;
    }
  }

  #down(start: number): void {
    let i = start;
    for (;;) {
      const left = 2 * i + 1;
      if (left >= this.#heap.length) return;
      const right = left + 1;
      const child = right < this.#heap.length && this.#before(right, left) ? right : left;
      if (!this.#before(child, i)) return;
      this.#swap(i, child);
      i = child;
    }
  }
}
