/**
 * References of pages that are not mappings (linux mm/gup.c): short ones, and pins for DMA, which
 * count 1024 each. A long-term pin must not keep a page where everything has to be movable, so such
 * a page is moved first.
 */
import { Errno, type Pfn } from '../../shared/index.ts';
import type { Memory, ReferenceHolder } from '../folio/index.ts';
import { GUP_PIN_COUNTING_BIAS, MigrateType, ZoneType } from '../mm/index.ts';
import { AddressSpace } from '../page-cache/page-cache.ts';
import type { Process } from '../process/process.ts';
import type { Kthread } from '../sched/kthread.ts';

/** Rounds of pin, collect and migrate; only a signal ends Linux's. */
const ROUNDS_MAX = 10;

/** Memory of a process by virtual page, or shared memory by index (memfd_pin_folios). */
export type Pinnable = Process | AddressSpace;

/**
 * migrate_longterm_unpinnable_folios: moves these pages to where they may be pinned. ENOMEM: not
 * all were.
 */
export type MigrateForPin = (pfns: readonly Pfn[]) => Kthread<Errno>;

export class Gup implements ReferenceHolder {
  /** Page migration is above this layer; without it nothing that must move can be pinned. */
  migrateForPin: MigrateForPin | null = null;
  readonly #memory: Memory;
  /** References held now, by frame. */
  readonly #held = new Map<Pfn, number>();

  constructor(memory: Memory) {
    this.#memory = memory;
  }

  /** get_page: one more reference of a page that has some. */
  get(pfn: Pfn): void {
    this.#hold(pfn, 1);
  }

  /** put_page */
  put(pfn: Pfn): void {
    this.#drop(pfn, 1);
  }

  /**
   * pin_user_pages(FOLL_WRITE | FOLL_LONGTERM): faults in, pins, and writes the frames to `out`, or
   * pins nothing. EINVAL: a file, whose writeback a long-term pin would break; EAGAIN: pages came
   * back to where they cannot stay again and again; ENOMEM: no memory, or a page that cannot move;
   * EINTR: the process was killed.
   */
  *pinLongterm(source: Pinnable, start: number, out: Int32Array): Kthread<Errno> {
    for (let round = 0; round < ROUNDS_MAX; round++) {
      const outcome = yield* this.#pin(source, start, out);
      if (outcome !== Errno.OK) return outcome;
      const unpinnable = Array.from(out.filter((pfn) => !this.#isLongtermPinnable(pfn)));
      if (unpinnable.length === 0) return Errno.OK;
      this.unpin(out, out.length);
      const moved = this.migrateForPin ? yield* this.migrateForPin(unpinnable) : Errno.ENOMEM;
      if (moved !== Errno.OK) return moved;
    }
    return Errno.EAGAIN;
  }

  /** unpin_user_pages of the first so many. */
  unpin(pfns: Int32Array, count: number): void {
    for (let i = 0; i < count; i++) this.#drop(pfns[i]!, GUP_PIN_COUNTING_BIAS);
  }

  countReferences(into: Int32Array): void {
    for (const [pfn, references] of this.#held) into[pfn]! += references;
  }

  *#pin(source: Pinnable, start: number, out: Int32Array): Kthread<Errno> {
    for (let i = 0; i < out.length; i++) {
      if (isFileAt(source, start + i)) return this.#undo(out, i, Errno.EINVAL);
      for (;;) {
        const pfn = pfnNow(source, start + i);
        if (pfn >= 0) {
          this.#hold(pfn, GUP_PIN_COUNTING_BIAS);
          out[i] = pfn;
          break;
        }
        const outcome = yield* this.#faultIn(source, start + i);
        if (outcome !== Errno.OK) return this.#undo(out, i, outcome);
      }
    }
    return Errno.OK;
  }

  #undo(out: Int32Array, count: number, outcome: Errno): Errno {
    this.unpin(out, count);
    return outcome;
  }

  /** faultin_page, for writing: a page that is shared copy-on-write is unshared before its pin. */
  *#faultIn(source: Pinnable, index: number): Kthread<Errno> {
    if (!(source instanceof AddressSpace)) return yield* source.touch(index, true);
    const pfn = yield* source.getPage(index);
    if (pfn < 0) return pfn as Errno;
    this.#memory.folios.put(pfn);
    return Errno.OK;
  }

  /** folio_is_longterm_pinnable */
  #isLongtermPinnable(pfn: Pfn): boolean {
    const { mm } = this.#memory.kernel;
    const type = mm.pageblocks.typeOf(pfn);
    if (type === MigrateType.CMA || type === MigrateType.ISOLATE) return false;
    return mm.zoneOf(pfn).index !== ZoneType.MOVABLE;
  }

  #hold(pfn: Pfn, references: number): void {
    this.#memory.folios.pages.refcount[pfn]! += references;
    this.#held.set(pfn, (this.#held.get(pfn) ?? 0) + references);
  }

  #drop(pfn: Pfn, references: number): void {
    const left = this.#held.get(pfn)! - references;
    if (left === 0) this.#held.delete(pfn);
    else this.#held.set(pfn, left);
    this.#memory.folios.pages.refcount[pfn]! -= references - 1;
    this.#memory.folios.put(pfn);
  }
}

/** What is mapped, or in the cache, and can be pinned as it is. */
function pfnNow(source: Pinnable, index: number): Pfn {
  return source instanceof AddressSpace ? source.settledPfnAt(index) : source.writablePfnAt(index);
}

function isFileAt(source: Pinnable, index: number): boolean {
  const space = source instanceof AddressSpace ? source : source.spaceAt(index);
  return space?.kind === 'file';
}
