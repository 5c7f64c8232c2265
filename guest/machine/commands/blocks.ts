/** Console commands that take blocks from the page allocator. */
import { type Errno, errnoName, type Pfn } from '../../../shared/index.ts';
import type { GfpMask } from '../../mm/gfp.ts';
import { Gfp, PageOwner } from '../../mm/index.ts';
import type { Kthread } from '../../sched/kthread.ts';
import type { CommandLine } from '../command-line.ts';
import type { CommandTable } from '../console.ts';
import type { System } from '../system.ts';
import type { Held } from './held.ts';

/** Blocks that are taken or freed between two requests for CPU time. */
const BLOCKS_PER_SLICE = 512;

interface Blocks {
  readonly order: number;
  readonly pfns: Pfn[];
}

export class BlockCommands {
  /** `alloc_attempts_orderN`, `alloc_success_orderN`. */
  readonly counters: Record<string, number> = {};
  readonly #system: System;
  readonly #held: Held;
  #allocated: Blocks[] = [];

  constructor(system: System, held: Held) {
    this.#system = system;
    this.#held = held;
  }

  get commands(): CommandTable {
    return {
      slab: (args) => this.#slab(args),
      fragment: (args) => this.#fragment(args),
      allocate: (args) => this.#allocate(args),
      free_allocated: () => this.#freeAllocated(),
    };
  }

  *#slab(args: CommandLine): Kthread<string | null> {
    const name = this.#held.newName(args);
    const order = args.order(0);
    const blocks: Blocks = { order, pfns: [] };
    this.#held.add(name, () => this.#give(blocks));
    return yield* this.#take(blocks, args.number('size') >> order, Gfp.GFP_KERNEL);
  }

  /**
   * Single pages of user space as the allocator gives them, on no LRU list: nothing can move them.
   * All but every n-th go back at once.
   */
  *#fragment(args: CommandLine): Kthread<string | null> {
    const name = this.#held.newName(args);
    const keepEvery = args.number('keep_every');
    const blocks: Blocks = { order: 0, pfns: [] };
    this.#held.add(name, () => this.#give(blocks));
    const failure = yield* this.#take(blocks, args.number('size'), Gfp.GFP_HIGHUSER_MOVABLE);
    if (failure !== null) return failure;
    const given = blocks.pfns.splice(0);
    const returned: Blocks = { order: 0, pfns: [] };
    for (const [index, pfn] of given.entries()) {
      (index % keepEvery === 0 ? blocks : returned).pfns.push(pfn);
    }
    yield* this.#give(returned);
    return null;
  }

  /** What fails is counted, and is no failure of the line. */
  *#allocate(args: CommandLine): Kthread<string | null> {
    const order = args.order();
    const { users, kernel } = this.#system;
    const blocks: Blocks = { order, pfns: [] };
    this.#allocated.push(blocks);
    for (let i = args.number('count', 1); i > 0; i--) {
      yield { kind: 'cpu', ns: kernel.costs.allocNs };
      const pfn = yield* users.source.allocPages(order, Gfp.GFP_KERNEL, args.cpu);
      this.#count(`alloc_attempts_order${order}`, 1);
      this.#count(`alloc_success_order${order}`, pfn < 0 ? 0 : 1);
      if (pfn >= 0) blocks.pfns.push(pfn);
    }
    return null;
  }

  *#freeAllocated(): Kthread<string | null> {
    const allocated = this.#allocated;
    this.#allocated = [];
    for (const blocks of allocated) yield* this.#give(blocks);
    return null;
  }

  *#take(blocks: Blocks, count: number, gfp: GfpMask): Kthread<string | null> {
    const { mm } = this.#system;
    for (let i = 0; i < count; i++) {
      const pfn = mm.alloc(blocks.order, gfp);
      if (pfn < 0) return `${errnoName(pfn as Errno)} after ${i} of ${count} blocks`;
      mm.pages.setOwner(pfn, gfp === Gfp.GFP_KERNEL ? PageOwner.SLAB : PageOwner.USER);
      blocks.pfns.push(pfn);
      yield* this.#spend(i);
    }
    return null;
  }

  *#give({ order, pfns }: Blocks): Kthread {
    const { mm } = this.#system;
    for (const [i, pfn] of pfns.entries()) {
      mm.free(pfn, order);
      yield* this.#spend(i);
    }
  }

  *#spend(index: number): Kthread {
    if (index % BLOCKS_PER_SLICE !== 0) return;
    yield { kind: 'cpu', ns: BLOCKS_PER_SLICE * this.#system.kernel.costs.allocNs };
  }

  #count(name: string, by: number): void {
    this.counters[name] = (this.counters[name] ?? 0) + by;
  }
}
