/**
 * Rewrites pages of user data in place, at a rate: what a trace of the page allocator cannot show
 * and a recording says in numbers (`in_place_dirty`). Paced, and it makes good what it was held up.
 */
import { type Nanoseconds, NS_PER_S, type Pfn, type Prng } from '../../shared/index.ts';
import type { Ram } from '../machine/ram.ts';
import type { Workload } from '../sched/scheduler.ts';

/** A page of random data takes this long to write, in a guest that catches up. */
const WRITE_NS = 5_000;

export interface InPlaceOptions {
  readonly pagesPerSecond: number;
  readonly setPages: number;
  readonly frameCount: number;
}

export class InPlaceDirty implements Workload {
  counters = { in_place_writes: 0 };
  readonly #ram: Ram;
  readonly #prng: Prng;
  readonly #options: InPlaceOptions;
  readonly #gapNs: number;
  /** The live user pages, dense, and where each stands in it (−1: not there). */
  readonly #live: Uint32Array;
  readonly #indexOf: Int32Array;
  #liveCount = 0;
  /** It starts when the set is complete. */
  #startNs: Nanoseconds = Number.POSITIVE_INFINITY;
  #done = 0;
  #lastNs: Nanoseconds = 0;

  constructor(options: InPlaceOptions, machine: { ram: Ram; prng: Prng }) {
    this.#options = options;
    this.#ram = machine.ram;
    this.#prng = machine.prng;
    // A rate of next to nothing must stay a number: 0 times infinity is none.
    this.#gapNs = Math.min(NS_PER_S / options.pagesPerSecond, Number.MAX_SAFE_INTEGER);
    this.#live = new Uint32Array(options.frameCount);
    this.#indexOf = new Int32Array(options.frameCount).fill(-1);
  }

  onUserPage(pfn: Pfn, live: boolean): void {
    const index = this.#indexOf[pfn]!;
    if (live === index >= 0) return;
    if (live) {
      this.#indexOf[pfn] = this.#liveCount;
      this.#live[this.#liveCount++] = pfn;
    } else {
      const last = this.#live[--this.#liveCount]!;
      this.#live[index] = last;
      this.#indexOf[last] = index;
      this.#indexOf[pfn] = -1;
    }
  }

  nextAt(freeAt: Nanoseconds): Nanoseconds {
    // A set of exactly the live pages: a larger population is the set's own making.
    const complete =
      this.#liveCount >= this.#options.setPages && this.#liveCount < 1.1 * this.#options.setPages;
    if (this.#startNs === Number.POSITIVE_INFINITY && complete) {
      this.#startNs = Math.max(freeAt, this.#lastNs);
    }
    if (this.#liveCount === 0) return Number.POSITIVE_INFINITY;
    return this.#timeOf(freeAt);
  }

  advance(freeAt: Nanoseconds, until: Nanoseconds): Nanoseconds {
    for (;;) {
      const at = this.#timeOf(freeAt);
      if (at > until) return this.#lastNs;
      this.#lastNs = at;
      this.#done++;
      this.counters.in_place_writes++;
      this.#ram.write(this.#live[this.#prng.below(this.#liveCount)]!);
    }
  }

  #timeOf(freeAt: Nanoseconds): Nanoseconds {
    const planned = this.#startNs + this.#done * this.#gapNs;
    const at = Math.max(planned, freeAt, this.#lastNs + WRITE_NS);
    return Math.ceil(at);
  }
}
