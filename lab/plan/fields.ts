import { z } from 'zod';
import { BALLOON_QUEUES, type BalloonQueueName } from '../../protocol/balloon.ts';
import {
  CONVERGENCE_POLICIES,
  type KernelOptions,
  type MigrateParams,
  type MmOptions,
  MOVABLE_GENERATIONS,
  type MovableGenerationName,
  PIN_CHECKS,
  type PinCheck,
  STRATEGIES,
  type StrategyName,
} from '../../protocol/control.ts';
import {
  DEVICE_FEATURE_NAMES,
  DEVICE_PROFILES,
  DEVICE_QUIRKS,
  type DeviceConfig,
} from '../../protocol/device-config.ts';
import {
  CLEAR_BITMAP_SHIFT_MAX,
  CLEAR_BITMAP_SHIFT_MIN,
  DIRTY_LOG_POLICIES,
  HINT_REMEDIES,
} from '../../protocol/dirty-log.ts';
import {
  DRIVER_BEHAVIOUR_NAMES,
  DRIVER_FEATURE_NAMES,
  type DriverConfig,
} from '../../protocol/driver-config.ts';
import {
  type Costs,
  DEFAULT_COSTS,
  NS_PER_MS,
  NS_PER_S,
  PAGE_SIZE_BYTES,
} from '../../shared/index.ts';
import { MAX_DURATION_NS, MAX_SIZE_BYTES } from '../input/units.ts';

/** What each setting of a machine may be, in base units: the bounds of scenario files and of the library. */

type FieldsOf<T> = { readonly [K in keyof Required<T>]: z.ZodType };

/** 10 s: far beyond any operation, and sums of them stay exact. */
const COST_NS_MAX = 10 * NS_PER_S;

const NUMBERINGS = ['spec-fixed', 'dense-by-offered', 'dense-by-negotiated'] as const;
const isOn = z.boolean();

export const strategyField = z.enum(STRATEGIES as readonly [StrategyName, ...StrategyName[]]);

export const machineFields = {
  seed: z.int().nonnegative().max(0xffff_ffff),
  memoryBytes: z
    .int()
    .positive()
    .max(MAX_SIZE_BYTES)
    .multipleOf(PAGE_SIZE_BYTES, 'a whole number of pages of 4096 bytes'),
  vcpus: z.int().min(1).max(64),
  auditEveryEvents: z.int().nonnegative(),
  monitorLatencyNs: z.int().nonnegative().max(MAX_DURATION_NS),
};

export const mmFields = {
  initOnAlloc: isOn,
  initOnFree: isOn,
  pagePoison: isOn,
} satisfies FieldsOf<MmOptions>;

export const kernelFields = {
  movableGeneration: z.enum(
    MOVABLE_GENERATIONS as readonly [MovableGenerationName, ...MovableGenerationName[]],
  ),
  pinCheck: z.enum(PIN_CHECKS as readonly [PinCheck, ...PinCheck[]]),
  compactionProactiveness: z.int().min(0).max(100),
  balloonCompaction: isOn,
  movableZonePages: z.int().nonnegative(),
  pageReportingOrder: z.int().min(0).max(10),
} satisfies FieldsOf<KernelOptions>;

const driverFeature = z.enum(DRIVER_FEATURE_NAMES as readonly [string, ...string[]]);

export const driverFields = {
  behaviour: z.enum(DRIVER_BEHAVIOUR_NAMES),
  features: z.array(driverFeature),
  decline: z.array(driverFeature),
  numbering: z.enum(NUMBERINGS),
  onNeedsReset: z.enum(['ignore', 'reset']),
  kicksEarly: isOn,
  hintTrustedFreePages: isOn,
  suspendsDevice: isOn,
} satisfies FieldsOf<DriverConfig>;

export const iterateFields = {
  budgetNodes: z.int().min(1).max(1_000_000),
  minOrder: z.int().min(0).max(10),
};

/** One switch for each name. */
export function switches<K extends string>(
  names: readonly K[],
): Record<K, z.ZodOptional<z.ZodBoolean>> {
  return Object.fromEntries(names.map((name) => [name, isOn.optional()])) as Record<
    K,
    z.ZodOptional<z.ZodBoolean>
  >;
}

/** Descriptors of a split ring. */
const ringSize = z
  .int()
  .min(2)
  .max(1024)
  .refine((size) => Number.isInteger(Math.log2(size)), 'a power of two');

export const deviceFields = {
  profile: z.enum(DEVICE_PROFILES),
  ...switches(DEVICE_FEATURE_NAMES),
  numbering: z.enum(NUMBERINGS),
  discardHints: isOn,
  queueSizes: z.strictObject(
    Object.fromEntries(BALLOON_QUEUES.map(({ name }) => [name, ringSize.optional()])) as Record<
      BalloonQueueName,
      z.ZodOptional<typeof ringSize>
    >,
  ),
  lastCmdId: z.int().nonnegative().max(0xffff_ffff),
  inhibitDiscards: isOn,
  statsPollingIntervalS: z
    .number()
    .nonnegative()
    .max(MAX_DURATION_NS / NS_PER_S),
  quirks: z.strictObject(switches(DEVICE_QUIRKS)),
} satisfies FieldsOf<DeviceConfig>;

export const costFields = Object.fromEntries(
  Object.keys(DEFAULT_COSTS).map((name) => [name, z.int().nonnegative().max(COST_NS_MAX)]),
) as { readonly [K in keyof Costs]: z.ZodInt };

export const migrationFields = {
  bandwidthBytesPerS: z.int().positive().max(MAX_SIZE_BYTES),
  downtimeLimitMs: z
    .number()
    .positive()
    .max(MAX_DURATION_NS / NS_PER_MS),
  dirtyLog: z.enum(DIRTY_LOG_POLICIES),
  hintRemedy: z.enum(HINT_REMEDIES),
  clearBitmapShift: z.int().min(CLEAR_BITMAP_SHIFT_MIN).max(CLEAR_BITMAP_SHIFT_MAX),
  pauseBeforeSwitchover: isOn,
  policy: z.enum(CONVERGENCE_POLICIES),
  vcpuDirtyLimitBytesPerS: z.int().positive().max(MAX_SIZE_BYTES),
} satisfies FieldsOf<MigrateParams>;
