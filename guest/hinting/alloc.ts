/**
 * What Linux merged in 4.20 (drivers/virtio/virtio_balloon.c, get_free_page_and_send): allocate
 * blocks of the largest order without any reclaim, hint each, hold them all until DONE.
 */
import type { Bitmap, Pfn } from '../../shared/index.ts';
import { type HintingStrategy, HintOutcome, type HintRound } from '../balloon/hinting.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { startMemoryCost } from '../kernel/memory-cost.ts';
import { Gfp, MAX_PAGE_ORDER } from '../mm/index.ts';
import type { Kthread } from '../sched/kthread.ts';

const HINT_ORDER = MAX_PAGE_ORDER;
const HINT_PAGES = 1 << HINT_ORDER;
const HINT_GFP = Gfp.__GFP_NORETRY | Gfp.__GFP_NOWARN | Gfp.__GFP_NOMEMALLOC;

export class AllocStrategy implements HintingStrategy {
  readonly name = 'alloc';
  readonly #kernel: Kernel;
  readonly #held: Pfn[] = [];
  readonly counters = { held_pages_max: 0 };
  /** The blocks of `#held`, by number. */
  readonly #heldBlocks = new Set<number>();

  constructor(kernel: Kernel) {
    this.#kernel = kernel;
  }

  get heldPages(): number {
    return this.#held.length * HINT_PAGES;
  }

  holds(pfn: Pfn): boolean {
    return this.#heldBlocks.has(pfn >>> HINT_ORDER);
  }

  writeHeldSet(into: Bitmap): void {
    for (const pfn of this.#held) into.setRange(pfn, HINT_PAGES);
  }

  *run(round: HintRound): Kthread {
    const { costs, mm } = this.#kernel;
    // Linux checks the command id before each block, and stops when an allocation fails.
    while (yield* round.active()) {
      const memoryCostNs = startMemoryCost(this.#kernel);
      const pfn = mm.alloc(HINT_ORDER, HINT_GFP);
      yield { kind: 'cpu', ns: costs.allocNs + memoryCostNs() };
      if (pfn < 0) return;
      this.#hold(pfn);
      const outcome = yield* round.hint(pfn, HINT_PAGES, this.#kernel.now);
      // No entry free, or another id: the block goes back, and the loop decides what next.
      if (outcome !== HintOutcome.QUEUED) this.#releaseLast();
    }
  }

  release(): void {
    // The list is a stack in Linux too: the block hinted last is freed first.
    while (this.#held.length > 0) this.#releaseLast();
  }

  #hold(pfn: Pfn): void {
    this.#held.push(pfn);
    this.#heldBlocks.add(pfn >>> HINT_ORDER);
    this.counters.held_pages_max = Math.max(this.counters.held_pages_max, this.heldPages);
  }

  #releaseLast(): void {
    const pfn = this.#held.pop()!;
    this.#heldBlocks.delete(pfn >>> HINT_ORDER);
    this.#kernel.mm.free(pfn, HINT_ORDER);
  }
}
