/** migrate_pages in both shapes: pages of a driver that answers at once, and LRU pages. */
import { Folios, type Mapping } from '../guest/folio/index.ts';
import { Gfp, type PageAllocator, PageOwner, type Pages } from '../guest/mm/index.ts';
import {
  ListGeneration,
  MigrateMode,
  type MigrateRequest,
  type MovableGeneration,
  type MovableOps,
  PageMigration,
  PfnGeneration,
} from '../guest/page-migration/index.ts';
import type { Kthread } from '../guest/sched/kthread.ts';
import { assert, Errno } from '../shared/index.ts';
import { bareKernel, finish, freeMemory } from './bare-kernel.ts';
import { type Bench, type Figure, sample } from './figure.ts';

/** 1 GiB. */
const RAM_PAGES = 1 << 18;
const MOVED_PAGES = 1 << 16;
const SHAPES = ['list', 'pfn'] as const;
const KINDS = {
  movable: 'pages of a driver that answers at once',
  lru: 'LRU pages, mapped once',
} as const;

export const benchMigrate: Bench = async ({ runs, progress }) => {
  const figures: Figure[] = [];
  for (const shape of SHAPES) {
    for (const [kind, about] of Object.entries(KINDS)) {
      progress(`${about} (${shape})`);
      const machine = new BenchMachine(shape);
      const pfns = machine.populate(kind as keyof typeof KINDS);
      const { moved } = await sample(runs, { moved: () => machine.moveAll(pfns) });
      figures.push({
        bench: 'migrate',
        name: `${about} (${shape})`,
        unit: 'M/s',
        samples: moved,
        target: { of: 'value', atLeast: 1 },
      });
    }
  }
  return figures;
};

class BenchMachine {
  readonly #mm: PageAllocator;
  readonly #folios: Folios;
  readonly #generation: MovableGeneration;
  readonly #migration: PageMigration;
  readonly #request: MigrateRequest;

  constructor(shape: (typeof SHAPES)[number]) {
    const mm = freeMemory(RAM_PAGES);
    this.#mm = mm;
    const folios = new Folios(mm);
    this.#folios = folios;
    const kernel = bareKernel(mm);
    this.#generation =
      shape === 'list' ? new ListGeneration(kernel, folios) : new PfnGeneration(kernel, folios);
    this.#migration = new PageMigration(kernel, folios, this.#generation);
    this.#request = {
      mode: MigrateMode.ASYNC,
      reason: 'compaction',
      target: {
        alloc: () => mm.alloc(0, Gfp.GFP_HIGHUSER_MOVABLE),
        free: (dst) => void folios.put(dst),
      },
    };
  }

  /** Pages in use; the array always names where they are now. */
  populate(kind: keyof typeof KINDS): Int32Array {
    const pfns = Int32Array.from({ length: MOVED_PAGES }, () =>
      this.#mm.alloc(0, Gfp.GFP_HIGHUSER_MOVABLE),
    );
    if (kind === 'movable') new PromptDriver(this.#generation, pfns);
    else new LinearMapping(this.#folios, pfns);
    return pfns;
  }

  /** Returns millions of pages a second, isolation not included. */
  moveAll(pfns: Int32Array): number {
    const isolated = this.#migration.newSet(pfns.length);
    for (const pfn of pfns) {
      const taken = finish(this.#migration.isolate(pfn, MigrateMode.ASYNC));
      assert(taken, 'a page in use can be isolated');
      isolated.add(pfn);
    }
    const start = performance.now();
    const result = finish(this.#migration.migrate(isolated, this.#request));
    const rate = pfns.length / (performance.now() - start) / 1e3;
    assert(result === 0, 'every page is moved');
    finish(this.#migration.putbackAll(isolated));
    this.#migration.recycle(isolated);
    return rate;
  }
}

/** As a balloon without a host to tell: moving a page is bookkeeping. */
class PromptDriver implements MovableOps {
  readonly name = 'prompt';
  readonly #generation: MovableGeneration;
  /** The driver's pages, and the place of each of them there. */
  readonly #pfns: Int32Array;
  readonly #placeOf = new Int32Array(RAM_PAGES);

  constructor(generation: MovableGeneration, pfns: Int32Array) {
    this.#generation = generation;
    this.#pfns = pfns;
    generation.register(PageOwner.BALLOON, this);
    pfns.forEach((pfn, place) => {
      generation.adopt(pfn, PageOwner.BALLOON, 1);
      this.#placeOf[pfn] = place;
    });
  }

  *isolatePage(): Kthread<boolean> {
    yield* [];
    return true;
  }

  *migratePage(dst: number, src: number): Kthread<Errno> {
    yield* [];
    const place = this.#placeOf[src]!;
    this.#pfns[place] = dst;
    this.#placeOf[dst] = place;
    this.#generation.transfer(src, dst);
    return Errno.OK;
  }

  *putbackPage(): Kthread {}
}

/** Anonymous memory, one PTE a page, that is mapped linearly. */
class LinearMapping implements Mapping {
  readonly cacheReferences = 0;
  readonly migratesDirty = true;
  readonly #pages: Pages;
  readonly #pfns: Int32Array;
  /** The page of each place that is under migration, plus 1. */
  readonly #entries: Int32Array;

  constructor(folios: Folios, pfns: Int32Array) {
    this.#pages = folios.pages;
    this.#pfns = pfns;
    this.#entries = new Int32Array(pfns.length);
    const number = folios.mappings.add(this);
    pfns.forEach((pfn, place) => {
      this.#pages.setOwner(pfn, PageOwner.ANON);
      this.#pages.setMapping(pfn, number, place);
      this.#pages.mapcount[pfn] = 1;
      folios.lruvec.add(pfn);
    });
  }

  unmapForMigration(pfn: number, place: number): void {
    this.#entries[place] = pfn + 1;
    this.#pages.mapcount[pfn]!--;
    this.#pages.refcount[pfn]!--;
  }

  removeMigrationPtes(from: number, to: number, place: number): void {
    if (this.#entries[place] !== from + 1) return;
    this.#entries[place] = 0;
    this.#pfns[place] = to;
    this.#pages.mapcount[to]!++;
    this.#pages.refcount[to]!++;
  }

  replace(): void {}

  tryToDrop(): boolean {
    return false;
  }
}
