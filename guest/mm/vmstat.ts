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
  };
}
