import { z } from 'zod';
import {
  MOVABLE_GENERATIONS,
  type MovableGenerationName,
  PIN_CHECKS,
  type PinCheck,
  STRATEGIES,
  type StrategyName,
} from '../../protocol/control.ts';
import {
  CLEAR_BITMAP_SHIFT_MAX,
  CLEAR_BITMAP_SHIFT_MIN,
  DIRTY_LOG_POLICIES,
  HINT_REMEDIES,
  HYPERVISOR_NAMES,
  type HypervisorName,
} from '../../protocol/dirty-log.ts';
import {
  DRIVER_BEHAVIOUR_NAMES,
  DRIVER_FEATURE_NAMES,
  type DriverBehaviourName,
} from '../../protocol/driver-config.ts';
import { DEFAULT_COSTS } from '../../shared/index.ts';
import { BARE_CONSOLE_STEPS, consoleSteps } from './console-steps.ts';
import { deviceSchema } from './device.ts';
import { FIGURES, type FigureName } from './figures.ts';
import { durationNs, parseDuration, rateBytesPerS, sizeBytes } from './units.ts';

/**
 * The one schema of scenario files (docs/scenarios.md explains every key). Unknown keys are refused
 * everywhere, so that a slip of the pen is never silently a default.
 */

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
  dirty_log: z.enum(DIRTY_LOG_POLICIES).optional(),
  hint_remedy: z.enum(HINT_REMEDIES).optional(),
  clear_bitmap_shift: z.int().min(CLEAR_BITMAP_SHIFT_MIN).max(CLEAR_BITMAP_SHIFT_MAX).optional(),
});

const factor = z.strictObject({
  factor_at_least: z.number().nonnegative().optional(),
  factor_at_most: z.number().nonnegative().optional(),
});
export type FactorBound = z.infer<typeof factor>;

function everyFigure<T extends z.ZodType>(schema: T): Record<FigureName, z.ZodOptional<T>> {
  const entries = FIGURES.map((name) => [name, schema.optional()]);
  return Object.fromEntries(entries) as Record<FigureName, z.ZodOptional<T>>;
}

/** Names of strategies or variants; which there are is known when the whole file is. */
const only = z.array(z.string()).min(1).optional();
const expectStep = z.strictObject({ for: only, ...everyFigure(bound) });
const compareStep = z.strictObject({ to: z.string(), for: only, ...everyFigure(factor) });

const stepObject = z.strictObject({
  boot: z.null().optional(),
  workload: z.literal('recording').optional(),
  wait: wait.optional(),
  inflate: sizeBytes().optional(),
  deflate: sizeBytes().optional(),
  stats: z.strictObject({ interval: durationNs() }).optional(),
  hint: z.strictObject({ acknowledge_on_stop: z.boolean().optional() }).nullable().optional(),
  ...optionalEach(consoleSteps),
  shell: z.string().min(1).max(4096).optional(),
  migrate: migration.nullable().optional(),
  verify: z.null().optional(),
  expect: expectStep.optional(),
  compare: compareStep.optional(),
});
export const STEP_NAMES = Object.keys(stepObject.shape) as (keyof typeof stepObject.shape)[];

type Optional<S extends Readonly<Record<string, z.ZodType>>> = {
  [K in keyof S]: z.ZodOptional<S[K]>;
};

function optionalEach<S extends Readonly<Record<string, z.ZodType>>>(schemas: S): Optional<S> {
  const entries = Object.entries(schemas).map(([key, schema]) => [key, schema.optional()]);
  return Object.fromEntries(entries) as Optional<S>;
}

/** What a step is that stands alone, by its name. */
const BARE_STEPS: ReadonlyMap<unknown, unknown> = new Map<string, unknown>([
  ...['boot', 'hint', 'migrate', 'verify'].map((name) => [name, null] as const),
  ...BARE_CONSOLE_STEPS.map((name) => [name, {}] as const),
]);

/** A step is one key with its argument; some may stand alone. */
const step = z.preprocess(
  (value) => (BARE_STEPS.has(value) ? { [String(value)]: BARE_STEPS.get(value) } : value),
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

const featureName = z.enum(DRIVER_FEATURE_NAMES as readonly [string, ...string[]]);

const driver = z.strictObject({
  behaviour: z
    .enum(DRIVER_BEHAVIOUR_NAMES as readonly [DriverBehaviourName, ...DriverBehaviourName[]])
    .optional(),
  features: z.array(featureName).optional(),
  decline: z.array(featureName).optional(),
  numbering: z.enum(['spec-fixed', 'dense-by-offered', 'dense-by-negotiated']).optional(),
  on_needs_reset: z.enum(['ignore', 'reset']).optional(),
  kicks_early: z.boolean().optional(),
  hint_trusted_free_pages: z.boolean().optional(),
  suspends_device: z.boolean().optional(),
});

/** What a machine is; without defaults, so that a variant can override single keys. */
const machineSections = {
  machine: z
    .strictObject({ memory: sizeBytes().optional(), vcpus: z.int().min(1).max(64).optional() })
    .optional(),
  mm: z
    .strictObject({
      init_on_alloc: z.boolean().optional(),
      init_on_free: z.boolean().optional(),
      page_poison: z.boolean().optional(),
      movable_generation: z
        .enum(MOVABLE_GENERATIONS as readonly [MovableGenerationName, ...MovableGenerationName[]])
        .optional(),
      pin_check: z.enum(PIN_CHECKS as readonly [PinCheck, ...PinCheck[]]).optional(),
      compaction_proactiveness: z.int().min(0).max(100).optional(),
      balloon_compaction: z.boolean().optional(),
      movable_zone: sizeBytes().optional(),
      page_reporting_order: z.int().min(0).max(10).optional(),
    })
    .optional(),
  iterate: z
    .strictObject({
      budget: z.int().min(1).max(1_000_000).optional(),
      min_order: z.int().min(0).max(10).optional(),
    })
    .optional(),
  migration: migration.extend({ monitor_latency: durationNs().optional() }).optional(),
  device: deviceSchema.optional(),
  driver: driver.optional(),
  costs: costs.optional(),
};
export const SECTIONS = Object.keys(machineSections) as (keyof typeof machineSections)[];

const hypervisor = z.enum(HYPERVISOR_NAMES as [HypervisorName, ...HypervisorName[]]).optional();

const variant = z.strictObject({
  name: z
    .string()
    .regex(/^[A-Za-z0-9_.-]{1,24}$/, 'a name of at most 24 letters, digits, "_", "." or "-"'),
  hypervisor,
  ...machineSections,
});

export const scenarioSchema = z.strictObject({
  name: z.string().min(1).max(80).optional(),
  description: z.string().optional(),
  seed: z.int().nonnegative().max(0xffff_ffff).default(1),
  guest: z.enum(['ballast', 'linux']).default('ballast'),
  recording: z.string().min(1).optional(),
  hypervisor,
  ...machineSections,
  variants: z.array(variant).min(1).max(16).optional(),
  strategy: strategyName.optional(),
  strategies: strategyList.optional(),
  audit_every_events: z.int().nonnegative().default(0),
  plant: z.strictObject({ accept_late_hints: z.boolean().default(false) }).prefault({}),
  steps: z.array(step).min(1).optional(),
});
export type ScenarioFile = z.infer<typeof scenarioSchema>;
export type VariantFile = z.infer<typeof variant>;
export type StepFile = z.infer<typeof step>;
