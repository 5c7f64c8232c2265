import {
  DEFAULT_KERNEL_OPTIONS,
  type KernelOptions,
  type MigrateParams,
  type MmOptions,
  STRATEGIES,
  type StrategyName,
} from '../../protocol/control.ts';
import { HYPERVISORS } from '../../protocol/dirty-log.ts';
import { DEFAULT_DRIVER_CONFIG, type DriverConfig } from '../../protocol/driver-config.ts';
import { DEFAULT_COSTS, MIB, NS_PER_MS, PAGE_SIZE_BYTES } from '../../shared/index.ts';
import type { RecordingFacts } from '../recording/facts.ts';
import { consoleLine } from './console-steps.ts';
import { deviceOf } from './device.ts';
import { FIGURES, type FigureName } from './figures.ts';
import type { Scenario, Step } from './scenario.ts';
import { type ScenarioFile, SECTIONS, type StepFile, type VariantFile } from './schema.ts';

/** A scenario file with every default filled in: once as it stands, and once for each variant. */

/** Migration without a recording to take them from; QEMU's own downtime limit. */
export const DEFAULTS = {
  memoryBytes: 256 * MIB,
  /** Enough for a kernel to have blocks to hint and to report; every page of it is a real one. */
  linuxMemoryBytes: 192 * MIB,
  bandwidthBytesPerS: 200 * MIB,
  downtimeLimitMs: 300,
  monitorLatencyNs: 80 * NS_PER_MS,
} as const;
const DEFAULT_ITERATE = { budgetNodes: 1000, minOrder: 0 } as const;

export interface Completion {
  readonly recording: RecordingFacts | null;
  readonly defaultName: string;
  /** Those of the command line. */
  readonly strategies?: readonly StrategyName[];
  readonly seed?: number;
  /** File and line of a step, for messages. */
  whereOfStep(index: number): string;
}

export function completeScenario(file: ScenarioFile, completion: Completion): Scenario {
  const base = completeOne(file, completion, null);
  const variants = (file.variants ?? []).map((variant) =>
    completeOne(merged(file, variant), completion, variant.name),
  );
  return { ...base, variants };
}

/** The file as it is for one variant: single keys of its sections are overridden. */
function merged(file: ScenarioFile, variant: VariantFile): ScenarioFile {
  const sections = SECTIONS.map((key) => [key, { ...file[key], ...variant[key] }] as const);
  const hypervisor = variant.hypervisor ?? file.hypervisor;
  return { ...file, ...Object.fromEntries(sections), ...(hypervisor ? { hypervisor } : {}) };
}

function completeOne(file: ScenarioFile, completion: Completion, variant: string | null): Scenario {
  const { recording } = completion;
  const { machine, iterate } = file;
  const migration = migrationOf(file, recording);
  const steps =
    file.steps?.map((step, index) =>
      completeStep(step, migration, completion.whereOfStep(index)),
    ) ?? defaultSteps(recording, migration);
  return {
    name: file.name ?? recording?.name ?? completion.defaultName,
    description: file.description ?? '',
    seed: completion.seed ?? file.seed,
    guest: file.guest,
    memoryBytes:
      machine?.memory ??
      recording?.memoryBytes ??
      (file.guest === 'linux' ? DEFAULTS.linuxMemoryBytes : DEFAULTS.memoryBytes),
    vcpus: machine?.vcpus ?? recording?.vcpus ?? 1,
    recording,
    mm: mmOf(file, recording),
    kernel: kernelOf(file),
    driver: driverOf(file),
    strategies: strategiesOf(file, completion, steps),
    iterate: {
      budgetNodes: iterate?.budget ?? DEFAULT_ITERATE.budgetNodes,
      minOrder: iterate?.min_order ?? DEFAULT_ITERATE.minOrder,
    },
    migration,
    monitorLatencyNs: file.migration?.monitor_latency ?? DEFAULTS.monitorLatencyNs,
    device: deviceOf(file.device),
    costs: { ...DEFAULT_COSTS, ...definedOnly(file.costs ?? {}) },
    auditEveryEvents: file.audit_every_events,
    acceptLateHints: file.plant.accept_late_hints,
    steps,
    variant,
    variants: [],
  };
}

function migrationOf(
  { migration, hypervisor }: ScenarioFile,
  recording: RecordingFacts | null,
): MigrateParams {
  const profile = HYPERVISORS[hypervisor ?? recording?.hypervisor ?? 'qemu-7.2-tcg'];
  return {
    bandwidthBytesPerS:
      migration?.bandwidth ?? recording?.bandwidthBytesPerS ?? DEFAULTS.bandwidthBytesPerS,
    downtimeLimitMs:
      downtimeMs(migration?.downtime_limit) ??
      recording?.downtimeLimitMs ??
      DEFAULTS.downtimeLimitMs,
    dirtyLog: migration?.dirty_log ?? profile.dirtyLog,
    hintRemedy: migration?.hint_remedy ?? profile.hintRemedy,
    clearBitmapShift: migration?.clear_bitmap_shift ?? profile.clearBitmapShift,
  };
}

function mmOf({ mm }: ScenarioFile, recording: RecordingFacts | null): MmOptions {
  return {
    initOnAlloc: mm?.init_on_alloc ?? recording?.mm.initOnAlloc ?? true,
    initOnFree: mm?.init_on_free ?? recording?.mm.initOnFree ?? false,
    pagePoison: mm?.page_poison ?? recording?.mm.pagePoison ?? false,
  };
}

function kernelOf({ mm }: ScenarioFile): KernelOptions {
  const otherwise = DEFAULT_KERNEL_OPTIONS;
  return {
    movableGeneration: mm?.movable_generation ?? otherwise.movableGeneration,
    pinCheck: mm?.pin_check ?? otherwise.pinCheck,
    compactionProactiveness: mm?.compaction_proactiveness ?? otherwise.compactionProactiveness,
    balloonCompaction: mm?.balloon_compaction ?? otherwise.balloonCompaction,
    movableZonePages: (mm?.movable_zone ?? 0) / PAGE_SIZE_BYTES,
    pageReportingOrder: mm?.page_reporting_order ?? otherwise.pageReportingOrder,
  };
}

function driverOf({ driver }: ScenarioFile): DriverConfig {
  const otherwise = DEFAULT_DRIVER_CONFIG;
  return {
    behaviour: driver?.behaviour ?? otherwise.behaviour,
    features: driver?.features ?? otherwise.features,
    decline: driver?.decline ?? otherwise.decline,
    numbering: driver?.numbering ?? otherwise.numbering,
    onNeedsReset: driver?.on_needs_reset ?? otherwise.onNeedsReset,
    kicksEarly: driver?.kicks_early ?? otherwise.kicksEarly,
    hintTrustedFreePages: driver?.hint_trusted_free_pages ?? otherwise.hintTrustedFreePages,
    suspendsDevice: driver?.suspends_device ?? otherwise.suspendsDevice,
  };
}

/** All, to compare migrations of a recorded guest; otherwise nobody hints. */
function strategiesOf(
  file: ScenarioFile,
  { strategies, recording }: Completion,
  steps: readonly Step[],
): StrategyName[] {
  const named = strategies ?? file.strategies ?? (file.strategy ? [file.strategy] : null);
  const compares = recording !== null && steps.some(({ kind }) => kind === 'migrate');
  return [...new Set(named ?? (compares ? STRATEGIES : ['none' as const]))];
}

function completeStep(step: StepFile, migration: MigrateParams, where: string): Step {
  if (step.boot !== undefined) return { kind: 'boot' };
  if (step.verify !== undefined) return { kind: 'verify' };
  if (step.shell !== undefined) return { kind: 'shell', line: step.shell, where };
  if (step.workload !== undefined) return { kind: 'workload', line: 'replay' };
  if (step.inflate !== undefined) return { kind: 'inflate', sizeBytes: step.inflate };
  if (step.deflate !== undefined) return { kind: 'deflate', sizeBytes: step.deflate };
  if (step.stats !== undefined) return { kind: 'stats', intervalNs: step.stats.interval };
  if (step.hint !== undefined) {
    return { kind: 'hint', acknowledgeOnStop: step.hint?.acknowledge_on_stop ?? true };
  }
  if (step.wait !== undefined) {
    return 'until' in step.wait
      ? { kind: 'waitUntilMigrateAt' }
      : { kind: 'waitFor', durationNs: step.wait.forNs };
  }
  if (step.expect !== undefined) {
    const { for: only = null, ...bounds } = step.expect;
    return { kind: 'expect', for: only, bounds: boundsOf(bounds) };
  }
  if (step.compare !== undefined) {
    const { to, for: only = null, ...bounds } = step.compare;
    return { kind: 'compare', to, for: only, bounds: boundsOf(bounds) };
  }
  if (step.migrate !== undefined) {
    return {
      kind: 'migrate',
      params: {
        bandwidthBytesPerS: step.migrate?.bandwidth ?? migration.bandwidthBytesPerS,
        downtimeLimitMs: downtimeMs(step.migrate?.downtime_limit) ?? migration.downtimeLimitMs,
        dirtyLog: step.migrate?.dirty_log ?? migration.dirtyLog,
        hintRemedy: step.migrate?.hint_remedy ?? migration.hintRemedy,
        clearBitmapShift: step.migrate?.clear_bitmap_shift ?? migration.clearBitmapShift,
      },
    };
  }
  const [name = '', args] = Object.entries(step)[0] ?? [];
  return { kind: 'console', step: name, line: consoleLine(name, args as object), where };
}

/** In the order of `FIGURES`. */
function boundsOf<B>(
  bounds: Readonly<Partial<Record<FigureName, B | undefined>>>,
): { figure: FigureName; bound: B }[] {
  return FIGURES.flatMap((figure) => {
    const bound = bounds[figure];
    return bound === undefined ? [] : [{ figure, bound }];
  });
}

function defaultSteps(recording: RecordingFacts | null, migration: MigrateParams): Step[] {
  const expectNoLoss: Step = {
    kind: 'expect',
    for: null,
    bounds: [{ figure: 'lost_pages', bound: { equal: 0 } }],
  };
  const migrate: Step = { kind: 'migrate', params: migration };
  if (!recording) return [{ kind: 'boot' }, migrate, expectNoLoss];
  return [
    { kind: 'boot' },
    { kind: 'workload', line: 'replay' },
    { kind: 'waitUntilMigrateAt' },
    migrate,
    expectNoLoss,
  ];
}

function downtimeMs(ns: number | undefined): number | undefined {
  return ns === undefined ? undefined : ns / NS_PER_MS;
}

function definedOnly(values: Readonly<Record<string, number | undefined>>): Record<string, number> {
  const defined = Object.entries(values).filter(
    (entry): entry is [string, number] => entry[1] !== undefined,
  );
  return Object.fromEntries(defined);
}
