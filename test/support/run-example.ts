import type { Run } from '../../lab/runner/result.ts';

/** A run of the result format with round figures, for tests of what reads it. */
export function exampleRun(
  strategy: string,
  transferredBytes = 1000,
  changes: Partial<Run> = {},
): Run {
  return {
    strategy,
    variant: null,
    migration: {
      status: 'completed',
      total_ms: 3920,
      downtime_ms: 3,
      setup_ms: 0,
      transferred_bytes: transferredBytes,
      normal_pages: 204_260,
      duplicate_pages: 58_110,
      skipped_pages: 200_000,
      resent_pages: 150_000,
      dirty_sync_count: 3,
    },
    hints: {
      rounds: 3,
      blocks: 150_000,
      pages: 200_000,
      late_pages: 1024,
      stale_pages: 17,
      precision_at_record: 1,
      precision_at_use: 0.999,
      recall: 0.951,
    },
    memory: { pages: 262_144, free_pages_at_end: 180_000, wasted_pages: 120_000, lost_pages: 0 },
    efficiency: null,
    lock: { max_hold_ns: 20_100, mean_hold_ns: 900, max_nodes: 1000 },
    guest: { held_pages_max: 150_000, alloc_stalls: 0, alloc_failures: 0, hinting_cpu_ns: 5 },
    measured: null,
    error: null,
    event_log_sha256: 'ab'.repeat(32),
    wall_ms: 1200,
    peak_rss_bytes: { guest: 1, host: 1 },
    balloon: { actual_pages: 0, protocol_violations: 0 },
    device: {},
    vmstat: {},
    mm: {},
    audit_problems: [],
    failed_steps: [],
    notes: [],
    lost: [],
    expectations: [],
    ...changes,
  };
}
