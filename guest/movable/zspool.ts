/**
 * A pool of small objects like zsmalloc (linux mm/zsmalloc.c), as zram and zswap use it. Its pages
 * are movable although they have content: a handle names an object by the page it begins in, and
 * who moves the page rewrites the handles. Lock order: pool, class, zspage.
 */

import { assert, Errno, type Pfn } from '../../shared/index.ts';
import type { Folios } from '../folio/index.ts';
import type { ContentReader } from '../kernel/content-reader.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { Gfp, PageOwner } from '../mm/index.ts';
import type { MovableGeneration, MovableOps } from '../page-migration/index.ts';
import { type Kthread, preempt } from '../sched/kthread.ts';
import { SpinLock } from '../sched/locks.ts';
import { FrameWords } from './frame-words.ts';
import { releaseWhereItIs } from './release.ts';
import { type SizeClass, sizeClasses } from './size-class.ts';
import { NO_HANDLE, type ObjectLocation, Zspage } from './zspage.ts';
import { auditZspool } from './zspool-audit.ts';

const ZSPAGE_GFP =
  Gfp.__GFP_KSWAPD_RECLAIM | Gfp.__GFP_NOWARN | Gfp.__GFP_HIGHMEM | Gfp.__GFP_MOVABLE;
/** The only pool of the machine, as page->mapping names it; the index is the zspage's number. */
const ZSPOOL_DEVICE = 1;
/** More than any zspage has objects. */
const WORDS_PER_PAGE = 64;
/** No frame: a page that a dying zspage has given up. */
const RELEASED = -1;
const IN_ISOLATE = preempt('zs_page_isolate');
const AFTER_COPY = preempt('zs_page_migrate: before the handles are rewritten');

/** An object that is mapped: its page does not move until `unmap`. */
export interface MappedObject {
  readonly zspage: Zspage;
  readonly object: number;
}

export class Zspool implements MovableOps {
  readonly name = 'zsmalloc';
  readonly counters = { zs_pages: 0, zs_objects: 0, zs_migrated: 0, zs_migrate_busy: 0 };
  readonly classes = sizeClasses<Zspage>();
  /** Of each handle. */
  readonly locations = new Map<number, ObjectLocation>();
  readonly words: FrameWords;
  readonly #kernel: Kernel;
  readonly #folios: Folios;
  readonly #generation: MovableGeneration;
  /** Guards what handles mean. */
  readonly #lock = new SpinLock('zs pool lock');
  /** By number; 0 is none. */
  readonly #zspages: (Zspage | undefined)[] = [undefined];
  readonly #freeNumbers: number[] = [];
  #nextHandle = NO_HANDLE + 1;

  constructor(kernel: Kernel, folios: Folios, generation: MovableGeneration) {
    this.#kernel = kernel;
    this.#folios = folios;
    this.#generation = generation;
    this.words = new FrameWords(kernel.ram, WORDS_PER_PAGE);
    const registered = generation.register(PageOwner.ZSMALLOC, this);
    assert(registered === Errno.OK, 'a machine has one zsmalloc pool');
  }

  /** zs_malloc: a handle, or ENOMEM; EINVAL: no class has objects so large. Size in bytes. */
  *malloc(sizeBytes: number): Kthread<number> {
    const sizeClass = this.classes.find((one) => one.sizeBytes >= sizeBytes);
    if (!sizeClass || sizeBytes <= 0) return Errno.EINVAL;
    yield* sizeClass.lock.lock();
    let [zspage] = sizeClass.partial;
    if (!zspage) {
      sizeClass.lock.unlock();
      const fresh = this.#newZspage(sizeClass);
      if (!fresh) return Errno.ENOMEM;
      const pages = sizeClass.pagesPerZspage;
      yield { kind: 'cpu', ns: pages * this.#kernel.costs.allocNs };
      yield* sizeClass.lock.lock();
      sizeClass.partial.add(fresh);
      zspage = fresh;
    }
    const handle = this.#nextHandle++;
    const object = zspage.take(handle);
    const pfn = zspage.pfns[sizeClass.firstPageOf(object)]!;
    this.locations.set(handle, { pfn, object });
    this.counters.zs_objects++;
    sizeClass.lock.unlock();
    return handle;
  }

  /** zs_free. The last object of a zspage frees its pages, isolated ones too. */
  *free(handle: number): Kthread {
    yield* this.#lock.lock();
    const { zspage, object } = this.#resolve(handle);
    const { sizeClass } = zspage;
    yield* sizeClass.lock.lock();
    this.#lock.unlock();
    const isEmpty = zspage.give(object);
    this.locations.delete(handle);
    this.counters.zs_objects--;
    sizeClass.lock.unlock();
    if (isEmpty) yield* this.#freeZspage(zspage);
  }

  /** zs_map_object: until `unmap` the object stays where it is. */
  *map(handle: number): Kthread<MappedObject> {
    yield* this.#lock.lock();
    const mapped = this.#resolve(handle);
    mapped.zspage.readers++;
    this.#lock.unlock();
    return mapped;
  }

  unmap({ zspage }: MappedObject): void {
    assert(zspage.readers > 0, 'what is unmapped was mapped');
    zspage.readers--;
  }

  /** Of a mapped object. */
  load({ zspage, object }: MappedObject): number {
    const { sizeClass, pfns } = zspage;
    const value = this.words.read(pfns[sizeClass.firstPageOf(object)]!, object);
    const rest = this.words.read(pfns[sizeClass.lastPageOf(object)]!, object);
    assert(value === rest, 'both parts of an object hold what was written');
    return value;
  }

  /** Of a mapped object: both parts, if it lies in two pages. */
  store({ zspage, object }: MappedObject, value: number): void {
    const { sizeClass, pfns } = zspage;
    const last = sizeClass.lastPageOf(object);
    for (let page = sizeClass.firstPageOf(object); page <= last; page++) {
      this.words.write(pfns[page]!, object, value);
    }
  }

  *read(handle: number): Kthread<number> {
    const mapped = yield* this.map(handle);
    const value = this.load(mapped);
    this.unmap(mapped);
    return value;
  }

  *write(handle: number, value: number): Kthread {
    const mapped = yield* this.map(handle);
    this.store(mapped, value);
    this.unmap(mapped);
  }

  /** zs_page_isolate: the page stays in its zspage; nothing else is decided before it moves. */
  *isolatePage(pfn: Pfn): Kthread<boolean> {
    yield IN_ISOLATE;
    return this.zspageOf(pfn) !== undefined;
  }

  /**
   * zs_page_migrate. EINVAL: an object of the zspage is mapped. That may take long, so unlike EAGAIN
   * it is not tried again at once.
   */
  *migratePage(dst: Pfn, src: Pfn): Kthread<Errno> {
    yield* this.#lock.lock();
    const zspage = this.zspageOf(src);
    const lock = zspage?.sizeClass.lock;
    if (lock) yield* lock.lock();
    const result = yield* this.#migrateLocked(dst, src);
    lock?.unlock();
    this.#lock.unlock();
    return result;
  }

  /** zs_page_putback: it never left. */
  *putbackPage(): Kthread {}

  /** Undefined: the page was released. */
  zspageOf(pfn: Pfn): Zspage | undefined {
    return this.#zspages[this.#folios.pages.mappingIndex(pfn)];
  }

  /** Every page of the pool, in the order of classes and zspages. */
  pages(): Pfn[] {
    return this.classes.flatMap((one) => [...one.zspages()].flatMap((zspage) => zspage.pfns));
  }

  /** Empty when every handle leads to its object, every page is the pool's and as written. */
  audit(holds: ContentReader): string[] {
    return auditZspool(this, this.#folios.pages, holds);
  }

  *#migrateLocked(dst: Pfn, src: Pfn): Kthread<Errno> {
    const zspage = this.zspageOf(src);
    // Released while we waited for the locks: nothing is left to move.
    if (!zspage) return Errno.OK;
    if (zspage.readers > 0) {
      this.counters.zs_migrate_busy++;
      return Errno.EINVAL;
    }
    this.words.copy(src, dst);
    if (this.#kernel.isExplored) yield AFTER_COPY;
    const page = zspage.pfns.indexOf(src);
    const { sizeClass } = zspage;
    for (const [object, handle] of zspage.handles.entries()) {
      if (handle === NO_HANDLE || sizeClass.firstPageOf(object) !== page) continue;
      this.locations.set(handle, { pfn: dst, object });
    }
    assert(this.zspageOf(src) === zspage, 'no zspage goes while its class is locked');
    zspage.pfns[page] = dst;
    this.words.drop(src);
    this.#generation.transfer(src, dst);
    this.#folios.pages.setMapping(dst, ZSPOOL_DEVICE, zspage.number);
    this.counters.zs_migrated++;
    return Errno.OK;
  }

  /** Null: there is not enough memory. */
  #newZspage(sizeClass: SizeClass<Zspage>): Zspage | null {
    const { mm } = this.#kernel;
    const pfns: Pfn[] = [];
    for (let i = 0; i < sizeClass.pagesPerZspage; i++) {
      const pfn = mm.alloc(0, ZSPAGE_GFP);
      if (pfn < 0) {
        for (const taken of pfns) mm.free(taken, 0);
        return null;
      }
      pfns.push(pfn);
    }
    const number = this.#freeNumbers.pop() ?? this.#zspages.length;
    const zspage = new Zspage(sizeClass, number, pfns);
    this.#zspages[number] = zspage;
    for (const pfn of pfns) {
      this.words.add(pfn);
      this.#generation.adopt(pfn, PageOwner.ZSMALLOC, ZSPOOL_DEVICE);
      this.#folios.pages.setMapping(pfn, ZSPOOL_DEVICE, number);
    }
    this.counters.zs_pages += pfns.length;
    return zspage;
  }

  /** free_zspage, and async_free_zspage where a page is locked: nothing is held, so it may wait. */
  *#freeZspage(zspage: Zspage): Kthread {
    const { pfns } = zspage;
    for (let page = 0; page < pfns.length; page++) {
      const pfn = yield* releaseWhereItIs(this.#generation, () => pfns[page]!);
      // Another of our pages may move to the frame while we wait for the next one.
      pfns[page] = RELEASED;
      this.words.drop(pfn);
    }
    this.counters.zs_pages -= pfns.length;
    this.#zspages[zspage.number] = undefined;
    this.#freeNumbers.push(zspage.number);
  }

  #resolve(handle: number): MappedObject {
    const location = this.locations.get(handle);
    assert(location !== undefined, 'a handle is of an object');
    const zspage = this.zspageOf(location.pfn);
    assert(zspage?.handles[location.object] === handle, 'a handle leads to its object');
    return { zspage, object: location.object };
  }
}
