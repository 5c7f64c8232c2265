/** A kernel with compaction, and memory laid out frame by frame. */
import { Compaction, type CompactPriority } from '../../../../guest/compaction/index.ts';
import { Gfp, PageFlag, PageOwner } from '../../../../guest/mm/index.ts';
import type { Kthread } from '../../../../guest/sched/kthread.ts';
import type { PinCheck } from '../../../../protocol/index.ts';
import { type GenerationName, KERNEL_PAGES, MigrationMachine } from '../page-migration/machine.ts';
import { ScriptedDriver } from '../page-migration/scripted-driver.ts';
import { TestMapping } from '../page-migration/test-mapping.ts';

/**
 * `kernel`: not movable. `file`, `anon`: on the LRU; `mapped`: `file` with two PTEs. `pinned`: `file`
 * with a pin of pin_user_pages, `held`: with one reference more. `driver`: movable, not on the LRU;
 * `busy`: its driver always answers EAGAIN.
 */
export type FrameKind =
  | 'free'
  | 'kernel'
  | 'file'
  | 'mapped'
  | 'anon'
  | 'pinned'
  | 'held'
  | 'driver'
  | 'busy';

interface Options {
  readonly ramPages?: number;
  readonly generation?: GenerationName;
  readonly pinCheck?: PinCheck;
  readonly unevictableAllowed?: boolean;
  readonly isExplored?: boolean;
  readonly movablePages?: number;
}

export class CompactionMachine extends MigrationMachine {
  readonly compaction: Compaction;
  readonly file: TestMapping;
  readonly anon: TestMapping;
  readonly driver: ScriptedDriver;
  /** Where each LRU page went, by the frame that it had at first. */
  readonly #first = new Map<number, { mapping: TestMapping; index: number; tag: number }>();
  readonly #handles = new Map<number, { handle: number; tag: number }>();

  constructor(options: Options = {}) {
    super(options.generation ?? 'list', {
      ramPages: options.ramPages ?? 4096,
      isExplored: options.isExplored ?? false,
      movablePages: options.movablePages ?? 0,
    });
    this.compaction = new Compaction(this.kernel, this.folios, this.migration, {
      pinCheck: options.pinCheck ?? 'anonymous',
      unevictableAllowed: options.unevictableAllowed ?? true,
    });
    this.file = new TestMapping(this, 1);
    this.anon = new TestMapping(this, 0);
    this.driver = new ScriptedDriver(this);
  }

  /** Gives each frame above the kernel's 512 its use; all of them are free before. */
  layOut(kindOf: (pfn: number) => FrameKind): void {
    for (let pfn = KERNEL_PAGES; pfn < this.ram.pageCount; pfn++) this.use(pfn, kindOf(pfn));
    this.mm.drainPcp(0);
  }

  use(pfn: number, kind: FrameKind): void {
    if (kind === 'free') return;
    if (!this.mm.allocExact(pfn, 0, Gfp.GFP_HIGHUSER_MOVABLE)) throw new Error(`${pfn} is in use`);
    this.ram.write(pfn);
    const tag = this.ram.tags[pfn]!;
    if (kind === 'kernel') this.pages.setOwner(pfn, PageOwner.SLAB);
    else if (kind === 'driver' || kind === 'busy') {
      this.#handles.set(pfn, { handle: this.driver.add(pfn), tag });
      if (kind === 'busy') this.driver.script.set(pfn, new Array(1000).fill('EAGAIN'));
    } else {
      const mapping = kind === 'anon' ? this.anon : this.file;
      const index = mapping.add(pfn, kind === 'anon' ? 1 : kind === 'mapped' ? 2 : 0);
      if (kind === 'pinned') this.pages.refcount[pfn]! += 1024;
      if (kind === 'held') this.pages.refcount[pfn]! += 1;
      this.#first.set(pfn, { mapping, index, tag });
    }
  }

  /** Where the page is now that was laid out at this frame. */
  whereIs(pfn: number): number {
    const lru = this.#first.get(pfn);
    if (lru) return lru.mapping.slots[lru.index]!;
    const driven = this.#handles.get(pfn);
    return driven ? this.driver.pageOf.get(driven.handle)! : pfn;
  }

  /** First frames of all pages that can be moved. */
  get movable(): number[] {
    return [...this.#first.keys(), ...this.#handles.keys()];
  }

  /** What is not as it was, although nobody asked for that: contents, flags, counts. */
  override audit(): string[] {
    const found = super.audit();
    const { tags } = this.ram;
    for (const [pfn, { tag }] of [...this.#first, ...this.#handles]) {
      const at = this.whereIs(pfn);
      if (tags[at] !== tag) found.push(`the page of frame ${pfn} is not at ${at}`);
      if (this.pages.hasFlag(at, PageFlag.ISOLATED | PageFlag.LOCKED)) found.push(`${at} is busy`);
    }
    for (const [pfn] of this.#first) {
      if (!this.pages.hasFlag(this.whereIs(pfn), PageFlag.LRU)) found.push(`${pfn} is off the LRU`);
    }
    for (let pfn = 0; pfn < this.ram.pageCount; pfn++) {
      if (this.pages.owner[pfn] === PageOwner.COMPACTION && !this.mm.isFree(pfn)) {
        found.push(`frame ${pfn} is still a target`);
      }
    }
    return found;
  }

  /** Compaction of much memory takes longer than what others do. */
  override settle(): void {
    this.scheduler.run(this.scheduler.now + 1e12, 0);
  }

  compactMemory(): void {
    this.run(() => this.compaction.compactMemory(1));
  }

  tryToCompact(order: number, priority: CompactPriority, gfp: number = Gfp.GFP_KERNEL): boolean {
    return this.run(() => this.compaction.tryToCompact(order, gfp, priority));
  }

  /** Steps through a body, and looks around after each of its requests. */
  stepping<T>(body: () => Kthread<T>, look: () => void): T {
    return this.run(function* () {
      const thread = body();
      for (;;) {
        const { value, done } = thread.next();
        look();
        if (done) return value as T;
        yield value as never;
      }
    });
  }
}
