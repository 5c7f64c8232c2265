import { type MigrateParams, STRATEGIES, type StrategyName } from '../../protocol/control.ts';
import { NS_PER_MS, PAGE_SIZE_BYTES } from '../../shared/index.ts';
import { completeSettings, filled, type MachineOptions, named } from '../plan/settings.ts';
import type { RecordingFacts } from '../recording/facts.ts';
import { consoleLine } from './console-steps.ts';
import { deviceOf } from './device.ts';
import { FIGURES, type FigureName } from './figures.ts';
import type { Scenario, Step } from './scenario.ts';
import {
  type MigrationFile,
  type ScenarioFile,
  SECTIONS,
  type StepFile,
  type VariantFile,
} from './schema.ts';

/** A scenario file with every default filled in: once as it stands, and once for each variant. */

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
  const settings = completeSettings(optionsOf(file, completion), recording);
  const { migration } = settings;
  const steps =
    file.steps?.map((step, index) =>
      completeStep(step, migration, completion.whereOfStep(index)),
    ) ?? defaultSteps(recording, migration);
  return {
    ...settings,
    name: file.name ?? recording?.name ?? completion.defaultName,
    description: file.description ?? '',
    strategies: strategiesOf(file, completion, steps),
    steps,
    variant,
    variants: [],
  };
}

/** What the file names of the machine, by the names of the plan. */
function optionsOf(file: ScenarioFile, { seed }: Completion): MachineOptions {
  const { machine, iterate, migration } = file;
  return {
    memoryBytes: machine?.memory,
    vcpus: machine?.vcpus,
    seed: seed ?? file.seed,
    mm: mmOf(file),
    kernel: kernelOf(file),
    driver: driverOf(file),
    iterate: { budgetNodes: iterate?.budget, minOrder: iterate?.min_order },
    device: deviceOf(file.device),
    costs: file.costs,
    auditEveryEvents: file.audit_every_events,
    hypervisor: file.hypervisor,
    migration: migration && paramsOf(migration),
    monitorLatencyNs: migration?.monitor_latency,
    acceptLateHints: file.plant.accept_late_hints,
    linux: file.guest === 'linux' ? { kernelArguments: kernelArgumentsOf(file) } : undefined,
  };
}

function mmOf({ mm }: ScenarioFile): MachineOptions['mm'] {
  return {
    initOnAlloc: mm?.init_on_alloc,
    initOnFree: mm?.init_on_free,
    pagePoison: mm?.page_poison,
  };
}

function kernelOf({ mm }: ScenarioFile): MachineOptions['kernel'] {
  return {
    movableGeneration: mm?.movable_generation,
    pinCheck: mm?.pin_check,
    compactionProactiveness: mm?.compaction_proactiveness,
    balloonCompaction: mm?.balloon_compaction,
    movableZonePages: mm?.movable_zone && mm.movable_zone / PAGE_SIZE_BYTES,
    pageReportingOrder: mm?.page_reporting_order,
  };
}

function driverOf({ driver }: ScenarioFile): MachineOptions['driver'] {
  return {
    behaviour: driver?.behaviour,
    features: driver?.features,
    decline: driver?.decline,
    numbering: driver?.numbering,
    onNeedsReset: driver?.on_needs_reset,
    kicksEarly: driver?.kicks_early,
    hintTrustedFreePages: driver?.hint_trusted_free_pages,
    suspendsDevice: driver?.suspends_device,
  };
}

function paramsOf(migration: MigrationFile): NonNullable<MachineOptions['migration']> {
  return {
    bandwidthBytesPerS: migration.bandwidth,
    downtimeLimitMs: downtimeMs(migration.downtime_limit),
    dirtyLog: migration.dirty_log,
    hintRemedy: migration.hint_remedy,
    clearBitmapShift: migration.clear_bitmap_shift,
    pauseBeforeSwitchover: migration.pause_before_switchover,
    policy: migration.policy,
    vcpuDirtyLimitBytesPerS: migration.vcpu_dirty_limit,
  };
}

/** Of a real kernel. Zeroing at allocation is its default, too. */
function kernelArgumentsOf({ mm }: ScenarioFile): string {
  const words = [`init_on_alloc=${Number(mm?.init_on_alloc ?? true)}`];
  if (mm?.init_on_free) words.push('init_on_free=1');
  if (mm?.page_poison) words.push('page_poison=1');
  return words.join(' ');
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
    if ('until' in step.wait) return { kind: 'waitUntilMigrateAt' };
    if ('end' in step.wait) return { kind: 'waitForEnd', ...step.wait };
    return { kind: 'waitFor', durationNs: step.wait.forNs };
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
      params: filled(migration, paramsOf(step.migrate ?? {})),
      waits: step.migrate?.wait ?? true,
    };
  }
  const disturbance = disturbanceOf(step);
  if (disturbance) return disturbance;
  const [name = '', args] = Object.entries(step)[0] ?? [];
  return { kind: 'console', step: name, line: consoleLine(name, args as object), where };
}

/** What happens to a machine from outside; null: it is another step. */
function disturbanceOf(step: StepFile): Step | null {
  for (const kind of ['stop', 'cont', 'cancel', 'continue'] as const) {
    if (step[kind] !== undefined) return { kind };
  }
  if (step.target !== undefined) return { kind: 'target', sizeBytes: step.target };
  if (step.limits !== undefined) return { kind: 'limits', params: named(paramsOf(step.limits)) };
  if (step.link !== undefined) {
    return { kind: 'link', stallNs: step.link === 'down' ? null : step.link.stall };
  }
  return step.kill === undefined ? null : { kind: 'kill', victim: step.kill };
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
  const migrate: Step = { kind: 'migrate', params: migration, waits: true };
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
