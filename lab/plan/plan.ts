import { z } from 'zod';
import type {
  KernelOptions,
  MigrateParams,
  MmOptions,
  StrategyName,
} from '../../protocol/control.ts';
import type { DeviceConfig } from '../../protocol/device-config.ts';
import type { DriverConfig } from '../../protocol/driver-config.ts';
import type { Costs } from '../../shared/index.ts';
import { type Problem, problemsOf } from '../input/problems.ts';
import type { RecordingFacts } from '../recording/facts.ts';
import {
  costFields,
  deviceFields,
  driverFields,
  iterateFields,
  kernelFields,
  machineFields,
  migrationFields,
  mmFields,
  strategyField,
} from './fields.ts';

/**
 * One machine with everything decided: what a scenario, a call of the library or a command line
 * comes to, and what processes are started from. A plain value.
 */
export interface Plan {
  readonly seed: number;
  /** `linux`: an unmodified kernel in an x86 emulator; `linux` says how it boots. */
  readonly guest: 'ballast' | 'linux';
  readonly memoryBytes: number;
  /** Page frame numbers; more than the memory has pages if there is a hole below 4 GiB. */
  readonly ramPages: number;
  readonly vcpus: number;
  readonly recording: PlannedRecording | null;
  readonly mm: MmOptions;
  readonly kernel: KernelOptions;
  readonly driver: DriverConfig;
  readonly strategy: StrategyName;
  readonly iterate: { readonly budgetNodes: number; readonly minOrder: number };
  /** What is named of the device, and what the strategy needs; the rest is as the profile has it. */
  readonly device: DeviceConfig;
  readonly costs: Costs;
  readonly auditEveryEvents: number;
  /** Faults that tests of the checks themselves build in. */
  readonly plant: { readonly acceptLateHints: boolean; readonly neverResendHinted: boolean };
  readonly linux: { readonly kernelArguments: string; readonly keepBooted: boolean } | null;
  /** How the monitor migrates when it is not told otherwise. */
  readonly migration: MigrateParams;
  /** From the guest's "migrate now" to the monitor's command: what a real test bench needs. */
  readonly monitorLatencyNs: number;
}

/** A recording, known by what is in it: `path` is where it lies on this machine. */
export const PLANNED_RECORDING_KEYS = [
  'name',
  'path',
  'sha256',
  'migrateAtNs',
  'traceEndNs',
] as const satisfies (keyof RecordingFacts)[];
export type PlannedRecording = Pick<RecordingFacts, (typeof PLANNED_RECORDING_KEYS)[number]>;

const instantNs = z.number().nonnegative();

const planFields = {
  seed: machineFields.seed,
  guest: z.enum(['ballast', 'linux']),
  memoryBytes: machineFields.memoryBytes,
  ramPages: z.int().positive(),
  vcpus: machineFields.vcpus,
  recording: z
    .strictObject({
      name: z.string(),
      path: z.string(),
      sha256: z.string().regex(/^[0-9a-f]{64}$/),
      migrateAtNs: instantNs,
      traceEndNs: instantNs,
    })
    .nullable(),
  mm: z.strictObject(mmFields),
  kernel: z.strictObject(kernelFields),
  driver: z.strictObject({ ...driverFields, features: driverFields.features.nullable() }),
  strategy: strategyField,
  iterate: z.strictObject(iterateFields),
  device: z.strictObject(deviceFields).partial(),
  costs: z.strictObject(costFields),
  auditEveryEvents: machineFields.auditEveryEvents,
  plant: z.strictObject({ acceptLateHints: z.boolean(), neverResendHinted: z.boolean() }),
  linux: z.strictObject({ kernelArguments: z.string(), keepBooted: z.boolean() }).nullable(),
  migration: z
    .strictObject(migrationFields)
    .partial({ pauseBeforeSwitchover: true, policy: true, vcpuDirtyLimitBytesPerS: true }),
  monitorLatencyNs: machineFields.monitorLatencyNs,
} satisfies { readonly [K in keyof Plan]: z.ZodType };

const planSchema = z.strictObject(planFields);
/** Those that are settings of the machine as they stand. */
export const SETTING_KEYS = Object.keys(planFields).filter(
  (key) => key !== 'strategy' && key !== 'recording',
) as (keyof Omit<Plan, 'strategy' | 'recording'>)[];

/** What is wrong with `value` as a plan; empty: it is one. */
export function problemsOfPlan(value: unknown): Problem[] {
  const parsed = planSchema.safeParse(value);
  return parsed.success ? [] : problemsOf(parsed.error, planSchema);
}
