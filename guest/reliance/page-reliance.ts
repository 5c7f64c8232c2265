/**
 * Who relies on what a page holds: the one predicate behind lost and broken pages. It is asked when a
 * guest has arrived at its destination, after the host has discarded pages, and by the explorer.
 */
import { Bitmap, type Pfn } from '../../shared/index.ts';
import { type PageAllocator, PageFlag, PageOwner } from '../mm/index.ts';

export const Reliance = {
  /** Nobody: its next user does not expect anything, or it is not the guest's to use. */
  NONE: 0,
  /** Its user relies on what was written there. */
  CONTENTS: 1,
  /** It is free, and the next allocation takes it to hold what freed pages hold. */
  FREED: 2,
} as const;
export type Reliance = (typeof Reliance)[keyof typeof Reliance];

/** Pages that somebody keeps from the allocator and gives back through it. */
interface Holder {
  isHeld?(pfn: Pfn): boolean;
  writeHeldSet?(into: Bitmap): void;
}

export interface RelianceWitnesses {
  readonly mm: PageAllocator;
  /** One bit per page: in use, and not written since it was allocated without content. */
  readonly undefinedPages: Bitmap;
  /** The hinting strategy, if there is one. */
  readonly strategy: Holder | null;
}

/** Given to the hypervisor by the guest's own books, or out of use for good. */
const NOBODYS = PageFlag.OFFLINE | PageFlag.HWPOISON;
/** Isolated from the free lists, and put back there without passing the allocator. */
const ISOLATED_FREE: ReadonlySet<number> = new Set([PageOwner.REPORTING, PageOwner.COMPACTION]);

export class PageReliance {
  readonly #of: RelianceWitnesses;

  constructor(witnesses: RelianceWitnesses) {
    this.#of = witnesses;
  }

  of(pfn: Pfn): Reliance {
    const { mm, strategy, undefinedPages } = this.#of;
    const { pages } = mm;
    if (pages.isFree(pfn)) return this.#ofFree();
    const head = pages.headOf(pfn);
    if (pages.hasFlag(head, NOBODYS) || pages.owner[head] === PageOwner.POISONED) {
      return Reliance.NONE;
    }
    if (ISOLATED_FREE.has(pages.owner[head]!)) return this.#ofFree();
    if (strategy?.isHeld?.(pfn) || undefinedPages.get(pfn)) return Reliance.NONE;
    return Reliance.CONTENTS;
  }

  /**
   * The same for all pages at once: `contents` and `freed` are overwritten. Returns how many pages in
   * use are undefined.
   */
  write(contents: Bitmap, freed: Bitmap): number {
    const { mm, strategy, undefinedPages } = this.#of;
    const { pages } = mm;
    freed.clearAll();
    const trusts = mm.freedContent !== null;
    if (trusts) mm.writeFreeSet(freed);
    contents.clearAll();
    for (let pfn = 0; pfn < pages.ramPages; pfn += 1 << pages.order[pfn]!) {
      if (!pages.hasFlag(pfn, PageFlag.ALLOCATED)) continue;
      const owner = pages.owner[pfn]!;
      if (pages.hasFlag(pfn, NOBODYS) || owner === PageOwner.POISONED) continue;
      if (!ISOLATED_FREE.has(owner)) contents.setRange(pfn, 1 << pages.order[pfn]!);
      else if (trusts) freed.setRange(pfn, 1 << pages.order[pfn]!);
    }
    const held = new Bitmap(contents.bitCount);
    strategy?.writeHeldSet?.(held);
    contents.andNot(held);
    const undefinedCount = contents.countAnd(undefinedPages);
    contents.andNot(undefinedPages);
    return undefinedCount;
  }

  #ofFree(): Reliance {
    return this.#of.mm.freedContent === null ? Reliance.NONE : Reliance.FREED;
  }
}
