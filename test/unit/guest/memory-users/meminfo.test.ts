import { expect, test } from 'vitest';
import { LruList } from '../../../../guest/folio/lruvec.ts';
import { MemInfo } from '../../../../guest/memory-users/meminfo.ts';
import { AllocFlag, Gfp } from '../../../../guest/mm/index.ts';
import { BalloonStatTag as Tag } from '../../../../protocol/index.ts';
import { bareKernel } from '../kernel/machine.ts';

const RAM_PAGES = 16_384;
const PAGE = 4096;

function machine() {
  const { mm } = bareKernel({ ramPages: RAM_PAGES, isFree: (pfn) => pfn >= 1024 });
  const lruvec = { nrPages: new Int32Array(5) };
  const info = new MemInfo(mm, lruvec as never);
  const of = (tag: Tag) => info.statistics([tag])[0]![1];
  const lowPages = mm.zones.reduce((sum, z) => sum + z.watermarkPages[AllocFlag.WMARK_LOW]!, 0);
  return { mm, lruvec, info, of, lowPages };
}

const events = [
  [Tag.MAJFLT, 'pgmajfault', 1],
  [Tag.MINFLT, 'pgfault', 1],
  [Tag.OOM_KILL, 'oom_kill', 1],
  [Tag.ALLOC_STALL, 'allocstall', 1],
  [Tag.ASYNC_SCAN, 'pgscan_kswapd', PAGE],
  [Tag.DIRECT_SCAN, 'pgscan_direct', PAGE],
  [Tag.ASYNC_RECLAIM, 'pgsteal_kswapd', PAGE],
  [Tag.DIRECT_RECLAIM, 'pgsteal_direct', PAGE],
  [Tag.CACHES, 'nr_file_pages', PAGE],
] as const;

test.each(events)('tag %i is %s, times %i', (tag, counter, unit) => {
  const { mm, of } = machine();
  mm.vmstat[counter] = 12_345;
  expect(of(tag)).toBe(12_345 * unit);
});

test('memory is counted in bytes, and what is taken is not free', () => {
  const { mm, of } = machine();
  const managed = mm.zones.reduce((sum, zone) => sum + zone.managedPages, 0);
  expect(of(Tag.MEMTOT)).toBe(managed * PAGE);
  const before = of(Tag.MEMFREE);
  mm.alloc(9, Gfp.GFP_KERNEL);
  expect(before - of(Tag.MEMFREE)).toBe(512 * PAGE);
});

test('available is what is free beyond the reserves, with the page cache that reclaim would give', () => {
  const { lruvec, of, lowPages } = machine();
  const without = of(Tag.AVAIL);
  expect(without).toBeGreaterThan(0);
  expect(without).toBeLessThan(of(Tag.MEMFREE));
  // Of much cache the low watermarks stay, of little one half.
  lruvec.nrPages[LruList.ACTIVE_FILE] = 4000;
  expect(of(Tag.AVAIL) - without).toBe((4000 - lowPages) * PAGE);
  lruvec.nrPages[LruList.ACTIVE_FILE] = 10;
  expect(of(Tag.AVAIL) - without).toBe(5 * PAGE);
});

test('there is no swap and no hugetlbfs', () => {
  const { info } = machine();
  const tags = [Tag.SWAP_IN, Tag.SWAP_OUT, Tag.HTLB_PGALLOC, Tag.HTLB_PGFAIL];
  expect(info.statistics(tags)).toEqual(tags.map((tag) => [tag, 0]));
});

test('memory is low below the high watermarks', () => {
  const { mm, info } = machine();
  expect(info.isLow).toBe(false);
  while (mm.alloc(0, Gfp.GFP_ATOMIC) >= 0);
  expect(info.isLow).toBe(true);
});
