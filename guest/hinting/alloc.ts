/**
 * What Linux merged in 4.20 (drivers/virtio/virtio_balloon.c, get_free_page_and_send): allocate
 * blocks of the largest order without any reclaim, hint each, hold them all until DONE or until the
 * shrinker wants them back, which is safe for the page only if the device has seen the hint by then.
 * `alloc-ack` (HINT_WAIT_ON_ACK, proposed in 2026) waits for that before a block can be given back.
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
  readonly name: 'alloc' | 'alloc-ack';
  /** Until DONE; only its shrinker gives blocks back earlier. */
  readonly holds = true;
  readonly refills = true;
  readonly counters = { held_pages_max: 0, hint_shrunk_pages: 0 };
  readonly #kernel: Kernel;
  /** free_page_list: what DONE and the shrinker give back, the last one first. */
  readonly #held: Pfn[] = [];
  /** The blocks of `#held`, by number. */
  readonly #heldBlocks = new Set<number>();
  /** Allocated and not yet on the list, or −1. */
  #inFlight: Pfn = -1;

  constructor(kernel: Kernel, name: 'alloc' | 'alloc-ack') {
    this.#kernel = kernel;
    this.name = name;
  }

  get waitsOnAck(): boolean {
    return this.name === 'alloc-ack';
  }

  get heldPages(): number {
    return (this.#held.length + (this.#inFlight < 0 ? 0 : 1)) * HINT_PAGES;
  }

  isHeld(pfn: Pfn): boolean {
    const block = pfn >>> HINT_ORDER;
    return (
      this.#heldBlocks.has(block) ||
      (this.#inFlight >= 0 && this.#inFlight >>> HINT_ORDER === block)
    );
  }

  writeHeldSet(into: Bitmap): void {
    for (const pfn of this.#held) into.setRange(pfn, HINT_PAGES);
    if (this.#inFlight >= 0) into.setRange(this.#inFlight, HINT_PAGES);
  }

  *run(round: HintRound): Kthread {
    const { costs, mm, plants } = this.#kernel;
    const waits = round.waitsOnAck && !plants.hintDiscardsWithoutAck;
    // Linux checks the command id before each block, and stops when an allocation fails.
    while (yield* round.active()) {
      const memoryCostNs = startMemoryCost(this.#kernel);
      const pfn = mm.alloc(HINT_ORDER, HINT_GFP);
      this.#inFlight = pfn < 0 ? -1 : pfn;
      this.counters.held_pages_max = Math.max(this.counters.held_pages_max, this.heldPages);
      yield { kind: 'cpu', ns: costs.allocNs + memoryCostNs() };
      if (pfn < 0) return;
      const outcome = yield* round.hint(pfn, HINT_PAGES, this.#kernel.now);
      if (outcome === HintOutcome.QUEUED && waits) yield* round.used();
      this.#inFlight = -1;
      // No entry free, or another id: the block goes back, and the loop decides what next.
      if (outcome === HintOutcome.QUEUED) this.#hold(pfn);
      else mm.free(pfn, HINT_ORDER);
    }
  }

  release(): void {
    while (this.#held.length > 0) this.#releaseLast();
  }

  /** The shrinker "virtio-balloon": whole blocks, rounded up, as long as there are any. */
  shrink(pages: number): number {
    const blocks = Math.min(this.#held.length, Math.ceil(pages / HINT_PAGES));
    for (let i = 0; i < blocks; i++) this.#releaseLast();
    this.counters.hint_shrunk_pages += blocks * HINT_PAGES;
    return blocks * HINT_PAGES;
  }

  #hold(pfn: Pfn): void {
    this.#held.push(pfn);
    this.#heldBlocks.add(pfn >>> HINT_ORDER);
  }

  #releaseLast(): void {
    const pfn = this.#held.pop()!;
    this.#heldBlocks.delete(pfn >>> HINT_ORDER);
    this.#kernel.mm.free(pfn, HINT_ORDER);
  }
}
