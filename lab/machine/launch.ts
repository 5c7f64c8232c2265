import { z } from 'zod';
import type { StrategyName } from '../../protocol/control.ts';
import { HYPERVISOR_NAMES, type HypervisorName } from '../../protocol/dirty-log.ts';
import { problemsOf, refuse } from '../input/problems.ts';
import { completeSettings, type MachineOptions, planOf } from '../plan/settings.ts';
import type { Entries } from '../process/child.ts';
import type { RecordingFacts } from '../recording/facts.ts';
import { resolveRecording } from '../recording/resolve.ts';
import type { Machine } from './machine.ts';
import { type Placement, startMachine } from './start.ts';

/** Starts the pair of processes, for other people's integration tests. */

export interface LaunchOptions extends MachineOptions, Placement {
  /** A recording's name, compact file or folder: sets memory, vCPUs and mm options. */
  readonly recording?: string | RecordingFacts | undefined;
  /** How the guest finds free pages to hint. Default: none. */
  readonly strategy?: StrategyName | undefined;
}

const callback = z.custom((value) => typeof value === 'function', 'a function');
const address = z.union(
  [
    z.strictObject({ kind: z.literal('unix'), path: z.string() }),
    z.strictObject({ kind: z.literal('tcp'), host: z.string(), port: z.int().min(0).max(65_535) }),
  ],
  "{ kind: 'unix', path } or { kind: 'tcp', host, port }",
);
/** What the plan does not say itself, and which keys there are. */
const optionsSchema = z
  .strictObject({
    recording: z.union(
      [z.string(), z.looseObject({ path: z.string(), sha256: z.string() })],
      'a name, a path or what resolveRecording() gave',
    ),
    strategy: z.unknown(),
    memoryBytes: z.unknown(),
    vcpus: z.unknown(),
    seed: z.unknown(),
    mm: z.unknown(),
    kernel: z.unknown(),
    driver: z.unknown(),
    iterate: z.unknown(),
    device: z.unknown(),
    costs: z.unknown(),
    auditEveryEvents: z.unknown(),
    hypervisor: z.enum(HYPERVISOR_NAMES as [HypervisorName, ...HypervisorName[]]),
    migration: z.unknown(),
    monitorLatencyNs: z.unknown(),
    acceptLateHints: z.unknown(),
    neverResendHinted: z.unknown(),
    linux: z.unknown(),
    logDirectory: z.string(),
    startsDestination: z.boolean(),
    migrateTo: address,
    incoming: address,
    listen: address,
    onListening: callback,
    onProgress: callback,
  } satisfies { readonly [K in keyof Required<LaunchOptions>]: z.ZodType })
  .partial();

/**
 * Starts both processes and waits for their hello; `boot()` is the caller's.
 * @throws BallastError BAD_INPUT, one line a problem, before anything is started; and when a file
 * is missing, the address is in use or a process dies at start.
 */
export async function launch(options: LaunchOptions = {}, entries?: Entries): Promise<Machine> {
  const parsed = optionsSchema.safeParse(options);
  if (!parsed.success) refuse(problemsOf(parsed.error, optionsSchema), options, 'launch');
  const recording =
    typeof options.recording === 'string'
      ? await resolveRecording(options.recording)
      : (options.recording ?? null);
  const settings = completeSettings(options, recording);
  const plan = planOf(settings, options.strategy ?? 'none', 'launch');
  return startMachine(plan, options, entries);
}
