/**
 * Guest and hypervisor in one process over a local link: the real code of both, with the channel's
 * encoding and checks, and both ends within a test's reach.
 */
import { Guest } from '../../guest/machine/guest.ts';
import { Hypervisor } from '../../host/hypervisor.ts';
import {
  DEFAULT_KERNEL_OPTIONS,
  type GuestConfig,
  type HostConfig,
  hostHello,
  localLink,
  type MigrateParams,
} from '../../protocol/index.ts';
import { DEFAULT_COSTS, MIB } from '../../shared/index.ts';
import { type Recording, readRecording } from '../../shared/recording/index.ts';

interface InProcessOptions {
  readonly seed?: number;
  /** Without a recording: 64 MiB. */
  readonly guest?: Partial<GuestConfig>;
  readonly host?: Partial<HostConfig>;
  readonly device?: Partial<HostConfig['device']>;
  readonly costs?: Partial<GuestConfig['costs']>;
  readonly recording?: Recording;
}

interface InProcessMachine {
  readonly guest: Guest;
  readonly hypervisor: Hypervisor;
}

export const MIGRATE: MigrateParams = {
  bandwidthBytesPerS: 200 * MIB,
  downtimeLimitMs: 300,
  clearLog: 'at-sync',
};

/** Both sides up and greeted, at virtual time 0; booting is the caller's. */
export async function inProcess(options: InProcessOptions = {}): Promise<InProcessMachine> {
  const seed = options.seed ?? 1;
  const costs = { ...DEFAULT_COSTS, ...options.costs };
  const strategy = options.guest?.strategy ?? 'none';
  const header = options.recording?.header;
  const guest = new Guest(
    {
      seed,
      ramPages: header?.frameCount ?? (64 * MIB) / 4096,
      vcpus: header?.vcpus ?? 1,
      mm: { initOnAlloc: header?.initOnAlloc ?? true, initOnFree: false, pagePoison: false },
      kernel: DEFAULT_KERNEL_OPTIONS,
      strategy,
      iterate: { budgetNodes: 1000, minOrder: 0 },
      recordingPath: null,
      costs,
      auditEveryEvents: 0,
      logPath: null,
      ...options.guest,
    },
    options.recording ?? null,
  );
  const link = localLink((messages) => guest.handle(messages), guest.facts);
  const hello = await hostHello(link);
  const hypervisor = new Hypervisor(link, hello, {
    seed,
    listen: { kind: 'unix', path: '' },
    ramPages: guest.facts.ramPages,
    device: {
      freePageHint: strategy !== 'none',
      mustTellHost: false,
      hintWaitOnAck: strategy === 'alloc-ack',
      discardHints: false,
      ...options.device,
    },
    costs,
    logPath: null,
    plant: { acceptLateHints: false },
    ...options.host,
  });
  return { guest, hypervisor };
}

/** One of the shared recordings. */
export function sharedRecording(name: string): Recording {
  return readRecording(
    new URL(`../../scenarios/recordings/${name}.ballast`, import.meta.url).pathname,
  );
}
