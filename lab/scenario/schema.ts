import { z } from 'zod';
import type { RunEnd } from '../../protocol/control.ts';
import { HYPERVISOR_NAMES, type HypervisorName } from '../../protocol/dirty-log.ts';
import { optionalEach } from '../input/optional-each.ts';
import {
  durationNs,
  MAX_DURATION_NS,
  parseDuration,
  rateBytesPerS,
  sizeBytes,
} from '../input/units.ts';
import {
  costFields,
  driverFields,
  iterateFields,
  kernelFields,
  machineFields,
  migrationFields,
  mmFields,
  strategyField,
} from '../plan/fields.ts';
import { BARE_CONSOLE_STEPS, consoleSteps } from './console-steps.ts';
import { deviceSchema } from './device.ts';
import { FIGURES, type FigureName } from './figures.ts';

/**
 * The one schema of scenario files (docs/scenarios.md explains every key). Unknown keys are refused
 * everywhere, so that a slip of the pen is never silently a default.
 */

const strategyList = z.array(strategyField).min(1);

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

const wait = z.unknown().transform((value, context): WaitFile => {
  const { until, at_most: atMostNs } = untilMoment.safeParse(value).data ?? {};
  if (until === 'migrate_at' && atMostNs === undefined) return { until };
  const end = until === undefined ? null : runEndOf(until);
  if (end) return { end, atMostNs: atMostNs ?? MAX_DURATION_NS };
  const ns = parseDuration(value);
  if (typeof ns === 'number') return { forNs: ns };
  const moments = 'migrate_at, migration, switchover, balloon or a pass such as "pass 3"';
  context.addIssue({ code: 'custom', message: `${ns}, or { until } with ${moments}` });
  return z.NEVER;
});
const untilMoment = z.strictObject({ until: z.string(), at_most: durationNs().optional() });
type WaitFile = { forNs: number } | { until: 'migrate_at' } | { end: RunEnd; atMostNs: number };

/** Null: there is no such moment. */
function runEndOf(until: string): RunEnd | null {
  if (until === 'migration' || until === 'switchover' || until === 'balloon') {
    return { kind: until };
  }
  const pass = Number(/^pass (\d{1,6})$/.exec(until)?.[1]);
  return pass > 0 ? { kind: 'pass', pass } : null;
}

const migration = z.strictObject({
  bandwidth: rateBytesPerS().optional(),
  downtime_limit: durationNs().optional(),
  dirty_log: migrationFields.dirtyLog.optional(),
  hint_remedy: migrationFields.hintRemedy.optional(),
  clear_bitmap_shift: migrationFields.clearBitmapShift.optional(),
  pause_before_switchover: z.boolean().optional(),
  policy: migrationFields.policy.optional(),
  vcpu_dirty_limit: rateBytesPerS().optional(),
});
export type MigrationFile = z.infer<typeof migration>;

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
  migrate: migration
    .extend({ wait: z.boolean().default(true) })
    .nullable()
    .optional(),
  target: z.union([z.literal(0), sizeBytes()], 'a size such as 512MiB, or 0').optional(),
  stop: z.null().optional(),
  cont: z.null().optional(),
  cancel: z.null().optional(),
  continue: z.null().optional(),
  limits: migration
    .pick({ bandwidth: true, downtime_limit: true })
    .refine((given) => Object.keys(given).length > 0, 'bandwidth, downtime_limit or both')
    .optional(),
  link: z
    .union([z.literal('down'), z.strictObject({ stall: durationNs() })], 'down or { stall: 2s }')
    .optional(),
  kill: z.enum(['source', 'destination', 'guest']).optional(),
  verify: z.null().optional(),
  expect: expectStep.optional(),
  compare: compareStep.optional(),
});
export const STEP_NAMES = Object.keys(stepObject.shape) as (keyof typeof stepObject.shape)[];

/** Steps without an argument, or with one that may be left out. */
const BARE_STEP_NAMES = [
  ...['boot', 'hint', 'migrate', 'verify'],
  ...['stop', 'cont', 'cancel', 'continue'],
] as const;

/** What a step is that stands alone, by its name. */
const BARE_STEPS: ReadonlyMap<unknown, unknown> = new Map<string, unknown>([
  ...BARE_STEP_NAMES.map((name) => [name, null] as const),
  ...BARE_CONSOLE_STEPS.map((name) => [name, {}] as const),
]);

/** A step is one key with its argument; some may stand alone. */
const step = z.preprocess(
  (value) => (BARE_STEPS.has(value) ? { [String(value)]: BARE_STEPS.get(value) } : value),
  stepObject.refine((value) => Object.keys(value).length === 1, {
    message: `one step: ${STEP_NAMES.join(', ')}`,
  }),
);

const costs = z.strictObject(costFields).partial();

const driver = z.strictObject({
  behaviour: driverFields.behaviour.optional(),
  features: driverFields.features.optional(),
  decline: driverFields.decline.optional(),
  numbering: driverFields.numbering.optional(),
  on_needs_reset: driverFields.onNeedsReset.optional(),
  kicks_early: driverFields.kicksEarly.optional(),
  hint_trusted_free_pages: driverFields.hintTrustedFreePages.optional(),
  suspends_device: driverFields.suspendsDevice.optional(),
});

/** What a machine is; without defaults, so that a variant can override single keys. */
const machineSections = {
  machine: z
    .strictObject({ memory: sizeBytes().optional(), vcpus: machineFields.vcpus.optional() })
    .optional(),
  mm: z
    .strictObject({
      init_on_alloc: mmFields.initOnAlloc.optional(),
      init_on_free: mmFields.initOnFree.optional(),
      page_poison: mmFields.pagePoison.optional(),
      movable_generation: kernelFields.movableGeneration.optional(),
      pin_check: kernelFields.pinCheck.optional(),
      compaction_proactiveness: kernelFields.compactionProactiveness.optional(),
      balloon_compaction: kernelFields.balloonCompaction.optional(),
      movable_zone: sizeBytes().optional(),
      page_reporting_order: kernelFields.pageReportingOrder.optional(),
    })
    .optional(),
  iterate: z
    .strictObject({
      budget: iterateFields.budgetNodes.optional(),
      min_order: iterateFields.minOrder.optional(),
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
  seed: machineFields.seed.default(1),
  guest: z.enum(['ballast', 'linux']).default('ballast'),
  recording: z.string().min(1).optional(),
  hypervisor,
  ...machineSections,
  variants: z.array(variant).min(1).max(16).optional(),
  strategy: strategyField.optional(),
  strategies: strategyList.optional(),
  audit_every_events: machineFields.auditEveryEvents.default(0),
  plant: z.strictObject({ accept_late_hints: z.boolean().default(false) }).prefault({}),
  steps: z.array(step).min(1).optional(),
});
export type ScenarioFile = z.infer<typeof scenarioSchema>;
export type VariantFile = z.infer<typeof variant>;
export type StepFile = z.infer<typeof step>;
