import { BalloonStatTag } from './balloon.ts';

/**
 * Names of the memory statistics as QMP's `guest-stats` gives them, by tag: the first ten since
 * QEMU 1.5, the others since QEMU 9.1 with Linux 6.12.
 */
export const GUEST_STATS: ReadonlyMap<number, string> = new Map([
  [BalloonStatTag.SWAP_IN, 'stat-swap-in'],
  [BalloonStatTag.SWAP_OUT, 'stat-swap-out'],
  [BalloonStatTag.MAJFLT, 'stat-major-faults'],
  [BalloonStatTag.MINFLT, 'stat-minor-faults'],
  [BalloonStatTag.MEMFREE, 'stat-free-memory'],
  [BalloonStatTag.MEMTOT, 'stat-total-memory'],
  [BalloonStatTag.AVAIL, 'stat-available-memory'],
  [BalloonStatTag.CACHES, 'stat-disk-caches'],
  [BalloonStatTag.HTLB_PGALLOC, 'stat-htlb-pgalloc'],
  [BalloonStatTag.HTLB_PGFAIL, 'stat-htlb-pgfail'],
  [BalloonStatTag.OOM_KILL, 'stat-oom-kills'],
  [BalloonStatTag.ALLOC_STALL, 'stat-alloc-stalls'],
  [BalloonStatTag.ASYNC_SCAN, 'stat-async-scans'],
  [BalloonStatTag.DIRECT_SCAN, 'stat-direct-scans'],
  [BalloonStatTag.ASYNC_RECLAIM, 'stat-async-reclaims'],
  [BalloonStatTag.DIRECT_RECLAIM, 'stat-direct-reclaims'],
]);

/** What a host knows of its guest's memory statistics. */
export interface GuestStatsReport {
  /** By the names of `GUEST_STATS`; null: not in the last answer. */
  readonly stats: Readonly<Record<string, number | null>>;
  /** When the guest answered last, ns of virtual time; null: never. */
  readonly last_update_ns: number | null;
  /** Nobody stands behind the figures: never answered, or asked for longer than one interval ago. */
  readonly stale: boolean;
}
