/** Both scanners of compaction over memory in which nothing moves, and page cache that does. */
import { Compaction } from '../guest/compaction/index.ts';
import { Folios, type Mapping } from '../guest/folio/index.ts';
import { Gfp, GUP_PIN_COUNTING_BIAS, type PageAllocator, PageOwner } from '../guest/mm/index.ts';
import { ListGeneration, PageMigration } from '../guest/page-migration/index.ts';
import type { PinCheck } from '../protocol/index.ts';
import { assert } from '../shared/index.ts';
import { bareKernel, finish, freeMemory } from './bare-kernel.ts';
import { type Bench, type Figure, sample } from './figure.ts';

/** 4 GiB, of which one frame in 20 is free. */
const RAM_PAGES = 1 << 20;
const FREE_EVERY = 20;
/** Runs of one sample: one takes some ten milliseconds. */
const RUNS = 10;

const USES = {
  kernel: { name: 'frames in use by the kernel', pinCheck: 'anonymous', references: 0 },
  extraRefs: {
    name: 'pinned page cache, extra_refs',
    pinCheck: 'extra_refs',
    references: 1 + GUP_PIN_COUNTING_BIAS,
  },
  dmaPinned: {
    name: 'pinned page cache, maybe_dma_pinned',
    pinCheck: 'maybe_dma_pinned',
    references: 1 + GUP_PIN_COUNTING_BIAS,
  },
} as const satisfies Record<string, { name: string; pinCheck: PinCheck; references: number }>;

export const benchCompaction: Bench = async ({ runs, progress }) => {
  const figures: Figure[] = [];
  for (const use of Object.values(USES)) {
    progress(use.name);
    const machine = new BenchMachine(use);
    const { scanned } = await sample(runs, { scanned: () => machine.scan() });
    figures.push({
      bench: 'compaction',
      name: `${use.name}, scanned`,
      unit: 'M/s',
      samples: scanned,
      target: { of: 'value', atLeast: 20 },
    });
  }
  return figures;
};

/** Page cache that nobody has mapped. */
const CACHE: Mapping = {
  cacheReferences: 1,
  migratesDirty: true,
  unmapForMigration() {},
  removeMigrationPtes() {},
  replace() {},
  tryToDrop: () => false,
};

class BenchMachine {
  readonly #mm: PageAllocator;
  readonly #compaction: Compaction;

  constructor({ pinCheck, references }: { pinCheck: PinCheck; references: number }) {
    const mm = freeMemory(RAM_PAGES);
    this.#mm = mm;
    const folios = new Folios(mm);
    const cache = folios.mappings.add(CACHE);
    for (let pfn = 0; pfn < RAM_PAGES; pfn++) {
      if (pfn % FREE_EVERY === 0) continue;
      mm.allocExact(pfn, 0, Gfp.GFP_HIGHUSER_MOVABLE);
      if (references === 0) continue;
      mm.pages.setOwner(pfn, PageOwner.FILE);
      mm.pages.setMapping(pfn, cache, 0);
      mm.pages.refcount[pfn] = references;
      folios.lruvec.add(pfn);
    }
    const kernel = bareKernel(mm);
    const generation = new ListGeneration(kernel, folios);
    const migration = new PageMigration(kernel, folios, generation);
    this.#compaction = new Compaction(kernel, folios, migration, { pinCheck });
  }

  /** Compacts by hand; returns millions of frames that were scanned a second. */
  scan(): number {
    const { vmstat } = this.#mm;
    const before = vmstat.compact_migrate_scanned;
    const start = performance.now();
    for (let i = 0; i < RUNS; i++) finish(this.#compaction.compactMemory(1));
    const elapsedMs = performance.now() - start;
    const scanned = vmstat.compact_migrate_scanned - before;
    assert(scanned >= 0.9 * RUNS * RAM_PAGES, 'each run passes all of memory');
    assert(vmstat.compact_isolated === 0, 'nothing there can be moved');
    return scanned / elapsedMs / 1e3;
  }
}
