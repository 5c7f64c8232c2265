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
