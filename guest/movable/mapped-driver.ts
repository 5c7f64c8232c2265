/**
 * A driver whose pages user space maps and a device reaches by DMA: what a sound card's or a GPU's
 * buffers are. Its page table entries hold neither references nor mapcounts (VM_PFNMAP), so it takes
 * them away itself before a page moves: who touches the page then waits until it is mapped again.
 */

import { assert, Errno, type Pfn } from '../../shared/index.ts';
import type { Folios } from '../folio/index.ts';
import type { ContentReader } from '../kernel/content-reader.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { Gfp, PageOwner } from '../mm/index.ts';
import type { MovableGeneration, MovableOps } from '../page-migration/index.ts';
import { type Kthread, preempt, WaitQueue } from '../sched/kthread.ts';
import { SpinLock } from '../sched/locks.ts';
import { releaseWhereItIs } from './release.ts';

const BUFFER_GFP = Gfp.GFP_HIGHUSER | Gfp.__GFP_MOVABLE | Gfp.__GFP_ZERO;
/** The only device of its kind, as page->mapping names it; the index is the page's number. */
const MAPPED_DEVICE = 1;
const AFTER_COPY = preempt('mapped driver: before the copy is mapped');
const BEFORE_STORE = preempt('mapped driver: user store');

/** Page table entry of a page. */
const Pte = { NONE: 0, PRESENT: 1, MIGRATION: 2 } as const;
type Pte = (typeof Pte)[keyof typeof Pte];

/** One page of a file: where it is, who may reach it. */
interface MappedPage {
  readonly number: number;
  pfn: Pfn;
  pte: Pte;
  /** Transfers of the device that are under way. */
  dmaCount: number;
  /** What RAM says since the last store. */
  tag: number;
}

/** An open file of the device, mapped as a whole. */
export interface MappedFile {
  readonly pages: MappedPage[];
}

export class MappedDriver implements MovableOps {
  readonly name = 'mapped driver';
  readonly counters = {
    mapped_pages: 0,
    mapped_migrated: 0,
    mapped_dma_busy: 0,
    mapped_tlb_flushes: 0,
  };
  readonly #kernel: Kernel;
  readonly #folios: Folios;
  readonly #generation: MovableGeneration;
  /** Guards page table entries and transfers. */
  readonly #lock = new SpinLock('mapped driver lock');
  /** A migration entry became something else, or a transfer has ended. */
  readonly #changed = new WaitQueue();
  readonly #files = new Set<MappedFile>();
  /** By number; 0 is none. */
  readonly #pages: (MappedPage | undefined)[] = [undefined];
  readonly #freeNumbers: number[] = [];

  constructor(kernel: Kernel, folios: Folios, generation: MovableGeneration) {
    this.#kernel = kernel;
    this.#folios = folios;
    this.#generation = generation;
    const registered = generation.register(PageOwner.DRIVER, this);
    assert(registered === Errno.OK, 'a machine has one driver of mapped pages');
  }

  /** Allocates and maps so many pages. Null: there is not enough memory. */
  open(pageCount: number): MappedFile | null {
    const { mm } = this.#kernel;
    const pfns: Pfn[] = [];
    while (pfns.length < pageCount) {
      const pfn = mm.alloc(0, BUFFER_GFP);
      if (pfn < 0) {
        for (const taken of pfns) mm.free(taken, 0);
        return null;
      }
      pfns.push(pfn);
    }
    const file = { pages: pfns.map((pfn) => this.#newPage(pfn)) };
    this.#files.add(file);
    this.counters.mapped_pages += pageCount;
    return file;
  }

  /** Unmaps everything at once; frees the pages after the transfers that are under way. */
  *close(file: MappedFile): Kthread {
    yield* this.#lock.lock();
    assert(this.#files.delete(file), 'a file is closed once');
    for (const page of file.pages) page.pte = Pte.NONE;
    this.#lock.unlock();
    this.#changed.wake();
    yield* this.#flushTlb();
    for (const page of file.pages) {
      while (page.dmaCount > 0) yield { kind: 'wait', queue: this.#changed };
      yield* releaseWhereItIs(this.#generation, () => page.pfn);
      this.#pages[page.number] = undefined;
      this.#freeNumbers.push(page.number);
    }
    this.counters.mapped_pages -= file.pages.length;
  }

  /** A store of user space. False: the file was closed (SIGBUS). Waits while the page moves. */
  *store(file: MappedFile, index: number): Kthread<boolean> {
    const page = file.pages[index]!;
    yield BEFORE_STORE;
    if (!(yield* this.#waitPresent(page))) return false;
    this.#kernel.ram.write(page.pfn);
    page.tag = this.#kernel.ram.tags[page.pfn]!;
    return true;
  }

  /** The device begins a transfer: until `endDma` the page stays where it is. False: it was closed. */
  *beginDma(file: MappedFile, index: number): Kthread<boolean> {
    const page = file.pages[index]!;
    for (;;) {
      if (!(yield* this.#waitPresent(page))) return false;
      yield* this.#lock.lock();
      const isPresent = page.pte === Pte.PRESENT;
      if (isPresent) page.dmaCount++;
      this.#lock.unlock();
      if (isPresent) return true;
    }
  }

  endDma(file: MappedFile, index: number): void {
    const page = file.pages[index]!;
    assert(page.dmaCount > 0, 'a transfer that ends had begun');
    page.dmaCount--;
    this.#changed.wake();
  }

  *isolatePage(pfn: Pfn): Kthread<boolean> {
    yield* this.#lock.lock();
    const isOurs = this.#pageOf(pfn) !== undefined;
    this.#lock.unlock();
    return isOurs;
  }

  /** EAGAIN: the device uses the page. */
  *migratePage(dst: Pfn, src: Pfn): Kthread<Errno> {
    yield* this.#lock.lock();
    const page = this.#pageOf(src);
    const isBusy = page !== undefined && page.dmaCount > 0;
    if (page && !isBusy && page.pte === Pte.PRESENT) page.pte = Pte.MIGRATION;
    this.#lock.unlock();
    if (isBusy) {
      this.counters.mapped_dma_busy++;
      return Errno.EAGAIN;
    }
    // Closed, and the page released: nothing is left to move.
    if (!page) return Errno.OK;
    // From here on no store goes to the page: none is lost between the copy and the new mapping.
    yield* this.#flushTlb();
    this.#kernel.ram.copy(src, dst);
    yield AFTER_COPY;
    yield* this.#lock.lock();
    if (this.#pageOf(src) !== undefined) this.#remap(page, dst);
    this.#lock.unlock();
    this.#changed.wake();
    return Errno.OK;
  }

  *putbackPage(): Kthread {}

  /** Where the file's pages are now. */
  pfnsOf(file: MappedFile): Pfn[] {
    return file.pages.map((page) => page.pfn);
  }

  /** Empty when every page of an open file is the driver's and holds what was stored last. */
  audit(holds: ContentReader): string[] {
    const { pages } = this.#folios;
    const problems: string[] = [];
    for (const file of this.#files) {
      for (const page of file.pages) {
        const { pfn } = page;
        const isOurs = pages.owner[pfn] === PageOwner.DRIVER && this.#pageOf(pfn) === page;
        if (pages.isFree(pfn) || !isOurs) problems.push(`mapped page ${pfn} is not its driver’s`);
        if (!holds(pfn, page.tag)) {
          const tag = this.#kernel.ram.tags[pfn];
          problems.push(`mapped page ${pfn} holds ${tag}, user space stored ${page.tag}`);
        }
        if (page.dmaCount > 0 && page.pte === Pte.MIGRATION) {
          problems.push(`mapped page ${pfn} moves while the device uses it`);
        }
      }
    }
    return problems;
  }

  /** Under the lock: a page of a closed file moves, too, but nobody maps it. */
  #remap(page: MappedPage, dst: Pfn): void {
    this.#generation.transfer(page.pfn, dst);
    this.#folios.pages.setMapping(dst, MAPPED_DEVICE, page.number);
    page.pfn = dst;
    if (page.pte === Pte.MIGRATION) page.pte = Pte.PRESENT;
    this.counters.mapped_migrated++;
  }

  *#waitPresent(page: MappedPage): Kthread<boolean> {
    while (page.pte === Pte.MIGRATION) yield { kind: 'wait', queue: this.#changed };
    return page.pte === Pte.PRESENT;
  }

  *#flushTlb(): Kthread {
    this.counters.mapped_tlb_flushes++;
    yield { kind: 'cpu', ns: this.#kernel.costs.tlbFlushNs };
  }

  #newPage(pfn: Pfn): MappedPage {
    const number = this.#freeNumbers.pop() ?? this.#pages.length;
    const page: MappedPage = { number, pfn, pte: Pte.PRESENT, dmaCount: 0, tag: 0 };
    page.tag = this.#kernel.ram.tags[pfn]!;
    this.#generation.adopt(pfn, PageOwner.DRIVER, MAPPED_DEVICE);
    this.#folios.pages.setMapping(pfn, MAPPED_DEVICE, number);
    this.#pages[number] = page;
    return page;
  }

  /** Undefined: the page was released. */
  #pageOf(pfn: Pfn): MappedPage | undefined {
    return this.#pages[this.#folios.pages.mappingIndex(pfn)];
  }
}
