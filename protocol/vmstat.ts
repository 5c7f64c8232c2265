/**
 * Names of the guest's counters that results show and scenarios may expect. Guest and laboratory
 * agree on them here; the guest's statistics have more, which are for debugging.
 */

/** Those of /proc/vmstat, in its order; pages where Linux counts pages. */
export const VMSTAT_NAMES = [
  'nr_free_pages',
  'pgalloc_dma',
  'pgalloc_dma32',
  'pgalloc_normal',
  'pgalloc_movable',
  'allocstall',
  'nr_file_pages',
  'nr_shmem',
  'nr_dirty',
  'nr_writeback',
  'pgfree',
  'pgactivate',
  'pgdeactivate',
  'pgfault',
  'pgmajfault',
  'pgrefill',
  'pgsteal_kswapd',
  'pgsteal_direct',
  'pgscan_kswapd',
  'pgscan_direct',
  'slabs_scanned',
  'pageoutrun',
  'pgrotated',
  'oom_kill',
  'pgmigrate_success',
  'pgmigrate_fail',
  'compact_migrate_scanned',
  'compact_free_scanned',
  'compact_isolated',
  'compact_stall',
  'compact_fail',
  'compact_success',
  'compact_daemon_wake',
  'compact_daemon_migrate_scanned',
  'compact_daemon_free_scanned',
  'balloon_inflate',
  'balloon_deflate',
  'balloon_migrate',
] as const;

/** MAX_PAGE_ORDER of the guest. */
export const MAX_ORDER = 10;
const ORDERS = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10] as const;
type Order = (typeof ORDERS)[number];
const perOrder = <N extends string>(name: N) =>
  ORDERS.map((order) => `${name}_order${order}` as `${N}_order${Order}`);

/** What the guest counts besides: CPU time in ns, what console lines have got, what is left. */
export const MM_COUNTERS = [
  'compaction_cpu_ns',
  'kcompactd_cpu_ns',
  'managed_pages',
  'balloon_pages',
  'soft_offline',
  'soft_offline_failed',
  'hwpoison_pages',
  'contig_success',
  'contig_fail',
  ...perOrder('alloc_attempts'),
  ...perOrder('alloc_success'),
] as const;

/** The counters, and what the laboratory computes of them: successes ÷ attempts since boot. */
export const MM_FIGURES = [...MM_COUNTERS, ...perOrder('alloc_success_rate')] as const;
