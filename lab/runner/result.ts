import { z } from 'zod';
import { STRATEGIES } from '../../protocol/control.ts';

/**
 * The result format: what `--json` writes. docs/result.schema.json is generated from this schema
 * and docs/result-format.md explains the figures. Keys may be added, none is ever renamed.
 */

const count = z.number().nonnegative();
const ratio = z.number().nullable();

const migration = z.object({
  status: z.enum(['completed', 'failed', 'cancelled']),
  total_ms: count,
  downtime_ms: count,
  setup_ms: count,
  transferred_bytes: count,
  normal_pages: count,
  duplicate_pages: count,
  skipped_pages: count,
  resent_pages: count,
  dirty_sync_count: count,
  throttle_percentage: count,
  stolen_cpu_ms: count,
});
/** Figures of which prediction and measurement are compared. */
export const ERROR_KEYS = [
  'normal_pages',
  'duplicate_pages',
  'transferred_bytes',
  'total_ms',
] as const;
export type ErrorKey = (typeof ERROR_KEYS)[number];

const measured = z.object({
  status: z.array(z.string()),
  total_ms: z.array(count),
  downtime_ms: z.array(count),
  setup_ms: z.array(count),
  transferred_bytes: z.array(count),
  normal_pages: z.array(count),
  duplicate_pages: z.array(count),
  skipped_pages: z.array(count),
  resent_pages: z.array(count),
  dirty_sync_count: z.array(count),
});

/** Of a real migration, by the names of query-migrate. */
export const MEASURED_KEYS = Object.keys(measured.shape) as (keyof typeof measured.shape)[];

const runSchema = z.object({
  strategy: z.enum(STRATEGIES as readonly [string, ...string[]]),
  variant: z.string().nullable(),
  migration: migration.nullable(),
  /** Of the whole run; `migration` is the last one. */
  migrations: z.object({
    migrations_completed: count,
    migrations_failed: count,
    migrations_cancelled: count,
  }),
  hints: z
    .object({
      rounds: count,
      blocks: count,
      pages: count,
      unique_pages: count,
      already_sent_pages: count,
      useful_precision: ratio,
      late_pages: count,
      stale_pages: count,
      precision_at_record: ratio,
      precision_at_use: ratio,
      recall: ratio,
    })
    .nullable(),
  memory: z
    .object({
      pages: count,
      free_pages_at_end: count,
      wasted_pages: count,
      lost_pages: count,
      broken_free_pages: count,
      undefined_pages: count,
    })
    .nullable(),
  efficiency: ratio,
  limit_bytes: count.nullable(),
  efficiency_of_limit: ratio,
  lock: z.object({ max_hold_ns: count, mean_hold_ns: count, max_nodes: count }).nullable(),
  guest: z
    .object({
      held_pages_max: count,
      alloc_stalls: count,
      alloc_failures: count,
      hinting_cpu_ns: count,
      corruptions: count,
    })
    .nullable(),
  /** A hinted page cannot be in use again before the host let go of it; null: nothing was hinted. */
  holds_pages: z.boolean().nullable(),
  /** Of the last migration; with its remedy, if it has one. */
  dirty_log: z.string().nullable(),
  measured: measured.nullable(),
  error: z
    .object({
      normal_pages: ratio,
      duplicate_pages: ratio,
      transferred_bytes: ratio,
      total_ms: ratio,
    })
    .nullable(),
  event_log_sha256: z.string(),
  wall_ms: count,
  peak_rss_bytes: z.object({ guest: count, host: count }),
  balloon: z.object({ actual_pages: count, protocol_violations: count }),
  device: z.record(z.string(), count),
  vmstat: z.record(z.string(), count),
  mm: z.record(z.string(), count),
  audit_problems: z.array(z.string()),
  failed_steps: z.array(z.object({ where: z.string(), line: z.string(), reason: z.string() })),
  notes: z.array(z.string()),
  lost: z.array(z.object({ pfn: count, history: z.array(z.string()) })),
  expectations: z.array(
    z.object({
      figure: z.string(),
      expected: z.string(),
      found: z.number().nullable(),
      holds: z.boolean(),
    }),
  ),
});

export const resultSchema = z.object({
  ballast: z.string(),
  command: z.string(),
  scenario: z.string(),
  seed: z.int(),
  runs: z.array(runSchema),
});
export type Run = z.infer<typeof runSchema>;
export type Result = z.infer<typeof resultSchema>;

/** JSON schema of the format, as committed in docs/result.schema.json. */
export function resultJsonSchema(): string {
  const schema = z.toJSONSchema(resultSchema);
  return `${JSON.stringify({ title: 'Ballast result', ...schema }, null, 2)}\n`;
}
