/** A driver of movable pages that answers as a test has told it to. */
import type { Ram } from '../../../../guest/machine/ram.ts';
import { PageOwner } from '../../../../guest/mm/index.ts';
import type { MovableGeneration, MovableOps } from '../../../../guest/page-migration/index.ts';
import type { Kthread } from '../../../../guest/sched/kthread.ts';
import { SpinLock } from '../../../../guest/sched/locks.ts';
import { Errno } from '../../../../shared/index.ts';
import type { MigrationMachine } from './machine.ts';

/**
 * `deflate`: the old page is gone, the new one is not needed (-ENOENT of a balloon). `sleep`: moves
 * the page, but not at once. `linger`: moves it, and returns later. `lie`: says
 * that it has moved the page.
 */
export type Answer = 'move' | 'sleep' | 'deflate' | 'EAGAIN' | 'EINVAL' | 'linger' | 'lie';

const DEVICE = 7;

export class ScriptedDriver implements MovableOps {
  readonly name = 'scripted';
  readonly lock = new SpinLock('scripted driver lock');
  /** Page of each handle. */
  readonly pageOf = new Map<number, number>();
  /** What belongs to a page and moves with it: page->private. */
  readonly privateOf = new Map<number, number>();
  /** Pages that nobody has isolated, and the others. */
  readonly list = new Set<number>();
  readonly isolated = new Set<number>();
  /** Answers of `migratePage` by page, one a call; then `move`. */
  readonly script = new Map<number, Answer[]>();
  /** Pages that `isolatePage` refuses. */
  readonly refused = new Set<number>();
  readonly calls: string[] = [];
  readonly #generation: MovableGeneration;
  readonly #ram: Ram;
  #nextHandle = 1;

  constructor(machine: MigrationMachine, type: PageOwner = PageOwner.ZSMALLOC) {
    this.#generation = machine.generation;
    this.#ram = machine.ram;
    machine.generation.register(type, this);
  }

  /** Makes an allocated page the driver's; returns its handle. */
  add(pfn: number, type: PageOwner = PageOwner.ZSMALLOC): number {
    const handle = this.#nextHandle++;
    this.#generation.adopt(pfn, type, DEVICE);
    this.pageOf.set(handle, pfn);
    this.privateOf.set(pfn, 1000 + handle);
    this.list.add(pfn);
    return handle;
  }

  content(handle: number): number {
    return this.#ram.tags[this.pageOf.get(handle)!]!;
  }

  /** Gives a page up, wherever it is by now. */
  *free(handle: number): Kthread {
    for (;;) {
      const pfn = this.pageOf.get(handle);
      if (pfn === undefined) return;
      if (yield* this.#generation.release(pfn)) return this.#forget(pfn);
    }
  }

  *isolatePage(pfn: number): Kthread<boolean> {
    this.calls.push(`isolate ${pfn}`);
    yield* this.lock.lock();
    const agrees = this.#generation.deviceOf(pfn) === DEVICE && !this.refused.has(pfn);
    if (agrees) {
      this.list.delete(pfn);
      this.isolated.add(pfn);
    }
    this.lock.unlock();
    return agrees;
  }

  *migratePage(dst: number, src: number): Kthread<Errno> {
    this.calls.push(`migrate ${src}`);
    const answer = this.script.get(src)?.shift() ?? 'move';
    if (answer === 'EAGAIN') return Errno.EAGAIN;
    if (answer === 'sleep') yield { kind: 'sleep', ns: 100_000 };
    yield* this.lock.lock();
    const outcome = this.#settle(answer, dst, src);
    this.lock.unlock();
    if (answer === 'linger') yield { kind: 'sleep', ns: 100_000 };
    return outcome;
  }

  *putbackPage(pfn: number): Kthread {
    this.calls.push(`putback ${pfn}`);
    yield* this.lock.lock();
    if (this.#generation.deviceOf(pfn) === DEVICE) {
      this.isolated.delete(pfn);
      this.list.add(pfn);
    }
    this.lock.unlock();
  }

  #settle(answer: Answer, dst: number, src: number): Errno {
    // Released while it waited.
    if (this.#generation.deviceOf(src) === 0) return Errno.OK;
    if (answer === 'EINVAL') return Errno.EINVAL;
    if (answer === 'lie') return Errno.OK;
    if (answer === 'deflate') {
      this.#generation.releaseIsolated(src);
      this.#forget(src);
      return Errno.OK;
    }
    this.#ram.copy(src, dst);
    for (const [handle, pfn] of this.pageOf) if (pfn === src) this.pageOf.set(handle, dst);
    this.privateOf.set(dst, this.privateOf.get(src)!);
    this.privateOf.delete(src);
    this.isolated.delete(src);
    this.list.add(dst);
    this.#generation.transfer(src, dst);
    return Errno.OK;
  }

  #forget(pfn: number): void {
    for (const [handle, page] of this.pageOf) if (page === pfn) this.pageOf.delete(handle);
    this.privateOf.delete(pfn);
    this.list.delete(pfn);
    this.isolated.delete(pfn);
  }
}
