/**
 * Guest and hypervisor in one process over a local link: the real code of both, with the channel's
 * encoding and checks, and both ends within a test's reach.
 */
import { Guest } from '../../guest/machine/guest.ts';
import { Hypervisor } from '../../host/hypervisor.ts';
import { Incoming } from '../../host/migration/incoming.ts';
import {
  DEFAULT_DIRTY_LOG,
  DEFAULT_KERNEL_OPTIONS,
  type GuestConfig,
  type GuestLink,
  type Hello,
  type HostConfig,
  hostHello,
  localLink,
  localStream,
  type MigrateParams,
  type MigrationReport,
  withArrival,
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
  readonly config: HostConfig;
}

export const MIGRATE: MigrateParams = {
  bandwidthBytesPerS: 200 * MIB,
  downtimeLimitMs: 300,
  ...DEFAULT_DIRTY_LOG,
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
  const { link, hello } = await guestLink(guest);
  const config: HostConfig = {
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
  };
  return { guest, hypervisor: new Hypervisor(link, hello, config), config };
}

/**
 * Migrates the guest to another host in this process, over a stream and a channel as between
 * processes. Returns the machine that the guest is on afterwards.
 */
export async function moveToNewHost(
  { guest, hypervisor, config }: InProcessMachine,
  params: MigrateParams,
): Promise<{ readonly machine: InProcessMachine; readonly report: MigrationReport }> {
  const incoming = new Incoming('unix:/in-process', guest.facts);
  const report = await hypervisor.migrate(params, localStream(incoming));
  const { link, hello } = await guestLink(guest);
  const destination = new Hypervisor(link, hello, config);
  const arrival = await destination.arrive(incoming);
  const whole = withArrival(report, arrival, () => []);
  return { machine: { guest, hypervisor: destination, config }, report: whole };
}

async function guestLink(guest: Guest): Promise<{ link: GuestLink; hello: Hello }> {
  const link = localLink((messages) => {
    // Whoever wants the guest next has only to ask it.
    if (messages.at(-1)?.name !== 'moveTo') return guest.handle(messages);
    return [...guest.handle(messages.slice(0, -1)), { name: 'moved', error: '' }];
  }, guest.facts);
  return { link, hello: await hostHello(link) };
}

/** One of the shared recordings. */
export function sharedRecording(name: string): Recording {
  return readRecording(
    new URL(`../../scenarios/recordings/${name}.ballast`, import.meta.url).pathname,
  );
}
