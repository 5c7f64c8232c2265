/** Counters with the names of /proc/vmstat, in pages where Linux counts pages. */
export interface MmVmstat {
  pgalloc_dma: number;
  pgalloc_dma32: number;
  pgalloc_normal: number;
  pgalloc_movable: number;
  pgfree: number;
  /** Direct reclaims that an allocation had to wait for. */
  allocstall: number;
  /** Times an allocation would have woken kswapd: the low watermark was not met. */
  kswapd_wakeups: number;
  /** Allocations that returned no page. */
  alloc_failures: number;
  /** Page faults; those that had to wait for storage. */
  pgfault: number;
  pgmajfault: number;
  /** Pages that moved between the active and the inactive list, and that were looked at for it. */
  pgactivate: number;
  pgdeactivate: number;
  pgrefill: number;
  /** Inactive pages that reclaim looked at, and that it freed. */
  pgscan_kswapd: number;
  pgscan_direct: number;
  pgsteal_kswapd: number;
  pgsteal_direct: number;
  /** Pages that reclaim has written and that went to the end of the inactive list. */
  pgrotated: number;
  /** Objects that shrinkers were asked to look at. */
  slabs_scanned: number;
  /** Times that kswapd balanced the node. */
  pageoutrun: number;
  /** Processes that the OOM killer ended. */
  oom_kill: number;
  /** Now: page cache with shared memory, that alone, dirty pages of files, pages being written. */
  nr_file_pages: number;
  nr_shmem: number;
  nr_dirty: number;
  nr_writeback: number;
  /** Pages that page migration moved, and that it gave up. */
  pgmigrate_success: number;
  pgmigrate_fail: number;
  /** Page frames that compaction's two scanners looked at. */
  compact_migrate_scanned: number;
  compact_free_scanned: number;
  /** Pages that compaction took, to move them or as targets. */
  compact_isolated: number;
  /** Direct compactions that an allocation waited for, and how they ended. */
  compact_stall: number;
  compact_fail: number;
  compact_success: number;
  compact_daemon_wake: number;
  compact_daemon_migrate_scanned: number;
  compact_daemon_free_scanned: number;
}

/** Name of the allocation counter of each zone, by `ZoneType`. */
export const PGALLOC = [
  'pgalloc_dma',
  'pgalloc_dma32',
  'pgalloc_normal',
  'pgalloc_movable',
] as const;

export function zeroVmstat(): MmVmstat {
  return {
    pgalloc_dma: 0,
    pgalloc_dma32: 0,
    pgalloc_normal: 0,
    pgalloc_movable: 0,
    pgfree: 0,
    allocstall: 0,
    kswapd_wakeups: 0,
    alloc_failures: 0,
    pgfault: 0,
    pgmajfault: 0,
    pgactivate: 0,
    pgdeactivate: 0,
    pgrefill: 0,
    pgscan_kswapd: 0,
    pgscan_direct: 0,
    pgsteal_kswapd: 0,
    pgsteal_direct: 0,
    pgrotated: 0,
    slabs_scanned: 0,
    pageoutrun: 0,
    oom_kill: 0,
    nr_file_pages: 0,
    nr_shmem: 0,
    nr_dirty: 0,
    nr_writeback: 0,
    pgmigrate_success: 0,
    pgmigrate_fail: 0,
    compact_migrate_scanned: 0,
    compact_free_scanned: 0,
    compact_isolated: 0,
    compact_stall: 0,
    compact_fail: 0,
    compact_success: 0,
    compact_daemon_wake: 0,
    compact_daemon_migrate_scanned: 0,
    compact_daemon_free_scanned: 0,
  };
}
