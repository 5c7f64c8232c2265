/** What long-term pins cost compaction, under each way to look for them before a page is isolated. */
import { expect, test } from 'vitest';
import type { Mapping } from '../../../../guest/folio/index.ts';
import {
  Gfp,
  GUP_PIN_COUNTING_BIAS,
  PAGEBLOCK_ORDER,
  PageOwner,
  ZoneType,
} from '../../../../guest/mm/index.ts';
import type { Kthread } from '../../../../guest/sched/kthread.ts';
import { PIN_CHECKS, type PinCheck } from '../../../../protocol/index.ts';
import { KERNEL_PAGES } from '../page-migration/machine.ts';
import { CompactionMachine } from './machine.ts';

/** 1 GiB, of which nine tenths are memory of another guest, which a VFIO device has pinned. */
const RAM_PAGES = 1 << 18;

/** Shared memory: a slot and one PTE a page. Where a page is does not matter here. */
const SHMEM: Mapping = {
  cacheReferences: 1,
  migratesDirty: true,
  unmapForMigration() {},
  removeMigrationPtes() {},
  replace() {},
  tryToDrop: () => false,
};

/** Of 20 frames one is free and one is neither; of those that are neither a 25th can be moved. */
function pinnedGuest(pinCheck: PinCheck): CompactionMachine {
  const machine = new CompactionMachine({ ramPages: RAM_PAGES, pinCheck });
  const { mm, pages, folios } = machine;
  const shmem = folios.mappings.add(SHMEM);
  for (let pfn = KERNEL_PAGES; pfn < RAM_PAGES; pfn++) {
    const place = pfn % 20;
    if (place === 0) continue;
    mm.allocExact(pfn, 0, Gfp.GFP_HIGHUSER_MOVABLE);
    pages.setOwner(pfn, place === 1 ? PageOwner.SLAB : PageOwner.FILE);
    if (place === 1 && pfn % 500 !== 1) continue;
    pages.setOwner(pfn, PageOwner.FILE);
    pages.setMapping(pfn, shmem, 0);
    pages.refcount[pfn] = 1 + (place === 1 ? 0 : GUP_PIN_COUNTING_BIAS);
    folios.lruvec.add(pfn);
  }
  return machine;
}

/** An order-9 allocation that fails: direct compaction of every priority, and kcompactd. */
function askForHugePage(pinCheck: PinCheck) {
  const machine = pinnedGuest(pinCheck);
  const { compaction } = machine;
  const got = machine.run(function* (): Kthread<boolean> {
    const got = yield* compaction.directCompact(PAGEBLOCK_ORDER, Gfp.GFP_HIGHUSER_MOVABLE);
    compaction.onKswapdSleep();
    yield* compaction.compactFor(PAGEBLOCK_ORDER, ZoneType.NORMAL);
    return got;
  });
  expect(got).toBe(false);
  const { compact_isolated, pgmigrate_fail, compact_stall } = machine.mm.vmstat;
  expect(compact_stall).toBe(3);
  const { compaction_cpu_ns } = compaction.counters;
  return { isolated: compact_isolated, failed: pgmigrate_fail, cpuNs: compaction_cpu_ns };
}

test('pages pinned by VFIO are isolated in vain unless pins of shared memory are looked for', () => {
  const { anonymous, extra_refs, maybe_dma_pinned } = Object.fromEntries(
    PIN_CHECKS.map((pinCheck) => [pinCheck, askForHugePage(pinCheck)]),
  ) as Record<PinCheck, ReturnType<typeof askForHugePage>>;
  expect(anonymous.failed).toBeGreaterThan(150_000);
  for (const checked of [extra_refs, maybe_dma_pinned]) {
    expect(anonymous.isolated / checked.isolated).toBeGreaterThan(100);
    expect(anonymous.failed / Math.max(1, checked.failed)).toBeGreaterThan(1000);
    expect(anonymous.cpuNs / checked.cpuNs).toBeGreaterThan(10);
  }
});
