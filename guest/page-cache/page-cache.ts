/**
 * Page cache of a file, or shared memory (linux mm/filemap.c, mm/shmem.c): pages by index, with a
 * reference of the cache each. What a file holds is kept beside it, so that its content can be
 * checked after the page was dropped and read again.
 */
import { assert, Errno, type Pfn } from '../../shared/index.ts';
import type { Mapping, Memory, ReferenceHolder } from '../folio/index.ts';
import { startMemoryCost } from '../kernel/memory-cost.ts';
import { Gfp, MAPPING_INDEX_MAX, PageFlag, PageOwner, type Pages } from '../mm/index.ts';
import { FileRmap } from '../rmap/file-rmap.ts';
import type { Kthread } from '../sched/kthread.ts';
import type { Writeback } from './writeback.ts';

const NONE = -1;
/** VM_READAHEAD_PAGES: 128 KiB a request. */
const READAHEAD_PAGES = 32;
/** Pages that are written to without giving up the vCPU. */
const WRITES_PER_SLICE = 256;

/** What the page cache needs besides: where dirty pages are written. */
export interface FileMemory extends Memory {
  readonly writeback: Writeback;
}

export interface AddressSpaceOptions {
  readonly name: string;
  readonly kind: 'file' | 'shmem';
  readonly sizePages: number;
  /** Whether its filesystem can move dirty pages; default: only shared memory can. */
  readonly migratesDirty?: boolean;
}

export class AddressSpace implements Mapping, ReferenceHolder {
  readonly name: string;
  readonly kind: 'file' | 'shmem';
  readonly sizePages: number;
  readonly cacheReferences = 1;
  readonly migratesDirty: boolean;
  /** As `Pages.mapping` names it. */
  readonly number: number;
  /** Pages in the cache: mapping->nrpages. */
  nrPages = 0;
  /** Entries of processes that map it. */
  readonly rmap: FileRmap;
  readonly #memory: FileMemory;
  readonly #pages: Pages;
  /** Frame of each index, or NONE. */
  readonly #slots: Int32Array;
  /** Content tag of each index on storage; 0: never written or read. */
  readonly #stored: Uint32Array;
  #isRemoved = false;

  constructor(memory: FileMemory, options: AddressSpaceOptions) {
    const { sizePages } = options;
    assert(sizePages > 0 && sizePages <= MAPPING_INDEX_MAX, 'a file has pages, but not too many');
    this.name = options.name;
    this.kind = options.kind;
    this.sizePages = sizePages;
    this.migratesDirty = options.migratesDirty ?? options.kind === 'shmem';
    this.#memory = memory;
    this.#pages = memory.folios.pages;
    this.#slots = new Int32Array(sizePages).fill(NONE);
    this.#stored = new Uint32Array(options.kind === 'file' ? sizePages : 0);
    this.rmap = new FileRmap(memory.folios);
    this.number = memory.folios.mappings.add(this);
  }

  /** The frame of a page in the cache, or −1. */
  pfnAt(index: number): Pfn {
    return this.#slots[index]!;
  }

  /** As `pfnAt`, but −1 also while the page is locked: being read, moved or truncated. */
  settledPfnAt(index: number): Pfn {
    const pfn = this.#slots[index]!;
    return pfn !== NONE && this.#memory.folios.locks.isLocked(pfn) ? NONE : pfn;
  }

  /** filemap_dirty_folio, noop_dirty_folio: shared memory is never written back, so not counted. */
  markDirty(pfn: Pfn): void {
    if (!this.#pages.testAndSet(pfn, PageFlag.DIRTY) || this.kind === 'shmem') return;
    this.#memory.kernel.mm.vmstat.nr_dirty++;
  }

  /**
   * The page at an index, in the cache and readable, with a reference for the caller. ENOMEM: no
   * memory for it; ENOENT: the file was removed.
   */
  *getPage(index: number, cpu = 0): Kthread<Pfn | Errno> {
    for (;;) {
      const pfn = this.settledPfnAt(index);
      if (pfn !== NONE) {
        this.#pages.refcount[pfn]!++;
        return pfn;
      }
      if (this.kind === 'file' && this.#slots[index] === NONE) {
        this.#memory.kernel.mm.vmstat.pgmajfault++;
      }
      const outcome = yield* this.#bringIn(index, index + 1, cpu);
      if (outcome !== Errno.OK) return outcome;
    }
  }

  /** The page at an index, if it can be had without waiting, or −1: for faults in bulk. */
  pageNow(index: number, cpu: number): Pfn {
    if (this.kind === 'file' || this.#slots[index] !== NONE) return this.settledPfnAt(index);
    const pfn = this.#memory.source.tryAlloc(0, this.#gfp, cpu);
    if (pfn < 0) return NONE;
    this.#insert(pfn, index);
    return pfn;
  }

  /** read(2): pages come into the cache by readahead. Returns as `getPage`. */
  *read(start: number, count: number, cpu = 0): Kthread<Errno> {
    const end = start + count;
    for (let index = start; index < end; ) {
      const pfn = this.settledPfnAt(index);
      if (pfn !== NONE) {
        this.#memory.folios.markAccessed(pfn);
        index++;
        continue;
      }
      const outcome = yield* this.#bringIn(index, Math.min(end, index + READAHEAD_PAGES), cpu);
      if (outcome !== Errno.OK) return outcome;
    }
    return Errno.OK;
  }

  /** write(2) of whole pages: they need not be read first. Returns as `getPage`. */
  *write(start: number, count: number, cpu = 0): Kthread<Errno> {
    const { kernel, folios } = this.#memory;
    let memoryCostNs = startMemoryCost(kernel);
    for (let index = start; index < start + count; index++) {
      const pfn = yield* this.#pageToWrite(index, cpu);
      if (pfn < 0) return pfn as Errno;
      kernel.ram.write(pfn);
      this.markDirty(pfn);
      folios.markAccessed(pfn);
      if ((index - start) % WRITES_PER_SLICE !== WRITES_PER_SLICE - 1) continue;
      yield { kind: 'cpu', ns: WRITES_PER_SLICE * kernel.costs.allocNs + memoryCostNs() };
      memoryCostNs = startMemoryCost(kernel);
    }
    return Errno.OK;
  }

  /** fsync: begins to write every dirty page of the range, and waits for all of them. */
  *sync(start = 0, count = this.sizePages): Kthread {
    if (this.kind === 'shmem') return;
    for (let index = start; index < start + count; index++) {
      const pfn = this.#slots[index]!;
      if (pfn === NONE || !this.#pages.hasFlag(pfn, PageFlag.DIRTY)) continue;
      if (!(yield* this.#lockPage(index))) continue;
      const locked = this.#slots[index]!;
      // As SYNC: a page that is under way already is written again afterwards.
      yield* this.#memory.folios.locks.waitWriteback(locked);
      this.#startWriting(locked, index, false);
      this.#memory.folios.locks.unlock(locked);
    }
    for (let index = start; index < start + count; index++) {
      const pfn = this.#slots[index]!;
      if (pfn === NONE || !this.#pages.hasFlag(pfn, PageFlag.WRITEBACK)) continue;
      this.#pages.refcount[pfn]!++;
      yield* this.#memory.folios.locks.waitWriteback(pfn);
      this.#memory.folios.put(pfn);
    }
  }

  /** truncate_inode_pages: the pages leave the cache, written or not, and are unmapped. */
  *truncate(start = 0, count = this.sizePages): Kthread {
    const { folios } = this.#memory;
    for (let index = start; index < start + count; index++) {
      if (this.#slots[index] === NONE || !(yield* this.#lockPage(index))) continue;
      const pfn = this.#slots[index]!;
      yield* folios.locks.waitWriteback(pfn);
      this.rmap.unmapAll(pfn, index);
      this.#remove(pfn, index);
      if (this.kind === 'file') this.#stored[index] = 0;
      folios.locks.unlock(pfn);
      folios.put(pfn);
    }
  }

  /** The last link to it is gone. EBUSY: a process maps it. */
  *remove(): Kthread<Errno> {
    if (this.rmap.isMapped) return Errno.EBUSY;
    this.#isRemoved = true;
    yield* this.truncate();
    this.#memory.folios.mappings.remove(this.number);
    return Errno.OK;
  }

  unmapForMigration(pfn: Pfn, index: number): void {
    this.rmap.unmapForMigration(pfn, index);
  }

  removeMigrationPtes(from: Pfn, to: Pfn, index: number): void {
    this.rmap.removeMigrationPtes(from, to, index);
  }

  replace(_from: Pfn, to: Pfn, index: number): void {
    this.#slots[index] = to;
  }

  tryToDrop(pfn: Pfn, index: number): boolean {
    const pages = this.#pages;
    const isBusy = pages.hasFlag(pfn, PageFlag.DIRTY | PageFlag.WRITEBACK);
    const expected = pages.mapcount[pfn]! + this.cacheReferences + 1;
    if (this.kind === 'shmem' || isBusy || pages.refcount[pfn] !== expected) return false;
    this.rmap.unmapAll(pfn, index);
    this.#remove(pfn, index);
    this.#memory.folios.put(pfn);
    return true;
  }

  referenced(pfn: Pfn, index: number): number {
    return this.rmap.referenced(pfn, index);
  }

  writepage(pfn: Pfn, index: number): boolean {
    if (this.kind === 'shmem' || this.#pages.hasFlag(pfn, PageFlag.WRITEBACK)) return false;
    this.#startWriting(pfn, index, true);
    return true;
  }

  countReferences(into: Int32Array): void {
    for (const pfn of this.#slots) if (pfn !== NONE) into[pfn]!++;
  }

  /** What the page at an index must hold while it is clean; 0: nothing was stored yet. */
  storedTag(index: number): number {
    return this.#stored[index] ?? 0;
  }

  /** The page at an index, locked and not in use by another writer for as long as nobody yields. */
  *#pageToWrite(index: number, cpu: number): Kthread<Pfn | Errno> {
    for (;;) {
      const pfn = this.settledPfnAt(index);
      if (pfn !== NONE) return pfn;
      if (this.#slots[index] !== NONE) {
        yield* this.#waitUnlocked(index);
        continue;
      }
      const fresh = yield* this.#allocPage(cpu);
      if (fresh < 0) return fresh;
      // Somebody else may have been faster.
      if (this.#slots[index] === NONE) this.#insert(fresh, index);
      else this.#memory.folios.put(fresh, cpu);
    }
  }

  /**
   * Reads the pages of a range that are not in the cache, up to the first that is. OK also if there
   * was nothing to do but to wait for somebody else's I/O.
   */
  *#bringIn(start: number, end: number, cpu: number): Kthread<Errno> {
    if (this.#slots[start] !== NONE) {
      yield* this.#waitUnlocked(start);
      return Errno.OK;
    }
    const first = yield* this.#allocPage(cpu);
    if (first < 0) return first as Errno;
    if (this.#slots[start] !== NONE) {
      this.#memory.folios.put(first, cpu);
      return Errno.OK;
    }
    this.#insertLocked(first, start);
    let next = start + 1;
    while (next < end && this.#slots[next] === NONE) {
      // Readahead is not worth waiting for memory.
      const pfn = this.#memory.source.tryAlloc(0, this.#gfp, cpu);
      if (pfn < 0) break;
      this.#insertLocked(pfn, next++);
    }
    yield* this.#readIn(start, next);
    return Errno.OK;
  }

  /** Fills locked pages of ours, which therefore stay where they are, and unlocks them. */
  *#readIn(start: number, end: number): Kthread {
    const { kernel, writeback, folios } = this.#memory;
    const memoryCostNs = startMemoryCost(kernel);
    if (this.kind === 'file') {
      yield { kind: 'sleep', ns: writeback.requestNs(end - start) };
      for (let index = start; index < end; index++) this.#load(this.#slots[index]!, index);
    }
    yield { kind: 'cpu', ns: (end - start) * kernel.costs.allocNs + memoryCostNs() };
    for (let index = start; index < end; index++) folios.locks.unlock(this.#slots[index]!);
  }

  /** The first read of a file finds something there; every later one finds the same. */
  #load(pfn: Pfn, index: number): void {
    const { ram } = this.#memory.kernel;
    if (this.#stored[index] !== 0) {
      ram.setRecord(pfn, this.#stored[index]!);
      return;
    }
    ram.write(pfn);
    this.#stored[index] = ram.tags[pfn]!;
  }

  get #gfp(): number {
    // Shared memory that was never written reads as zero.
    const zero = this.kind === 'shmem' ? Gfp.__GFP_ZERO : 0;
    return Gfp.GFP_HIGHUSER_MOVABLE | zero;
  }

  *#allocPage(cpu: number): Kthread<Pfn | Errno> {
    const pfn = yield* this.#memory.source.allocPages(0, this.#gfp, cpu);
    if (!this.#isRemoved) return pfn;
    if (pfn >= 0) this.#memory.folios.put(pfn, cpu);
    return Errno.ENOENT;
  }

  #insertLocked(pfn: Pfn, index: number): void {
    this.#insert(pfn, index);
    this.#memory.folios.locks.tryLock(pfn);
  }

  /** filemap_add_folio: the allocation's reference becomes the cache's. */
  #insert(pfn: Pfn, index: number): void {
    const { vmstat } = this.#memory.kernel.mm;
    this.#pages.setOwner(pfn, this.kind === 'file' ? PageOwner.FILE : PageOwner.SHMEM);
    this.#pages.setMapping(pfn, this.number, index);
    this.#slots[index] = pfn;
    this.nrPages++;
    vmstat.nr_file_pages++;
    if (this.kind === 'shmem') vmstat.nr_shmem++;
    this.#memory.folios.lruvec.add(pfn);
  }

  /** filemap_remove_folio: the caller drops the cache's reference. */
  #remove(pfn: Pfn, index: number): void {
    const { vmstat } = this.#memory.kernel.mm;
    const wasDirty = this.#pages.testAndClear(pfn, PageFlag.DIRTY);
    if (wasDirty && this.kind === 'file') vmstat.nr_dirty--;
    this.#pages.mapping[pfn] = 0;
    this.#slots[index] = NONE;
    this.nrPages--;
    vmstat.nr_file_pages--;
    if (this.kind === 'shmem') vmstat.nr_shmem--;
  }

  /** folio_clear_dirty_for_io and the submission: what is written is what the page holds now. */
  #startWriting(pfn: Pfn, index: number, forReclaim: boolean): void {
    const { kernel, writeback } = this.#memory;
    if (!this.#pages.testAndClear(pfn, PageFlag.DIRTY)) return;
    kernel.mm.vmstat.nr_dirty--;
    this.#stored[index] = kernel.ram.tags[pfn]!;
    writeback.start(pfn, forReclaim);
  }

  /** Locks the page of an index. False: there is none any more. */
  *#lockPage(index: number): Kthread<boolean> {
    const { folios } = this.#memory;
    for (;;) {
      const pfn = this.#slots[index]!;
      if (pfn === NONE) return false;
      this.#pages.refcount[pfn]!++;
      yield* folios.locks.lock(pfn);
      const isStillThere = this.#slots[index] === pfn;
      if (!isStillThere) folios.locks.unlock(pfn);
      folios.put(pfn);
      if (isStillThere) return true;
    }
  }

  *#waitUnlocked(index: number): Kthread {
    const { folios } = this.#memory;
    const pfn = this.#slots[index]!;
    this.#pages.refcount[pfn]!++;
    yield* folios.locks.waitUnlocked(pfn);
    folios.put(pfn);
  }
}
