/**
 * A process: its page table, its faults, fork and exit (linux mm/memory.c, kernel/fork.c). It has
 * anonymous memory from page 0 on, and behind it the files and the shared memory that it maps.
 */
import { assert, Errno, type Pfn } from '../../shared/index.ts';
import type { Memory, ReferenceHolder } from '../folio/index.ts';
import { startMemoryCost } from '../kernel/memory-cost.ts';
import { Gfp, MAPPING_INDEX_MAX, PageOwner, type Pages } from '../mm/index.ts';
import type { AddressSpace } from '../page-cache/page-cache.ts';
import { AnonVma } from '../rmap/anon-vma.ts';
import type { MappedRange } from '../rmap/file-rmap.ts';
import { type PageTable, Pte, pteOf, ptePfn } from '../rmap/pte.ts';
import { type Kthread, preempt } from '../sched/kthread.ts';

const ANON_GFP = Gfp.GFP_HIGHUSER_MOVABLE | Gfp.__GFP_ZERO;
const COPY_GFP = Gfp.GFP_HIGHUSER_MOVABLE;
/** Faults that are handled without giving up the vCPU. */
const FAULTS_PER_SLICE = 256;
const FAULT = preempt('handle_mm_fault');
const WRITABLE = Pte.PRESENT | Pte.WRITE;

/** A file or shared memory, mapped shared and writable. */
interface Vma extends MappedRange {
  readonly space: AddressSpace;
}

export interface ProcessOptions {
  readonly name: string;
  /** Size of the anonymous memory. */
  readonly anonPages: number;
  /** oom_score_adj: −1000 … 1000; −1000 is never killed. */
  readonly oomScoreAdj?: number;
}

export class Process implements PageTable, ReferenceHolder {
  readonly name: string;
  readonly oomScoreAdj: number;
  readonly anonPages: number;
  ptes: Uint32Array;
  rssPages = 0;
  isAlive = true;
  readonly #memory: Memory;
  readonly #pages: Pages;
  readonly #anonVma: AnonVma;
  #vmas: Vma[] = [];

  constructor(memory: Memory, options: ProcessOptions, family?: AnonVma) {
    assert(options.anonPages <= MAPPING_INDEX_MAX, 'an anonymous page has an index');
    this.name = options.name;
    this.anonPages = options.anonPages;
    this.oomScoreAdj = options.oomScoreAdj ?? 0;
    this.ptes = new Uint32Array(options.anonPages);
    this.#memory = memory;
    this.#pages = memory.folios.pages;
    this.#anonVma = family ?? new AnonVma(memory.folios);
    this.#anonVma.join(this);
  }

  /** All its virtual pages: anonymous ones, then what it maps. */
  get sizePages(): number {
    return this.ptes.length;
  }

  /** The frame that a virtual page is mapped to, or −1. */
  pfnAt(vpn: number): Pfn {
    const pte = this.ptes[vpn]!;
    return (pte & Pte.PRESENT) === 0 ? -1 : ptePfn(pte);
  }

  /** As `pfnAt`, but −1 also unless the page can be written to without a fault. */
  writablePfnAt(vpn: number): Pfn {
    const pte = this.ptes[vpn]!;
    return (pte & WRITABLE) === WRITABLE ? ptePfn(pte) : -1;
  }

  /** What is mapped at a virtual page; undefined: anonymous memory, or nothing. */
  spaceAt(vpn: number): AddressSpace | undefined {
    return this.#vmaAt(vpn)?.space;
  }

  /** An access as the CPU makes it. False, and nothing was done: it faults. */
  access(vpn: number, write: boolean): boolean {
    const pte = this.ptes[vpn]!;
    const needed = write ? WRITABLE : Pte.PRESENT;
    if ((pte & needed) !== needed) return false;
    this.ptes[vpn] = pte | (write ? Pte.ACCESSED | Pte.DIRTY : Pte.ACCESSED);
    if (!write) return true;
    const pfn = ptePfn(pte);
    this.#memory.kernel.ram.write(pfn);
    if (vpn >= this.anonPages) this.spaceAt(vpn)!.markDirty(pfn);
    return true;
  }

  /**
   * An access, with its page fault. ENOMEM: no memory; EINTR: the process was killed meanwhile;
   * EINVAL: nothing is mapped there.
   */
  *touch(vpn: number, write: boolean, cpu = 0): Kthread<Errno> {
    while (this.isAlive) {
      if (this.access(vpn, write)) return Errno.OK;
      const outcome = yield* this.#fault(vpn, write, cpu);
      if (outcome !== Errno.OK) return outcome;
    }
    return Errno.EINTR;
  }

  /** Touches a range in order, many pages at once where nothing has to wait. Returns as `touch`. */
  *touchRange(start: number, count: number, write: boolean, cpu = 0): Kthread<Errno> {
    const { kernel } = this.#memory;
    const end = start + count;
    for (let vpn = start; vpn < end && this.isAlive; ) {
      const memoryCostNs = startMemoryCost(kernel);
      const limit = Math.min(end, vpn + FAULTS_PER_SLICE);
      const reached = this.touchNow(vpn, limit, write, cpu);
      const ns = (reached - vpn) * kernel.costs.allocNs + memoryCostNs();
      vpn = reached;
      if (ns > 0) yield { kind: 'cpu', ns };
      if (vpn === limit || !this.isAlive) continue;
      const outcome = yield* this.touch(vpn++, write, cpu);
      if (outcome !== Errno.OK) return outcome;
    }
    return this.isAlive ? Errno.OK : Errno.EINTR;
  }

  /** As `touchRange`, up to the first page that would have to wait: returns its number, or `end`. */
  touchNow(start: number, end: number, write: boolean, cpu = 0): number {
    for (let vpn = start; vpn < end; vpn++) {
      if (this.access(vpn, write)) continue;
      if (this.ptes[vpn] !== 0 || !this.#faultNow(vpn, cpu)) return vpn;
      this.access(vpn, write);
    }
    return end;
  }

  /**
   * mmap of a part of a file, shared and writable: returns its first virtual page. EAGAIN: so many
   * ranges map the file that a mapcount could overflow.
   */
  mmap(space: AddressSpace, startIndex = 0, pageCount = space.sizePages): number {
    assert(startIndex + pageCount <= space.sizePages, 'what is mapped is in the file');
    if (space.rmap.isFull) return Errno.EAGAIN;
    const startVpn = this.ptes.length;
    const grown = new Uint32Array(startVpn + pageCount);
    grown.set(this.ptes);
    this.ptes = grown;
    this.#map({ table: this, space, startVpn, pageCount, startIndex });
    return startVpn;
  }

  /** MADV_DONTNEED: the entries become none, and a later access faults anew. */
  dontNeed(start: number, count: number, cpu = 0): void {
    for (let vpn = start; vpn < start + count; vpn++) this.#zap(vpn, cpu);
  }

  /** Ends the mapping that begins at a page. Its addresses stay empty. EINVAL: none does. */
  munmap(startVpn: number, cpu = 0): Errno {
    const vma = this.#vmas.find((other) => other.startVpn === startVpn);
    if (!vma) return Errno.EINVAL;
    this.dontNeed(startVpn, vma.pageCount, cpu);
    vma.space.rmap.remove(vma);
    this.#vmas = this.#vmas.filter((other) => other !== vma);
    return Errno.OK;
  }

  /**
   * A copy that shares all pages: anonymous ones until one of the two writes. Pages that may be
   * pinned for DMA are copied at once, so that the device stays with the parent. EAGAIN: a mapcount
   * could overflow; ENOMEM: no memory for such a copy.
   */
  fork(name: string, cpu = 0): Process | Errno {
    if (this.#anonVma.isFull) return Errno.EAGAIN;
    const { anonPages, oomScoreAdj } = this;
    const child = new Process(this.#memory, { name, anonPages, oomScoreAdj }, this.#anonVma);
    child.ptes = new Uint32Array(this.ptes.length);
    for (let vpn = 0; vpn < anonPages; vpn++) {
      if (this.ptes[vpn] === 0 || this.#copyEntry(child, vpn, cpu)) continue;
      child.exit(cpu);
      return Errno.ENOMEM;
    }
    // Entries of files are left to faults, as Linux does.
    for (const vma of this.#vmas) {
      if (!vma.space.rmap.isFull) child.#map({ ...vma, table: child });
      else {
        child.exit(cpu);
        return Errno.EAGAIN;
      }
    }
    return child;
  }

  /** exit_mmap. What somebody else holds of its pages outlives it. */
  exit(cpu = 0): void {
    assert(this.isAlive, 'a process ends once');
    this.isAlive = false;
    for (let vpn = 0; vpn < this.ptes.length; vpn++) if (this.ptes[vpn] !== 0) this.#zap(vpn, cpu);
    for (const vma of this.#vmas) vma.space.rmap.remove(vma);
    this.#vmas = [];
    this.#anonVma.leave(this);
  }

  countReferences(into: Int32Array): void {
    for (const pte of this.ptes) if ((pte & Pte.PRESENT) !== 0) into[ptePfn(pte)]!++;
  }

  *#fault(vpn: number, write: boolean, cpu: number): Kthread<Errno> {
    const { kernel, folios } = this.#memory;
    yield FAULT;
    kernel.mm.vmstat.pgfault++;
    const pte = this.ptes[vpn]!;
    if ((pte & Pte.MIGRATION) !== 0) {
      yield* folios.locks.waitUnlocked(ptePfn(pte));
      return Errno.OK;
    }
    if ((pte & Pte.PRESENT) !== 0 && write) return yield* this.#writeProtected(vpn, pte, cpu);
    if (vpn >= this.anonPages) return yield* this.#faultFile(vpn, cpu);
    const memoryCostNs = startMemoryCost(kernel);
    const pfn = yield* this.#memory.source.allocPages(0, ANON_GFP, cpu);
    yield { kind: 'cpu', ns: kernel.costs.allocNs + memoryCostNs() };
    if (pfn < 0) return pfn as Errno;
    if (this.isAlive && this.ptes[vpn] === 0) this.#mapAnon(vpn, pfn, WRITABLE);
    else folios.put(pfn, cpu);
    return Errno.OK;
  }

  /** A fault on an entry that is none. False: it would have to wait. */
  #faultNow(vpn: number, cpu: number): boolean {
    if (vpn >= this.anonPages) {
      const vma = this.#vmaAt(vpn);
      if (!vma) return false;
      const { space, startVpn, startIndex } = vma;
      const pfn = space.pageNow(startIndex + vpn - startVpn, cpu);
      if (pfn < 0) return false;
      this.#pages.refcount[pfn]!++;
      this.#mapPage(vpn, pfn, WRITABLE);
    } else {
      const pfn = this.#memory.source.tryAlloc(0, ANON_GFP, cpu);
      if (pfn < 0) return false;
      this.#mapAnon(vpn, pfn, WRITABLE);
    }
    this.#memory.kernel.mm.vmstat.pgfault++;
    return true;
  }

  /** filemap_fault */
  *#faultFile(vpn: number, cpu: number): Kthread<Errno> {
    const { folios } = this.#memory;
    const vma = this.#vmaAt(vpn);
    if (!vma) return Errno.EINVAL;
    const { space, startVpn, startIndex } = vma;
    const index = startIndex + vpn - startVpn;
    const pfn = yield* space.getPage(index, cpu);
    if (pfn < 0) return pfn as Errno;
    // The page is as it should be now, but the process may not be.
    const isWanted = this.isAlive && this.ptes[vpn] === 0 && this.#vmaAt(vpn) === vma;
    if (isWanted) this.#mapPage(vpn, pfn, WRITABLE);
    else folios.put(pfn, cpu);
    return Errno.OK;
  }

  /** do_wp_page: a page that nobody else uses becomes writable, any other is copied. */
  *#writeProtected(vpn: number, pte: number, cpu: number): Kthread<Errno> {
    const { kernel, folios, source } = this.#memory;
    const old = ptePfn(pte);
    if (this.#pages.refcount[old] === 1) {
      this.ptes[vpn] = pte | Pte.WRITE;
      return Errno.OK;
    }
    this.#pages.refcount[old]!++;
    const pfn = yield* source.allocPages(0, COPY_GFP, cpu);
    folios.put(old, cpu);
    if (pfn < 0) return pfn as Errno;
    const isSame = this.isAlive && this.pfnAt(vpn) === old && this.writablePfnAt(vpn) < 0;
    if (!isSame) {
      folios.put(pfn, cpu);
      return Errno.OK;
    }
    const memoryCostNs = startMemoryCost(kernel);
    kernel.ram.copy(old, pfn);
    this.#zap(vpn, cpu);
    this.#mapAnon(vpn, pfn, WRITABLE);
    yield { kind: 'cpu', ns: kernel.costs.allocNs + kernel.costs.clearPageNs + memoryCostNs() };
    return Errno.OK;
  }

  /** A new page of ours, whose allocation's reference becomes the entry's. */
  #mapAnon(vpn: number, pfn: Pfn, bits: number): void {
    this.#pages.setOwner(pfn, PageOwner.ANON);
    this.#pages.setMapping(pfn, this.#anonVma.number, vpn);
    this.#mapPage(vpn, pfn, bits);
    this.#memory.folios.lruvec.add(pfn);
  }

  #mapPage(vpn: number, pfn: Pfn, bits: number): void {
    this.ptes[vpn] = pteOf(pfn, bits);
    this.#pages.mapcount[pfn]!++;
    this.rssPages++;
  }

  /** copy_present_page and its like, for one anonymous entry. False: no memory for a copy. */
  #copyEntry(child: Process, vpn: number, cpu: number): boolean {
    const pte = this.ptes[vpn]!;
    const pfn = ptePfn(pte);
    const isPresent = (pte & Pte.PRESENT) !== 0;
    if (isPresent && this.#pages.maybeDmaPinned(pfn)) return this.#copyPinned(child, vpn, cpu);
    this.ptes[vpn] = pte & ~Pte.WRITE;
    child.ptes[vpn] = pte & ~(Pte.WRITE | Pte.DIRTY | Pte.ACCESSED);
    child.rssPages++;
    if (!isPresent) return true;
    this.#pages.refcount[pfn]!++;
    this.#pages.mapcount[pfn]!++;
    return true;
  }

  #copyPinned(child: Process, vpn: number, cpu: number): boolean {
    const copy = this.#memory.source.tryAlloc(0, COPY_GFP, cpu);
    if (copy < 0) return false;
    this.#memory.kernel.ram.copy(ptePfn(this.ptes[vpn]!), copy);
    child.#mapAnon(vpn, copy, WRITABLE);
    return true;
  }

  /** zap_pte_range for one entry. */
  #zap(vpn: number, cpu: number): void {
    const pte = this.ptes[vpn]!;
    if (pte === 0) return;
    const { folios } = this.#memory;
    const pfn = ptePfn(pte);
    const isAnon = vpn < this.anonPages;
    this.ptes[vpn] = 0;
    this.rssPages--;
    if ((pte & Pte.PRESENT) !== 0) {
      if (!isAnon && (pte & Pte.ACCESSED) !== 0) folios.markAccessed(pfn);
      this.#pages.mapcount[pfn]!--;
      if (folios.put(pfn, cpu)) return;
    }
    if (isAnon) this.#anonVma.forget(pfn, vpn);
  }

  #map(vma: Vma): void {
    this.#vmas.push(vma);
    vma.space.rmap.add(vma);
  }

  #vmaAt(vpn: number): Vma | undefined {
    for (const vma of this.#vmas) {
      if (vpn >= vma.startVpn && vpn < vma.startVpn + vma.pageCount) return vma;
    }
    return undefined;
  }
}
