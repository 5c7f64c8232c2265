/**
 * Leaf page tables of address spaces as movable pages: no folios, on no LRU list, with no mapcount.
 * Each holds 512 entries and hangs below one PMD entry, whose lock guards both. To move one, its PMD
 * entry is cleared and the TLBs are flushed, so that no hardware walk sets a bit in the old table.
 */

import { assert, Errno, type Pfn } from '../../shared/index.ts';
import type { Folios } from '../folio/index.ts';
import type { ContentReader } from '../kernel/content-reader.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { Gfp, PageFlag, PageOwner } from '../mm/index.ts';
import type { MovableGeneration, MovableOps } from '../page-migration/index.ts';
import { type Kthread, preempt } from '../sched/kthread.ts';
import { SpinLock } from '../sched/locks.ts';
import { FrameWords } from './frame-words.ts';
import { releaseWhereItIs } from './release.ts';

export const PTRS_PER_TABLE = 512;
/** An entry: the frame it maps above three bits of the hardware; 0 is none. */
export const PteBits = { PRESENT: 1 << 0, ACCESSED: 1 << 1, DIRTY: 1 << 2, SHIFT: 3 } as const;

const TABLE_GFP = Gfp.GFP_KERNEL | Gfp.__GFP_MOVABLE | Gfp.__GFP_ZERO;
/** As page->mapping names it; the index is the table's number. */
const TABLE_DEVICE = 1;
const IN_ISOLATE = preempt('page table: isolate');
const BEFORE_WALK = preempt('page walk');
const AFTER_COPY = preempt('page table: before the PMD entry is set');

/** What the PMD entry above a leaf table says. */
const Pmd = {
  PRESENT: 0,
  /** Cleared while the table moves: who walks faults, and waits for the lock. */
  MOVING: 1,
  /** Cleared for ever: the table is about to be freed. */
  GONE: 2,
} as const;
type Pmd = (typeof Pmd)[keyof typeof Pmd];

interface LeafTable {
  readonly number: number;
  pfn: Pfn;
  pmd: Pmd;
}

/** One address space: a PMD entry and its lock for each 512 pages. */
export class PageTableSpace {
  readonly leaves: (LeafTable | undefined)[];
  readonly locks: readonly SpinLock[];

  constructor(pageCount: number) {
    const count = Math.ceil(pageCount / PTRS_PER_TABLE);
    this.leaves = new Array<LeafTable | undefined>(count).fill(undefined);
    this.locks = Array.from({ length: count }, (_, i) => new SpinLock(`pmd lock ${i}`));
  }
}

export class PageTables implements MovableOps {
  readonly name = 'page tables';
  readonly counters = {
    nr_page_table_pages: 0,
    table_migrated: 0,
    table_busy: 0,
    table_tlb_flushes: 0,
  };
  readonly #kernel: Kernel;
  readonly #folios: Folios;
  readonly #generation: MovableGeneration;
  readonly #words: FrameWords;
  readonly #spaces = new Set<PageTableSpace>();
  /** By number, with the PMD lock of each; 0 is none. */
  readonly #leaves: ({ leaf: LeafTable; lock: SpinLock } | undefined)[] = [undefined];
  readonly #freeNumbers: number[] = [];

  constructor(kernel: Kernel, folios: Folios, generation: MovableGeneration) {
    this.#kernel = kernel;
    this.#folios = folios;
    this.#generation = generation;
    this.#words = new FrameWords(kernel.ram, PTRS_PER_TABLE);
    const registered = generation.register(PageOwner.TABLE, this);
    assert(registered === Errno.OK, 'page tables are one kind of pages');
  }

  /** An address space for so many pages, without tables. */
  newSpace(pageCount: number): PageTableSpace {
    const space = new PageTableSpace(pageCount);
    this.#spaces.add(space);
    return space;
  }

  /** Sets one entry; makes its table if there is none. ENOMEM: there is no memory for that. */
  *set(space: PageTableSpace, vpn: number, entry: number): Kthread<Errno> {
    const pmd = Math.floor(vpn / PTRS_PER_TABLE);
    const lock = space.locks[pmd]!;
    yield* lock.lock();
    space.leaves[pmd] ??= this.#newLeaf(lock);
    const leaf = space.leaves[pmd];
    if (leaf) this.#words.write(leaf.pfn, vpn % PTRS_PER_TABLE, entry);
    lock.unlock();
    return leaf ? Errno.OK : Errno.ENOMEM;
  }

  /** An entry as software reads it; 0 is none. */
  *get(space: PageTableSpace, vpn: number): Kthread<number> {
    const pmd = Math.floor(vpn / PTRS_PER_TABLE);
    const lock = space.locks[pmd]!;
    yield* lock.lock();
    const leaf = space.leaves[pmd];
    const entry = leaf ? this.#words.read(leaf.pfn, vpn % PTRS_PER_TABLE) : 0;
    lock.unlock();
    return entry;
  }

  /**
   * A vCPU's own walk: without a lock, it sets the bits of an access in the entry. Where the PMD
   * entry is not present it faults and waits for the lock. Returns the entry; 0: none.
   */
  *walk(space: PageTableSpace, vpn: number, isWrite: boolean): Kthread<number> {
    const pmd = Math.floor(vpn / PTRS_PER_TABLE);
    for (;;) {
      yield BEFORE_WALK;
      const leaf = space.leaves[pmd];
      if (!leaf) return 0;
      if (leaf.pmd === Pmd.PRESENT) return this.#access(leaf.pfn, vpn % PTRS_PER_TABLE, isWrite);
      yield* space.locks[pmd]!.lock();
      space.locks[pmd]!.unlock();
    }
  }

  /** free_pgtables: the address space ends, and each of its tables, wherever it is by then. */
  *exit(space: PageTableSpace): Kthread {
    this.#spaces.delete(space);
    for (const [pmd, lock] of space.locks.entries()) {
      yield* lock.lock();
      const leaf = space.leaves[pmd];
      space.leaves[pmd] = undefined;
      if (leaf) leaf.pmd = Pmd.GONE;
      lock.unlock();
      if (!leaf) continue;
      yield* this.#flushTlb();
      const pfn = yield* releaseWhereItIs(this.#generation, () => leaf.pfn);
      this.#words.drop(pfn);
      this.#leaves[leaf.number] = undefined;
      this.#freeNumbers.push(leaf.number);
      this.counters.nr_page_table_pages--;
    }
  }

  *isolatePage(pfn: Pfn): Kthread<boolean> {
    yield IN_ISOLATE;
    return this.#of(pfn)?.leaf.pmd === Pmd.PRESENT;
  }

  /** EAGAIN: somebody holds the PMD lock, or the table is about to be freed. */
  *migratePage(dst: Pfn, src: Pfn): Kthread<Errno> {
    const found = this.#of(src);
    // Released while it was isolated: nothing is left to move.
    if (!found) return Errno.OK;
    const { leaf, lock } = found;
    if (leaf.pmd === Pmd.GONE || !lock.tryLock()) {
      this.counters.table_busy++;
      return Errno.EAGAIN;
    }
    leaf.pmd = Pmd.MOVING;
    yield* this.#flushTlb();
    this.#words.copy(src, dst);
    yield AFTER_COPY;
    this.#words.drop(src);
    this.#generation.transfer(src, dst);
    this.#folios.pages.setMapping(dst, TABLE_DEVICE, leaf.number);
    leaf.pfn = dst;
    leaf.pmd = Pmd.PRESENT;
    this.counters.table_migrated++;
    lock.unlock();
    return Errno.OK;
  }

  *putbackPage(): Kthread {}

  /** Every table of every address space. */
  pages(): Pfn[] {
    return [...this.#spaces].flatMap(({ leaves }) =>
      leaves.flatMap((leaf) => (leaf ? [leaf.pfn] : [])),
    );
  }

  /** Empty when every PMD entry leads to a table that holds what was written. */
  audit(holds: ContentReader): string[] {
    const { pages } = this.#folios;
    const problems: string[] = [];
    for (const { leaves } of this.#spaces) {
      for (const leaf of leaves) {
        if (!leaf) continue;
        const { pfn } = leaf;
        const isTable = pages.owner[pfn] === PageOwner.TABLE && pages.mapcount[pfn] === 0;
        if (pages.isFree(pfn) || !isTable) problems.push(`page ${pfn} is no page table`);
        else if (this.#of(pfn)?.leaf !== leaf) problems.push(`table ${pfn} is of another PMD`);
        if (pages.hasFlag(pfn, PageFlag.LRU)) problems.push(`table ${pfn} is on an LRU list`);
        const content = this.#words.audit(pfn, holds);
        if (content !== null) problems.push(content);
      }
    }
    return problems;
  }

  #access(pfn: Pfn, index: number, isWrite: boolean): number {
    const entry = this.#words.read(pfn, index);
    if ((entry & PteBits.PRESENT) === 0) return 0;
    const bits = isWrite ? PteBits.ACCESSED | PteBits.DIRTY : PteBits.ACCESSED;
    if ((entry & bits) !== bits) this.#words.write(pfn, index, entry | bits);
    return entry | bits;
  }

  #newLeaf(lock: SpinLock): LeafTable | undefined {
    const pfn = this.#kernel.mm.alloc(0, TABLE_GFP);
    if (pfn < 0) return undefined;
    const number = this.#freeNumbers.pop() ?? this.#leaves.length;
    const leaf: LeafTable = { number, pfn, pmd: Pmd.PRESENT };
    this.#leaves[number] = { leaf, lock };
    this.#words.add(pfn);
    this.#generation.adopt(pfn, PageOwner.TABLE, TABLE_DEVICE);
    this.#folios.pages.setMapping(pfn, TABLE_DEVICE, number);
    this.counters.nr_page_table_pages++;
    return leaf;
  }

  *#flushTlb(): Kthread {
    this.counters.table_tlb_flushes++;
    yield { kind: 'cpu', ns: this.#kernel.costs.tlbFlushNs };
  }

  /** Undefined: the page was released. */
  #of(pfn: Pfn): { leaf: LeafTable; lock: SpinLock } | undefined {
    return this.#leaves[this.#folios.pages.mappingIndex(pfn)];
  }
}
