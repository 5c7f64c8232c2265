import { MM_FIGURES, VMSTAT_NAMES } from '../../protocol/vmstat.ts';

/** Figures that `expect` and `compare` can bound; the names are those of the result format. */

/** Of a migration, of its comparison with others, and of the balloon. */
export const RUN_FIGURES = [
  'migrations_completed',
  'migrations_failed',
  'migrations_cancelled',
  'total_ms',
  'downtime_ms',
  'setup_ms',
  'transferred_bytes',
  'normal_pages',
  'duplicate_pages',
  'skipped_pages',
  'resent_pages',
  'dirty_sync_count',
  'throttle_percentage',
  'stolen_cpu_ms',
  'rounds',
  'blocks',
  'hinted_pages',
  'unique_pages',
  'already_sent_pages',
  'useful_precision',
  'late_pages',
  'stale_pages',
  'precision_at_record',
  'precision_at_use',
  'recall',
  'free_pages_at_end',
  'wasted_pages',
  'lost_pages',
  'broken_free_pages',
  'undefined_pages',
  'corruptions',
  'efficiency',
  'efficiency_of_limit',
  'max_hold_ns',
  'mean_hold_ns',
  'max_nodes',
  'held_pages_max',
  'alloc_stalls',
  'alloc_failures',
  'actual_pages',
  'protocol_violations',
  'audit_problems',
  'normal_pages_error',
  'duplicate_pages_error',
  'transferred_bytes_error',
  'total_ms_error',
] as const;

/** Counters of the balloon device, from power-on. */
export const DEVICE_FIGURES = [
  'inflated_pfns',
  'deflated_pfns',
  'discarded_pages',
  'inhibited_discards',
  'hint_rounds',
  'hint_pages_accepted',
  'hint_pages_late',
  'reports',
  'report_pages',
  'reports_poisoned',
  'stats_requests',
  'stats_reports',
] as const;

export const FIGURES = [...RUN_FIGURES, ...DEVICE_FIGURES, ...MM_FIGURES, ...VMSTAT_NAMES] as const;
export type FigureName = (typeof FIGURES)[number];
