/**
 * Free page information by budgeted iteration (start / step / end): each step visits at most
 * `budgetNodes` free list nodes while it holds the zone lock, and hints what it saw. Nothing is
 * allocated, so nothing is held, zeroed or dirtied; hints may be stale when the host reads them.
 */
import type { HintingStrategy, HintRound } from '../balloon/hinting.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { FreePageIterator, MAX_PAGE_ORDER } from '../mm/index.ts';
import type { Kthread } from '../sched/kthread.ts';

export interface IterateOptions {
  readonly budgetNodes: number;
  readonly minOrder: number;
}

export class IterateStrategy implements HintingStrategy {
  readonly name = 'iterate';
  readonly holds = false;
  readonly refills = false;
  readonly heldPages = 0;
  readonly iterator: FreePageIterator;
  readonly #kernel: Kernel;
  readonly #options: IterateOptions;
  readonly #found: { pfns: Uint32Array; orders: Uint8Array };

  constructor(kernel: Kernel, options: IterateOptions) {
    this.#kernel = kernel;
    this.#options = options;
    this.iterator = new FreePageIterator(kernel.mm, kernel.costs);
    this.#found = {
      pfns: new Uint32Array(options.budgetNodes),
      orders: new Uint8Array(options.budgetNodes),
    };
  }

  get counters(): Record<string, number> {
    const { holds, maxNs, totalNs, maxNodes } = this.iterator.statistics;
    return {
      lock_holds: holds,
      lock_hold_ns_max: maxNs,
      lock_hold_ns_total: totalNs,
      lock_nodes_max: maxNodes,
    };
  }

  *run(round: HintRound): Kthread {
    const { pfns, orders } = this.#found;
    this.iterator.start({ maxOrder: MAX_PAGE_ORDER, minOrder: this.#options.minOrder });
    try {
      for (;;) {
        const step = this.iterator.step(this.#options.budgetNodes, this.#found);
        const recordedAtNs = this.#kernel.now;
        round.recorded(pfns, orders, step.count);
        yield { kind: 'cpu', ns: step.holdNs };
        const queued = yield* round.hintMany(pfns, orders, step.count, recordedAtNs);
        if (step.done || queued < step.count || !(yield* round.active())) return;
        // The lock is dropped between two steps, and whoever waits for the vCPU gets it.
        yield { kind: 'sleep', ns: 0 };
      }
    } finally {
      this.iterator.end();
    }
  }

  release(): void {}
}
