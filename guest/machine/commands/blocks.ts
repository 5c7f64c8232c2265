/** Console commands that take blocks from the page allocator and give them back. */
import { type Errno, errnoName, type Pfn } from '../../../shared/index.ts';
import type { GfpMask } from '../../mm/gfp.ts';
import { Gfp, PageOwner } from '../../mm/index.ts';
import type { Kthread } from '../../sched/kthread.ts';
import type { CommandLine } from '../command-line.ts';
import type { CommandTable } from '../console.ts';
import type { System } from '../system.ts';

/** Single pages that are taken or freed between two requests for CPU time. */
const PAGES_PER_SLICE = 512;

interface Blocks {
  readonly order: number;
  readonly pfns: Pfn[];
}

/** What the console holds of the page allocator, by name. */
export class BlockCommands {
  /** `alloc_attempts_orderN`, `alloc_success_orderN`. */
  readonly counters: Record<string, number> = {};
  readonly #system: System;
  readonly #held = new Map<string, Blocks>();
  #allocated: Blocks[] = [];

  constructor(system: System) {
    this.#system = system;
  }

  get commands(): CommandTable {
    return {
      slab: (args) => this.#slab(args),
      fragment: (args) => this.#fragment(args),
      free: (args) => this.#free(args),
      allocate: (args) => this.#allocate(args),
      free_allocated: () => this.#freeAllocated(),
    };
  }

  *#slab(args: CommandLine): Kthread<string | null> {
    const order = args.number('order', 0);
    const blocks = this.#newBlocks(args, order);
    return yield* this.#take(blocks, args.number('size') >> order, Gfp.GFP_KERNEL);
  }

  /** Single pages as the allocator gives them; all but every n-th go back at once. */
  *#fragment(args: CommandLine): Kthread<string | null> {
    const every = args.number('every');
    const blocks = this.#newBlocks(args, 0);
    const failure = yield* this.#take(blocks, args.number('size'), Gfp.GFP_HIGHUSER);
    if (failure !== null) return failure;
    const given = blocks.pfns.splice(0);
    const goes: Pfn[] = [];
    for (const [index, pfn] of given.entries())
      (index % every === 0 ? blocks.pfns : goes).push(pfn);
    yield* this.#give({ order: 0, pfns: goes });
    return null;
  }

  *#free(args: CommandLine): Kthread<string | null> {
    const name = args.text('name');
    const blocks = this.#held.get(name);
    if (!blocks) return `nothing has the name ${name}`;
    this.#held.delete(name);
    yield* this.#give(blocks);
    return null;
  }

  /** Huge pages as a page fault asks for them; what fails is counted, and no failure of the line. */
  *#allocate(args: CommandLine): Kthread<string | null> {
    const order = args.number('order');
    const blocks: Blocks = { order, pfns: [] };
    this.#allocated.push(blocks);
    for (let i = args.number('count', 1); i > 0; i--) {
      const pfn = yield* this.#allocPages(order, Gfp.GFP_KERNEL, args.cpu);
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

  *#allocPages(order: number, gfp: GfpMask, cpu: number): Kthread<Pfn | Errno> {
    const { mm, kernel } = this.#system;
    yield { kind: 'cpu', ns: kernel.costs.allocNs };
    return mm.alloc(order, gfp, cpu);
  }

  #newBlocks(args: CommandLine, order: number): Blocks {
    const name = args.text('name');
    const blocks = this.#held.get(name) ?? { order, pfns: [] };
    this.#held.set(name, blocks);
    return blocks;
  }

  *#take(blocks: Blocks, count: number, gfp: GfpMask): Kthread<string | null> {
    const { mm, kernel } = this.#system;
    for (let i = 0; i < count; i++) {
      const pfn = mm.alloc(blocks.order, gfp);
      if (pfn < 0) return `${errnoName(pfn as Errno)} after ${i} of ${count} blocks`;
      mm.pages.setOwner(pfn, PageOwner.SLAB);
      blocks.pfns.push(pfn);
      if (i % PAGES_PER_SLICE === 0)
        yield { kind: 'cpu', ns: PAGES_PER_SLICE * kernel.costs.allocNs };
    }
    return null;
  }

  *#give({ order, pfns }: Blocks): Kthread {
    const { mm, kernel } = this.#system;
    for (const [i, pfn] of pfns.entries()) {
      mm.free(pfn, order);
      if (i % PAGES_PER_SLICE === 0)
        yield { kind: 'cpu', ns: PAGES_PER_SLICE * kernel.costs.allocNs };
    }
  }

  #count(name: string, by: number): void {
    this.counters[name] = (this.counters[name] ?? 0) + by;
  }
}
