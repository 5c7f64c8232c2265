import {
  DEFAULT_KERNEL_OPTIONS,
  type KernelOptions,
  type MigrateParams,
  type MmOptions,
  type StrategyName,
} from '../../protocol/control.ts';
import type { DeviceConfig } from '../../protocol/device-config.ts';
import { DEFAULT_DIRTY_LOG, HYPERVISORS, type HypervisorName } from '../../protocol/dirty-log.ts';
import { DEFAULT_DRIVER_CONFIG, type DriverConfig } from '../../protocol/driver-config.ts';
import { type Costs, DEFAULT_COSTS, MIB, NS_PER_MS, PAGE_SIZE_BYTES } from '../../shared/index.ts';
import { type Problem, refuse } from '../input/problems.ts';
import { formatBytes } from '../input/units.ts';
import type { RecordingFacts } from '../recording/facts.ts';
import { PLANNED_RECORDING_KEYS, type Plan, problemsOfPlan, SETTING_KEYS } from './plan.ts';

/** From what somebody named of a machine to the plan of it: every default is filled in here. */

/** What may be named; what is left out is the recording's, or the default. */
export interface MachineOptions {
  /** Without a recording: 256 MiB. */
  readonly memoryBytes?: number | undefined;
  readonly vcpus?: number | undefined;
  readonly seed?: number | undefined;
  readonly mm?: Given<MmOptions> | undefined;
  /** Movable pages, compaction and zones of the guest's kernel. */
  readonly kernel?: Given<KernelOptions> | undefined;
  /** Whose balloon driver the guest has, and what it accepts. */
  readonly driver?: Given<DriverConfig> | undefined;
  readonly iterate?: Given<Plan['iterate']> | undefined;
  /** Whose device, what it offers and does; hinting, and waiting for its ack, as the strategy needs it. */
  readonly device?: DeviceConfig | undefined;
  readonly costs?: Given<Costs> | undefined;
  readonly auditEveryEvents?: number | undefined;
  /** Whose dirty log migrations have. */
  readonly hypervisor?: HypervisorName | undefined;
  /** Of every migration that does not say otherwise. */
  readonly migration?: Given<MigrateParams> | undefined;
  /** Virtual time between the workload's "migrate now" and the monitor's command. */
  readonly monitorLatencyNs?: number | undefined;
  /** The host accepts hints of ended rounds: proves that lost pages are found. */
  readonly acceptLateHints?: boolean | undefined;
  /** The host never sends a page again that was hinted once: the same. */
  readonly neverResendHinted?: boolean | undefined;
  /** The guest is a real kernel in an x86 emulator; what says how ours is made is not used then. */
  readonly linux?: Given<NonNullable<Plan['linux']>> | undefined;
}

type Given<T> = { readonly [K in keyof T]?: T[K] | undefined };

/** A machine that is complete but for the strategy that it is to try. */
export interface MachineSettings extends Omit<Plan, 'strategy' | 'recording'> {
  readonly recording: RecordingFacts | null;
}

const MEMORY_BYTES = 256 * MIB;
/** Enough for a kernel to have blocks to hint and to report; every page of it is a real one. */
const LINUX_MEMORY_BYTES = 192 * MIB;
const ITERATE: Plan['iterate'] = { budgetNodes: 1000, minOrder: 0 };
const MM: MmOptions = { initOnAlloc: true, initOnFree: false, pagePoison: false };
/** A page that is zeroed when it is allocated would make good that it was lost. */
const LINUX = { kernelArguments: 'init_on_alloc=0', keepBooted: true };
const BANDWIDTH_BYTES_PER_S = 200 * MIB;
/** QEMU's own. */
const DOWNTIME_LIMIT_MS = 300;
const MONITOR_LATENCY_NS = 80 * NS_PER_MS;

export function completeSettings(
  options: MachineOptions,
  recording: RecordingFacts | null,
): MachineSettings {
  const { linux } = options;
  const memoryBytes =
    options.memoryBytes ?? recording?.memoryBytes ?? (linux ? LINUX_MEMORY_BYTES : MEMORY_BYTES);
  return {
    seed: options.seed ?? 1,
    guest: linux ? 'linux' : 'ballast',
    memoryBytes,
    ramPages: recording?.ramPages ?? framesOf(memoryBytes),
    vcpus: options.vcpus ?? recording?.vcpus ?? 1,
    recording,
    mm: filled(recording?.mm ?? MM, options.mm),
    kernel: filled(DEFAULT_KERNEL_OPTIONS, options.kernel),
    driver: filled(DEFAULT_DRIVER_CONFIG, options.driver),
    iterate: filled(ITERATE, options.iterate),
    device: options.device ?? {},
    costs: filled(DEFAULT_COSTS, options.costs),
    auditEveryEvents: options.auditEveryEvents ?? 0,
    plant: {
      acceptLateHints: options.acceptLateHints ?? false,
      neverResendHinted: options.neverResendHinted ?? false,
    },
    linux: linux ? filled(LINUX, linux) : null,
    migration: filled(migrationOf(recording, options.hypervisor), options.migration),
    monitorLatencyNs: options.monitorLatencyNs ?? MONITOR_LATENCY_NS,
  };
}

/**
 * The plan of a machine under one strategy; `where` begins each line of a message.
 * @throws BallastError BAD_INPUT: one line a problem.
 */
export function planOf(settings: MachineSettings, strategy: StrategyName, where: string): Plan {
  const { recording, device } = settings;
  const plan: Plan = {
    ...picked(settings, SETTING_KEYS),
    recording: recording && picked(recording, PLANNED_RECORDING_KEYS),
    strategy,
    device: deviceFor(strategy, device),
  };
  const problems = [...problemsOfPlan(plan), ...contradictionsOf(settings)];
  if (problems.length > 0) refuse(problems, plan, where);
  return plan;
}

/** What each setting alone allows, but not the machine as a whole. */
export function contradictionsOf({ memoryBytes, recording, kernel }: MachineSettings): Problem[] {
  const problems: Problem[] = [];
  if (recording && memoryBytes !== recording.memoryBytes) {
    const expected = `the recording's ${formatBytes(recording.memoryBytes)}, or no such key`;
    problems.push({ path: ['memoryBytes'], expected });
  }
  if (kernel.movableZonePages * PAGE_SIZE_BYTES >= memoryBytes) {
    const expected = `less than the machine's ${formatBytes(memoryBytes)}`;
    problems.push({ path: ['kernel', 'movableZonePages'], expected });
  }
  return problems;
}

/** Our own device offers hinting when the strategy needs it; that of a profile offers what it has. */
function deviceFor(strategy: StrategyName, device: DeviceConfig): DeviceConfig {
  if (device?.profile !== undefined && device.profile !== 'ballast') return device;
  const needed = { freePageHint: strategy !== 'none', hintWaitOnAck: strategy === 'alloc-ack' };
  return filled<DeviceConfig>(needed, device);
}

function migrationOf(
  recording: RecordingFacts | null,
  named: HypervisorName | undefined,
): MigrateParams {
  const hypervisor = named ?? recording?.hypervisor;
  return {
    bandwidthBytesPerS: recording?.bandwidthBytesPerS ?? BANDWIDTH_BYTES_PER_S,
    downtimeLimitMs: recording?.downtimeLimitMs ?? DOWNTIME_LIMIT_MS,
    ...(hypervisor ? HYPERVISORS[hypervisor] : DEFAULT_DIRTY_LOG),
  };
}

/** Of a size that is none: any number, since the size is what is refused. */
function framesOf(memoryBytes: number): number {
  return Math.max(1, Math.floor(memoryBytes / PAGE_SIZE_BYTES) || 1);
}

/** What is named, and the default of the rest. What is no map of keys is left to be refused. */
export function filled<T extends object>(defaults: T, given: Given<T> | undefined): T {
  if (given === undefined) return defaults;
  if (typeof given !== 'object' || given === null || Array.isArray(given)) return given as never;
  return { ...defaults, ...named(given) };
}

/** Without what is left out. */
export function named<T extends object>(given: Given<T>): Partial<T> {
  const entries = Object.entries(given).filter(([, value]) => value !== undefined);
  return Object.fromEntries(entries) as Partial<T>;
}

function picked<T extends object, K extends keyof T>(from: T, keys: readonly K[]): Pick<T, K> {
  return Object.fromEntries(keys.map((key) => [key, from[key]])) as Pick<T, K>;
}
