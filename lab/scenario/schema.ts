import { z } from 'zod';
import { STRATEGIES, type StrategyName } from '../../protocol/control.ts';
import { DEFAULT_COSTS } from '../../shared/index.ts';
import { durationNs, parseDuration, rateBytesPerS, sizeBytes } from './units.ts';

/**
 * The one schema of scenario files (docs/scenarios.md explains every key). Unknown keys are refused
 * everywhere, so that a slip of the pen is never silently a default.
 */

/** Figures that `expect` can bound; the names are those of the result format. */
export const FIGURES = [
  'total_ms',
  'downtime_ms',
  'setup_ms',
  'transferred_bytes',
  'normal_pages',
  'duplicate_pages',
  'skipped_pages',
  'resent_pages',
  'dirty_sync_count',
  'rounds',
  'blocks',
  'hinted_pages',
  'late_pages',
  'stale_pages',
  'precision_at_record',
  'precision_at_use',
  'recall',
  'free_pages_at_end',
  'wasted_pages',
  'lost_pages',
  'efficiency',
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
export type FigureName = (typeof FIGURES)[number];

const strategyName = z.enum(STRATEGIES as readonly [StrategyName, ...StrategyName[]]);
const strategyList = z.array(strategyName).min(1);

const bound = z.unknown().transform((value, context) => {
  if (typeof value === 'number') return { equal: value };
  const parsed = boundObject.safeParse(value);
  if (parsed.success && Object.keys(parsed.data).length > 0) return parsed.data;
  context.addIssue({
    code: 'custom',
    message: 'a number, or at_least, at_most or within with a number',
  });
  return z.NEVER;
});
const boundObject = z.strictObject({
  at_least: z.number().optional(),
  at_most: z.number().optional(),
  /** Distance from 0: for the errors, which have a sign. */
  within: z.number().nonnegative().optional(),
});
export type Bound = { equal?: number } & z.infer<typeof boundObject>;

const wait = z
  .unknown()
  .transform((value, context): { forNs: number } | { until: 'migrate_at' } => {
    if (untilMigrateAt.safeParse(value).success) return { until: 'migrate_at' };
    const ns = parseDuration(value);
    if (typeof ns === 'number') return { forNs: ns };
    context.addIssue({ code: 'custom', message: `${ns}, or {until: migrate_at}` });
    return z.NEVER;
  });
const untilMigrateAt = z.strictObject({ until: z.literal('migrate_at') });

const migration = z.strictObject({
  bandwidth: rateBytesPerS().optional(),
  downtime_limit: durationNs().optional(),
  clear_log: z.enum(['at-sync', 'lazy', 'lazy-at-start']).optional(),
});

const figureBounds = Object.fromEntries(FIGURES.map((name) => [name, bound.optional()])) as Record<
  FigureName,
  z.ZodOptional<typeof bound>
>;
const expectStep = z.strictObject({ for: strategyList.optional(), ...figureBounds });

const stepObject = z.strictObject({
  boot: z.null().optional(),
  workload: z.literal('recording').optional(),
  wait: wait.optional(),
  inflate: sizeBytes().optional(),
  deflate: sizeBytes().optional(),
  migrate: migration.nullable().optional(),
  verify: z.null().optional(),
  expect: expectStep.optional(),
});
export const STEP_NAMES = Object.keys(stepObject.shape) as (keyof typeof stepObject.shape)[];

/** A step is one key with its argument; `boot`, `migrate` and `verify` may stand alone. */
const step = z.preprocess(
  (value) =>
    typeof value === 'string' && /^(boot|migrate|verify)$/.test(value) ? { [value]: null } : value,
  stepObject.refine((value) => Object.keys(value).length === 1, {
    message: `one step: ${STEP_NAMES.join(', ')}`,
  }),
);

/** 10 s: far beyond any operation, and sums of them stay exact. */
const COST_NS_MAX = 10_000_000_000;

const costs = z.strictObject(
  Object.fromEntries(
    Object.keys(DEFAULT_COSTS).map((name) => [
      name,
      z.int().nonnegative().max(COST_NS_MAX).optional(),
    ]),
  ),
);

export const scenarioSchema = z.strictObject({
  name: z.string().min(1).max(80).optional(),
  description: z.string().optional(),
  seed: z.int().nonnegative().max(0xffff_ffff).default(1),
  machine: z
    .strictObject({ memory: sizeBytes().optional(), vcpus: z.int().min(1).max(64).optional() })
    .default({}),
  recording: z.string().min(1).optional(),
  mm: z
    .strictObject({
      init_on_alloc: z.boolean().optional(),
      init_on_free: z.boolean().optional(),
      page_poison: z.boolean().optional(),
    })
    .default({}),
  strategy: strategyName.optional(),
  strategies: strategyList.optional(),
  iterate: z
    .strictObject({
      budget: z.int().min(1).max(1_000_000).default(1000),
      min_order: z.int().min(0).max(10).default(0),
    })
    .prefault({}),
  migration: migration.extend({ monitor_latency: durationNs().optional() }).default({}),
  device: z
    .strictObject({
      free_page_hint: z.boolean().optional(),
      must_tell_host: z.boolean().optional(),
      hint_wait_on_ack: z.boolean().optional(),
      discard_hints: z.boolean().optional(),
    })
    .default({}),
  costs: costs.default({}),
  audit_every_events: z.int().nonnegative().default(0),
  plant: z.strictObject({ accept_late_hints: z.boolean().default(false) }).prefault({}),
  steps: z.array(step).min(1).optional(),
});
export type ScenarioFile = z.infer<typeof scenarioSchema>;
export type StepFile = z.infer<typeof step>;
