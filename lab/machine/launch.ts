import { mkdirSync, rmSync } from 'node:fs';
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { resolve } from 'node:path';
import {
  type Address,
  DEFAULT_KERNEL_OPTIONS,
  type GuestConfig,
  type HostConfig,
  type KernelOptions,
  type LinuxGuestConfig,
  type MmOptions,
  type StrategyName,
} from '../../protocol/control.ts';
import type { DeviceConfig } from '../../protocol/device-config.ts';
import { DEFAULT_DRIVER_CONFIG, type DriverConfig } from '../../protocol/driver-config.ts';
import { BallastError, type Costs, DEFAULT_COSTS, PAGE_SIZE_BYTES } from '../../shared/index.ts';
import type { Entries } from '../process/child.ts';
import { onExit, removeFolder } from '../process/cleanup.ts';
import type { RecordingFacts } from '../recording/facts.ts';
import { resolveRecording } from '../recording/resolve.ts';
import { DEFAULTS } from '../scenario/complete.ts';
import { Control, type Progress } from './control.ts';
import { Destinations } from './destination.ts';
import { Machine, type MachineFacts } from './machine.ts';

/** Starts the pair of processes, for the runner and for other people's integration tests. */

export interface LinuxOptions {
  /** Default: `init_on_alloc=0`, so that a lost page is not made good by the kernel. */
  readonly kernelArguments?: string;
  /** Default: yes. Guests of one kind boot once and then start from a snapshot in the user's cache. */
  readonly keepBooted?: boolean;
}

export interface LaunchOptions {
  /** A recording's name, compact file or folder: sets memory, vCPUs and mm options. */
  readonly recording?: string | RecordingFacts;
  /** Without a recording: 256 MiB. */
  readonly memoryBytes?: number;
  readonly vcpus?: number;
  readonly seed?: number;
  readonly mm?: Partial<MmOptions>;
  /** Movable pages, compaction and zones of the guest's kernel. */
  readonly kernel?: Partial<KernelOptions>;
  /** Whose balloon driver the guest has, and what it accepts. */
  readonly driver?: Partial<DriverConfig>;
  /** How the guest finds free pages to hint. Default: none. */
  readonly strategy?: StrategyName;
  readonly iterate?: { readonly budgetNodes?: number; readonly minOrder?: number };
  /** Whose device, what it offers and does; hinting, and waiting for its ack, as the strategy needs it. */
  readonly device?: DeviceConfig;
  readonly costs?: Partial<Costs>;
  readonly auditEveryEvents?: number;
  /** Virtual time between the workload's "migrate now" and the monitor's command. */
  readonly monitorLatencyNs?: number;
  /** Folder for host.log and guest.log; default: only the digests are kept. */
  readonly logDirectory?: string;
  /** The host accepts hints of ended rounds: proves that lost pages are found. */
  readonly acceptLateHints?: boolean;
  /** The host never sends a page again that was hinted once: the same. */
  readonly neverResendHinted?: boolean;
  /** The host of the first migration starts with the pair, and not when it is needed. */
  readonly startsDestination?: boolean;
  /** Migrations go to a host that was started by hand, at this address; the guest is gone then. */
  readonly migrateTo?: Address;
  /** Be the destination of a migration: wait at this address for its source, and at `listen` for the guest. */
  readonly incoming?: Address;
  /** Where the processes meet. Default: a unix socket in a new folder of the temporary directory. */
  readonly listen?: Address;
  /** The guest is a real kernel in an x86 emulator; what says how ours is made is not used then. */
  readonly linux?: LinuxOptions;
  /** Starts no guest: one started by hand connects to `listen`. Called when the host listens. */
  readonly onListening?: (address: Address, guest: GuestConfig) => void;
  readonly onProgress?: (progress: Progress) => void;
}

/**
 * Starts both processes and waits for their hello; `boot()` is the caller's.
 * @throws BallastError when a file is missing, the address is in use or a process dies at start.
 */
export async function launch(options: LaunchOptions = {}, entries?: Entries): Promise<Machine> {
  const recording = await recordingOf(options);
  const guest = guestConfig(options, recording);
  if (options.logDirectory) mkdirSync(options.logDirectory, { recursive: true });
  const folder = options.listen ? null : await mkdtemp(`${tmpdir()}/ballast-`);
  const address = options.listen ?? { kind: 'unix', path: `${folder}/guest.sock` };
  const control = new Control(options.onProgress ?? (() => {}), entries);
  const destinations = new Destinations(
    control,
    (index) => ({
      ...hostConfig(options, address, guest.ramPages),
      logPath: options.logDirectory ? resolve(options.logDirectory, `host-${index + 1}.log`) : null,
    }),
    options.migrateTo ?? null,
  );
  // A host that ends while it listens leaves its socket file behind; one of ours, from `bound` on.
  let socketFile: string | null = null;
  const removeSocket = () => {
    if (socketFile) rmSync(socketFile, { force: true });
    if (folder) removeFolder(folder);
  };
  const withdraw = onExit(() => {
    control.kill();
    removeSocket();
  });
  const dispose = async () => {
    await destinations.drop();
    await control.stop();
    removeSocket();
    withdraw();
  };
  try {
    const config = hostConfig(options, address, guest.ramPages);
    if (options.incoming) {
      const bound = await control.call('incoming', { config, stream: options.incoming });
      options.onListening?.(bound.stream, guest);
      const arrival = await control.call('arrive', null);
      const facts = factsOf(options, recording, { ramPages: guest.ramPages, vcpus: guest.vcpus });
      return new Machine(control, facts, destinations, dispose, arrival);
    }
    const bound = await control.call('listen', config);
    if (bound.kind === 'unix') socketFile = bound.path;
    if (options.onListening) options.onListening(bound, guest);
    else if (options.linux) {
      const linux = linuxConfig(options.linux, guest.ramPages);
      control.startGuest('linux').send({ connect: bound, config: linux } as never);
    } else control.startGuest('guest').send({ connect: bound, config: guest } as never);
    if (options.startsDestination) destinations.prepare();
    const hello = await control.call('accept', null);
    if (options.startsDestination) await destinations.stream();
    // The connection outlives its name, so nothing can be left behind from here on.
    socketFile = null;
    if (folder) removeFolder(folder);
    return new Machine(control, factsOf(options, recording, hello), destinations, dispose);
  } catch (error) {
    await dispose();
    throw error;
  }
}

function factsOf(
  options: LaunchOptions,
  recording: RecordingFacts | null,
  hello: Pick<MachineFacts, 'ramPages' | 'vcpus'>,
): MachineFacts {
  return {
    ...hello,
    recording,
    monitorLatencyNs: monitorLatency(options),
    isLinux: options.linux !== undefined,
  };
}

/** What a guest process of these options is told; for `ballast guest`. */
export function guestConfig(options: LaunchOptions, recording: RecordingFacts | null): GuestConfig {
  const memoryBytes = options.memoryBytes ?? recording?.memoryBytes ?? DEFAULTS.memoryBytes;
  if (!Number.isInteger(memoryBytes / PAGE_SIZE_BYTES) || memoryBytes <= 0) {
    throw new BallastError(
      'BAD_INPUT',
      `memoryBytes: expected a multiple of 4096 above 0, found ${memoryBytes}`,
    );
  }
  return {
    seed: options.seed ?? 1,
    ramPages: recording?.ramPages ?? memoryBytes / PAGE_SIZE_BYTES,
    vcpus: options.vcpus ?? recording?.vcpus ?? 1,
    mm: {
      initOnAlloc: options.mm?.initOnAlloc ?? recording?.mm.initOnAlloc ?? true,
      initOnFree: options.mm?.initOnFree ?? recording?.mm.initOnFree ?? false,
      pagePoison: options.mm?.pagePoison ?? recording?.mm.pagePoison ?? false,
    },
    kernel: { ...DEFAULT_KERNEL_OPTIONS, ...options.kernel },
    strategy: options.strategy ?? 'none',
    driver: { ...DEFAULT_DRIVER_CONFIG, ...options.driver },
    iterate: {
      budgetNodes: options.iterate?.budgetNodes ?? 1000,
      minOrder: options.iterate?.minOrder ?? 0,
    },
    recordingPath: recording?.path ?? null,
    costs: { ...DEFAULT_COSTS, ...options.costs },
    auditEveryEvents: options.auditEveryEvents ?? 0,
    logPath: options.logDirectory ? resolve(options.logDirectory, 'guest.log') : null,
  };
}

function linuxConfig(options: LinuxOptions, ramPages: number): LinuxGuestConfig {
  return {
    ramPages,
    kernelArguments: options.kernelArguments ?? 'init_on_alloc=0',
    keepBooted: options.keepBooted ?? true,
  };
}

function hostConfig(options: LaunchOptions, listen: Address, ramPages: number): HostConfig {
  return {
    seed: options.seed ?? 1,
    listen,
    ramPages,
    device: deviceConfig(options),
    costs: { ...DEFAULT_COSTS, ...options.costs },
    logPath: options.logDirectory ? resolve(options.logDirectory, 'host.log') : null,
    plant: {
      acceptLateHints: options.acceptLateHints ?? false,
      neverResendHinted: options.neverResendHinted ?? false,
    },
  };
}

/** Our own device offers hinting when the strategy needs it; that of a profile offers what it has. */
function deviceConfig({ device = {}, strategy = 'none' }: LaunchOptions): DeviceConfig {
  if (device.profile !== undefined && device.profile !== 'ballast') return device;
  const needed = { freePageHint: strategy !== 'none', hintWaitOnAck: strategy === 'alloc-ack' };
  return { ...needed, ...device };
}

async function recordingOf(options: LaunchOptions): Promise<RecordingFacts | null> {
  if (options.recording === undefined) return null;
  return typeof options.recording === 'string'
    ? resolveRecording(options.recording)
    : options.recording;
}

function monitorLatency(options: LaunchOptions): number {
  return options.monitorLatencyNs ?? DEFAULTS.monitorLatencyNs;
}
