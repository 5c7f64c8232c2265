/**
 * Memory of one process that nothing else maps: anonymous, or shared memory of its own. Everything
 * is resident from the beginning: there is no swap, so reclaim leaves it alone.
 */
import type { Pfn } from '../../../shared/index.ts';
import type { Mapping } from '../../folio/index.ts';
import { MigrateMode } from '../../migrate/index.ts';
import { Gfp, GUP_PIN_COUNTING_BIAS, PageFlag, PageOwner, ZoneType } from '../../mm/index.ts';
import type { Kthread } from '../../sched/kthread.ts';
import type { System } from '../system.ts';

export type PinKind = 'vfio' | 'longterm' | 'short';

/** Page table entry of a page. */
const Pte = { PRESENT: 1, MIGRATION: 2 } as const;

export class UserMemory implements Mapping {
  readonly cacheReferences: 0 | 1;
  readonly migratesDirty = true;
  /** By the OOM killer: it must not get more. */
  isKilled = false;
  readonly #system: System;
  readonly #number: number;
  /** Page of each index, its entry, what was written to it, and references of pins. */
  readonly #pfns: number[] = [];
  readonly #ptes: number[] = [];
  readonly #tags: number[] = [];
  readonly #pins: number[] = [];

  constructor(system: System, kind: 'anonymous' | 'shmem') {
    this.cacheReferences = kind === 'shmem' ? 1 : 0;
    this.#system = system;
    this.#number = system.folios.mappings.add(this);
  }

  get pageCount(): number {
    return this.#pfns.length;
  }

  /** Takes an allocated page with one reference: written, mapped, on the LRU. */
  add(pfn: Pfn): void {
    const { mm, ram, folios } = this.#system;
    const { pages } = mm;
    ram.write(pfn);
    pages.setOwner(pfn, this.cacheReferences === 1 ? PageOwner.FILE : PageOwner.ANON);
    pages.setMapping(pfn, this.#number, this.#pfns.length);
    pages.refcount[pfn] = this.cacheReferences + 1;
    pages.mapcount[pfn] = 1;
    pages.setFlag(pfn, PageFlag.DIRTY);
    this.#pfns.push(pfn);
    this.#ptes.push(Pte.PRESENT);
    this.#tags.push(ram.tags[pfn]!);
    this.#pins.push(0);
    folios.lruvec.add(pfn);
  }

  /**
   * pin_user_pages, or one more reference if it is `short`. Waits while the page moves. False: a
   * long-term pin, and the page could not be moved out of ZONE_MOVABLE.
   */
  *pin(index: number, kind: PinKind): Kthread<boolean> {
    const { mm } = this.#system;
    yield* this.#waitPresent(index);
    if (kind !== 'short' && this.#isInMovableZone(index)) {
      yield* this.#leaveMovableZone(this.#pfns[index]!);
      yield* this.#waitPresent(index);
      if (this.#isInMovableZone(index)) return false;
    }
    const references = kind === 'short' ? 1 : GUP_PIN_COUNTING_BIAS;
    mm.pages.refcount[this.#pfns[index]!]! += references;
    this.#pins[index]! += references;
    return true;
  }

  unpinAll(): void {
    const { mm, folios } = this.#system;
    for (const [index, references] of this.#pins.entries()) {
      if (references === 0) continue;
      const pfn = this.#pfns[index]!;
      this.#pins[index] = 0;
      mm.pages.refcount[pfn]! -= references - 1;
      folios.put(pfn);
    }
  }

  /** exit_mmap: ends its pins and unmaps everything. What is isolated outlives it. */
  *exit(): Kthread {
    this.unpinAll();
    const { mm, folios } = this.#system;
    const { pages } = mm;
    for (let index = 0; index < this.#pfns.length; index++) {
      yield* this.#waitPresent(index);
      const pfn = this.#pfns[index]!;
      pages.mapcount[pfn] = 0;
      pages.mapping[pfn] = 0;
      pages.refcount[pfn]! -= this.cacheReferences;
      folios.put(pfn);
    }
    this.#pfns.length = 0;
    folios.mappings.remove(this.#number);
  }

  unmapForMigration(pfn: Pfn, index: number): void {
    const { pages } = this.#system.mm;
    if (this.#ptes[index] !== Pte.PRESENT) return;
    this.#ptes[index] = Pte.MIGRATION;
    pages.mapcount[pfn]!--;
    pages.refcount[pfn]!--;
  }

  removeMigrationPtes(_from: Pfn, to: Pfn, index: number): void {
    const { pages } = this.#system.mm;
    if (this.#ptes[index] !== Pte.MIGRATION) return;
    this.#ptes[index] = Pte.PRESENT;
    this.#pfns[index] = to;
    pages.mapcount[to]!++;
    pages.refcount[to]!++;
  }

  replace(_from: Pfn, to: Pfn, index: number): void {
    this.#pfns[index] = to;
  }

  /** There is no swap. */
  tryToDrop(): boolean {
    return false;
  }

  /** Empty when every page is where it is thought to be, holds what was written, and is counted. */
  audit(): string[] {
    const { mm, ram } = this.#system;
    const { pages } = mm;
    const problems: string[] = [];
    for (const [index, pfn] of this.#pfns.entries()) {
      const isPresent = this.#ptes[index] === Pte.PRESENT;
      const tag = ram.tags[pfn]!;
      if (tag !== this.#tags[index]) {
        problems.push(`user page ${pfn} holds ${tag}, its process wrote ${this.#tags[index]}`);
      }
      if (pages.mapping[pfn] === 0 || pages.mappingIndex(pfn) !== index) {
        problems.push(`user page ${pfn} is not at index ${index} of its object`);
      }
      // Isolated or looked at for the moment: one reference more.
      const isBusy = !pages.hasFlag(pfn, PageFlag.LRU) || pages.hasFlag(pfn, PageFlag.LOCKED);
      const expected = this.cacheReferences + (isPresent ? 1 : 0) + this.#pins[index]!;
      const extra = pages.refcount[pfn]! - expected;
      if (extra !== 0 && !(isBusy && extra === 1)) {
        problems.push(`user page ${pfn} has ${extra} references more than it should`);
      }
    }
    return problems;
  }

  /** A fault on a migration entry: until the page has moved. */
  *#waitPresent(index: number): Kthread {
    const { locks } = this.#system.folios;
    while (this.#ptes[index] !== Pte.PRESENT) yield* locks.waitUnlocked(this.#pfns[index]!);
  }

  #isInMovableZone(index: number): boolean {
    const zone = this.#system.mm.zones[ZoneType.MOVABLE]!;
    return this.#pfns[index]! >= zone.startPfn && zone.isPopulated;
  }

  /** migrate_longterm_unpinnable_folios, for one page. */
  *#leaveMovableZone(pfn: Pfn): Kthread {
    const { mm, folios, migration } = this.#system;
    if (!(yield* migration.isolate(pfn, MigrateMode.SYNC))) return;
    const isolated = migration.newSet(1);
    isolated.add(pfn);
    yield* migration.migrate(isolated, {
      mode: MigrateMode.SYNC,
      reason: 'longterm_pin',
      target: {
        alloc: (_src, order) => mm.alloc(order, Gfp.GFP_USER),
        free: (dst) => void folios.put(dst),
      },
    });
    yield* migration.putbackAll(isolated);
    migration.recycle(isolated);
  }
}
