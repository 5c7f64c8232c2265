/**
 * What a kernel says of its memory: /proc/meminfo and the events of /proc/vmstat, in bytes and
 * counts (linux si_meminfo, si_mem_available). A recorded guest's page cache is not told from other
 * memory of user space, so it does not appear here.
 */
import { BalloonStatTag } from '../../protocol/index.ts';
import { PAGE_SIZE_BYTES } from '../../shared/index.ts';
import { LruList, type Lruvec } from '../folio/index.ts';
import { AllocFlag, type PageAllocator } from '../mm/index.ts';

export class MemInfo {
  readonly #mm: PageAllocator;
  readonly #lruvec: Lruvec;

  constructor(mm: PageAllocator, lruvec: Lruvec) {
    this.#mm = mm;
    this.#lruvec = lruvec;
  }

  /** The figures for these tags, in bytes or counts as virtio 1.4 §5.5.6.4 has them. */
  statistics(tags: readonly BalloonStatTag[]): [tag: BalloonStatTag, value: number][] {
    return tags.map((tag) => [tag, this.#value(tag)]);
  }

  #value(tag: BalloonStatTag): number {
    const { vmstat } = this.#mm;
    switch (tag) {
      // No swap device and no hugetlbfs: nothing of the kind has ever happened.
      case BalloonStatTag.SWAP_IN:
      case BalloonStatTag.SWAP_OUT:
      case BalloonStatTag.HTLB_PGALLOC:
      case BalloonStatTag.HTLB_PGFAIL:
        return 0;
      case BalloonStatTag.MAJFLT:
        return vmstat.pgmajfault;
      case BalloonStatTag.MINFLT:
        return vmstat.pgfault;
      case BalloonStatTag.MEMFREE:
        return this.#freePages() * PAGE_SIZE_BYTES;
      case BalloonStatTag.MEMTOT:
        return this.#sumOf((zone) => zone.managedPages) * PAGE_SIZE_BYTES;
      case BalloonStatTag.AVAIL:
        return this.#availablePages() * PAGE_SIZE_BYTES;
      case BalloonStatTag.CACHES:
        return vmstat.nr_file_pages * PAGE_SIZE_BYTES;
      case BalloonStatTag.OOM_KILL:
        return vmstat.oom_kill;
      case BalloonStatTag.ALLOC_STALL:
        return vmstat.allocstall;
      case BalloonStatTag.ASYNC_SCAN:
        return vmstat.pgscan_kswapd * PAGE_SIZE_BYTES;
      case BalloonStatTag.DIRECT_SCAN:
        return vmstat.pgscan_direct * PAGE_SIZE_BYTES;
      case BalloonStatTag.ASYNC_RECLAIM:
        return vmstat.pgsteal_kswapd * PAGE_SIZE_BYTES;
      case BalloonStatTag.DIRECT_RECLAIM:
        return vmstat.pgsteal_direct * PAGE_SIZE_BYTES;
    }
  }

  /** Less than the watermarks of all zones that kswapd works for: Windows calls it low memory. */
  get isLow(): boolean {
    return this.#freePages() < this.#sumOf((zone) => zone.watermarkPages[AllocFlag.WMARK_HIGH]!);
  }

  /** NR_FREE_PAGES */
  #freePages(): number {
    return this.#sumOf((zone) => zone.freePages);
  }

  /** si_mem_available: free beyond the reserves, and page cache as far as reclaim would give it. */
  #availablePages(): number {
    const low = this.#sumOf((zone) => zone.watermarkPages[AllocFlag.WMARK_LOW]!);
    const { nrPages } = this.#lruvec;
    const cache = nrPages[LruList.ACTIVE_FILE]! + nrPages[LruList.INACTIVE_FILE]!;
    const available = this.#freePages() - this.#reservePages() + cache - Math.min(cache >> 1, low);
    return Math.max(0, available);
  }

  /** totalreserve_pages */
  #reservePages(): number {
    return this.#sumOf((zone) => {
      const reserve = Math.max(...zone.lowmemReservePages.subarray(zone.index));
      return Math.min(reserve + zone.watermarkPages[AllocFlag.WMARK_HIGH]!, zone.managedPages);
    });
  }

  #sumOf(pagesOf: (zone: PageAllocator['zones'][number]) => number): number {
    return this.#mm.zones.reduce((sum, zone) => sum + pagesOf(zone), 0);
  }
}
