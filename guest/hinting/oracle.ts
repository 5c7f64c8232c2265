/**
 * Perfect knowledge of free pages, as a reference: at the start of a round it hints each free page at
 * once, and for as long as the round lasts each page that has become free since. It takes no lock,
 * no CPU time and no memory, so no real driver can be it.
 */
import { Bitmap, NS_PER_MS } from '../../shared/index.ts';
import type { HintingStrategy, HintRound } from '../balloon/hinting.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { MAX_PAGE_ORDER } from '../mm/index.ts';
import type { Kthread } from '../sched/kthread.ts';

/** How often it looks again: well inside one 100 ms window of the bandwidth limit. */
const LOOK_AGAIN_NS = 5 * NS_PER_MS;
const BATCH = 65_536;

export class OracleStrategy implements HintingStrategy {
  readonly name = 'oracle';
  readonly holds = false;
  readonly refills = false;
  readonly heldPages = 0;
  readonly #kernel: Kernel;
  readonly #pfns = new Uint32Array(BATCH);
  readonly #orders = new Uint8Array(BATCH);

  constructor(kernel: Kernel) {
    this.#kernel = kernel;
  }

  *run(round: HintRound): Kthread {
    const { mm, ram } = this.#kernel;
    const hinted = new Bitmap(ram.pageCount);
    const free = new Bitmap(ram.pageCount);
    while (yield* round.active()) {
      free.clearAll();
      mm.writeFreeSet(free);
      // What was taken since may be hinted anew when it is free again.
      for (let i = 0; i < free.words.length; i++) hinted.words[i]! &= free.words[i]!;
      for (let from = 0; from >= 0; ) {
        const { count, next } = this.#collect(free, hinted, from);
        round.recorded(this.#pfns, this.#orders, count);
        const queued = yield* round.hintMany(this.#pfns, this.#orders, count, this.#kernel.now);
        if (queued < count) return;
        from = next;
      }
      yield { kind: 'sleep', ns: LOOK_AGAIN_NS };
    }
  }

  release(): void {}

  /** Aligned blocks of pages that are free and not hinted yet, from `start` on. */
  #collect(free: Bitmap, hinted: Bitmap, start: number): { count: number; next: number } {
    let count = 0;
    let pfn = free.nextSet(start);
    while (pfn >= 0) {
      if (count === BATCH) return { count, next: pfn };
      if (hinted.get(pfn)) {
        pfn = free.nextSet(pfn + 1);
        continue;
      }
      const runEnd = Math.min(free.nextClear(pfn), hinted.nextSet(pfn) >>> 0);
      let order = 0;
      while (order < MAX_PAGE_ORDER && pfn % (2 << order) === 0 && pfn + (2 << order) <= runEnd) {
        order++;
      }
      hinted.setRange(pfn, 1 << order);
      this.#pfns[count] = pfn;
      this.#orders[count++] = order;
      pfn = free.nextSet(pfn + (1 << order));
    }
    return { count, next: -1 };
  }
}
