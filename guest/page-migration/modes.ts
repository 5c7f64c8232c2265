/** How page migration is asked for (linux include/linux/migrate_mode.h), and what it is given. */
import type { Pfn } from '../../shared/index.ts';

/**
 * ASYNC never blocks; SYNC_LIGHT may wait for a lock but not for writeback; SYNC waits for both.
 */
export const MigrateMode = { ASYNC: 0, SYNC_LIGHT: 1, SYNC: 2 } as const;
export type MigrateMode = (typeof MigrateMode)[keyof typeof MigrateMode];

/** enum migrate_reason, by the names that trace events print. */
export const MIGRATE_REASONS = [
  'compaction',
  'memory_failure',
  'memory_hotplug',
  'syscall_or_cpuset',
  'mempolicy_mbind',
  'numa_misplaced',
  'contig_range',
  'longterm_pin',
  'demotion',
] as const;
export type MigrateReason = (typeof MIGRATE_REASONS)[number];

/** Where pages go: new_folio_t and free_folio_t. Plain code; what it costs is the owner's to charge. */
export interface MigrateTarget {
  /** A block of that order with one reference, or −ENOMEM. */
  alloc(src: Pfn, order: number): number;
  /** Takes back one that was not used. */
  free(dst: Pfn): void;
}

export interface MigrateRequest {
  readonly mode: MigrateMode;
  readonly reason: MigrateReason;
  readonly target: MigrateTarget;
  /** PF_MEMALLOC: the caller is on its way to free memory and never sleeps on a page lock. */
  readonly isMemalloc?: boolean;
  /**
   * Told of each page that has moved, before its source is freed; `dst` is freed, too, if the
   * source was released meanwhile and nothing had to be moved.
   */
  onMigrated?(src: Pfn, dst: Pfn): void;
}
