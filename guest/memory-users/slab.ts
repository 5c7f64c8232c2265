/**
 * Memory of the kernel itself (linux mm/slab.h in the coarse): blocks that cannot be moved, and that
 * stand in the way of whoever needs larger ones.
 */
import { Errno, type Pfn, type Prng } from '../../shared/index.ts';
import type { Memory, ReferenceHolder } from '../folio/index.ts';
import { startMemoryCost } from '../kernel/memory-cost.ts';
import { Gfp, type GfpMask, PageOwner } from '../mm/index.ts';
import type { Kthread } from '../sched/kthread.ts';

/** Blocks that are taken without giving up the vCPU. */
const BLOCKS_PER_SLICE = 256;

export interface KernelMemoryOptions {
  readonly order: number;
  readonly type: 'unmovable' | 'reclaimable';
}

export class KernelMemory implements ReferenceHolder {
  readonly order: number;
  readonly #gfp: GfpMask;
  readonly #memory: Memory;
  readonly #blocks: Pfn[] = [];

  constructor(memory: Memory, { order, type }: KernelMemoryOptions) {
    this.order = order;
    this.#gfp = Gfp.GFP_KERNEL | (type === 'reclaimable' ? Gfp.__GFP_RECLAIMABLE : 0);
    this.#memory = memory;
  }

  get blockCount(): number {
    return this.#blocks.length;
  }

  /** Takes so many more blocks, and writes to them. ENOMEM: it has as many as there were. */
  *alloc(blockCount: number, cpu = 0): Kthread<Errno> {
    const { kernel, source } = this.#memory;
    let memoryCostNs = startMemoryCost(kernel);
    for (let i = 1; i <= blockCount; i++) {
      let pfn = source.tryAlloc(this.order, this.#gfp, cpu);
      if (pfn < 0) pfn = yield* source.allocPages(this.order, this.#gfp, cpu);
      if (pfn < 0) return pfn as Errno;
      kernel.mm.pages.setOwner(pfn, PageOwner.SLAB);
      for (let page = pfn; page < pfn + (1 << this.order); page++) kernel.ram.write(page);
      this.#blocks.push(pfn);
      if (i % BLOCKS_PER_SLICE !== 0) continue;
      yield { kind: 'cpu', ns: BLOCKS_PER_SLICE * kernel.costs.allocNs + memoryCostNs() };
      memoryCostNs = startMemoryCost(kernel);
    }
    return Errno.OK;
  }

  /** Frees all blocks but every n-th of those that are there, in the order of allocation. */
  freeAllBut(every: number, cpu = 0): void {
    let kept = 0;
    for (const [i, pfn] of this.#blocks.entries()) {
      if (i % every === 0) this.#blocks[kept++] = pfn;
      else this.#free(pfn, cpu);
    }
    this.#blocks.length = kept;
  }

  /** Frees so many blocks, drawn by lot. */
  freeSome(blockCount: number, prng: Prng, cpu = 0): void {
    for (let i = 0; i < blockCount && this.#blocks.length > 0; i++) {
      const at = prng.below(this.#blocks.length);
      const pfn = this.#blocks[at]!;
      this.#blocks[at] = this.#blocks.at(-1)!;
      this.#blocks.pop();
      this.#free(pfn, cpu);
    }
  }

  freeAll(cpu = 0): void {
    for (const pfn of this.#blocks.splice(0)) this.#free(pfn, cpu);
  }

  countReferences(into: Int32Array): void {
    for (const pfn of this.#blocks) into[pfn]!++;
  }

  #free(pfn: Pfn, cpu: number): void {
    this.#memory.folios.put(pfn, cpu);
  }
}
