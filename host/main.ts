/** The host process: executes the laboratory's commands, one after the other, over its IPC pipe. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import {
  type Address,
  type ArrivalReport,
  type ControlReply,
  type ControlRequest,
  connect,
  formatAddress,
  type GuestLink,
  type GuestService,
  type Hello,
  HOST_EVENT_NAMES,
  type HostCommandName,
  type HostCommands,
  type HostConfig,
  type HostEvent,
  hostHello,
  hostLink,
  listen,
  type MigrateParams,
  type MigrationReport,
  type StreamLink,
  serveStream,
  streamLink,
} from '../protocol/index.ts';
import { BallastError, type BallastErrorCode, ExitStatus } from '../shared/index.ts';
import { exitWith, fileSink, onLaboratoryGone } from '../shared/process.ts';
import type { BalloonMonitor } from './balloon/monitor.ts';
import { guestStatistics } from './evaluation/evaluator.ts';
import { Hypervisor } from './hypervisor.ts';
import { Incoming } from './migration/incoming.ts';

const CONNECT_TIMEOUT_MS = 10_000;

type Listener = Awaited<ReturnType<typeof listen>>;

class HostProcess {
  #temporaryFolder: string | null = null;
  #config: HostConfig | null = null;
  #listener: Listener | null = null;
  #link: GuestLink | null = null;
  /** Of a guest that comes from another host. */
  #arrival: Promise<ArrivalReport> | null = null;
  #hypervisor: Hypervisor | null = null;
  /** Of the migration that was begun last. */
  #stream: StreamLink | null = null;

  async execute({ command, params }: ControlRequest): Promise<unknown> {
    switch (command) {
      case 'listen':
        return this.#listen(params as HostConfig);
      case 'accept':
        return this.#accept();
      case 'incoming':
        return this.#listenForSource(params as HostCommands['incoming']['params']);
      case 'arrive':
        return this.#arrive();
      case 'runUntil': {
        const { at_ns, end } = params as HostCommands['runUntil']['params'];
        return this.#machine.runUntil(at_ns, end ?? null);
      }
      case 'console':
        this.#machine.console((params as { line: string }).line);
        return null;
      case 'readConsole':
        return this.#machine.readConsole();
      case 'balloon':
        this.#machine.setBalloon((params as { target_pages: number }).target_pages);
        return null;
      case 'statsPollingInterval':
        this.#monitor.setStatsPollingInterval((params as { seconds: number }).seconds);
        return null;
      case 'guestStats':
        return this.#monitor.guestStats();
      case 'hintStart':
        this.#monitor.hintStart((params as { acknowledge_on_stop: boolean }).acknowledge_on_stop);
        return null;
      case 'hintStop':
        this.#monitor.hintStop();
        return null;
      case 'hintStatus':
        return this.#monitor.hintStatus();
      case 'ledgerHistories':
        return this.#machine.ledgerHistories((params as { pfns: number[] }).pfns);
      case 'retire':
        return { peak_rss_bytes: peakRssBytes(), event_log_sha256: this.#machine.logDigest() };
      case 'stop':
        this.#machine.vmm.running = false;
        return null;
      case 'cont':
        this.#machine.vmm.running = true;
        return null;
      case 'status':
        return this.#machine.status();
      case 'verify':
        return this.#machine.verify();
      case 'finish':
        return this.#finish();
      default:
        return this.#executeOfMigration(command, params);
    }
  }

  #executeOfMigration(command: HostCommandName, params: unknown): unknown {
    switch (command) {
      case 'beginMigration':
        return this.#beginMigration(params as HostCommands['beginMigration']['params']);
      case 'finishMigration':
        return this.#finishMigration();
      case 'startMigration':
        this.#machine.startMigration(params as MigrateParams);
        return null;
      case 'setMigrationLimits':
        this.#machine.setMigrationLimits(params as MigrateParams);
        return null;
      case 'cancelMigration':
        this.#machine.cancelMigration();
        return null;
      case 'continueMigration':
        this.#machine.continueMigration();
        return null;
      case 'disturbLink':
        this.#machine.disturbLink((params as { stall_ns: number | null }).stall_ns);
        return null;
      case 'queryMigration':
        return this.#machine.queryMigration();
      case 'migrationStream':
        return this.#machine.migrationStream();
      default:
        throw new BallastError('MESSAGE_UNEXPECTED', `${command}: no such command`);
    }
  }

  get #monitor(): BalloonMonitor {
    return this.#machine.balloon;
  }

  get #machine(): Hypervisor {
    if (!this.#hypervisor) throw new BallastError('MESSAGE_UNEXPECTED', 'no guest has connected');
    return this.#hypervisor;
  }

  async #listen(config: HostConfig): Promise<Address> {
    this.#config = config;
    this.#listener = await listen(config.listen);
    return this.#listener.address;
  }

  async #accept(): Promise<{ ramPages: number; vcpus: number }> {
    const config = this.#config;
    if (!config) throw new BallastError('MESSAGE_UNEXPECTED', 'accept before listen');
    const { link, hello } = await this.#acceptOne(config);
    if (hello.ram_pages !== config.ramPages) {
      await link.close();
      throw new BallastError(
        'HELLO_MISMATCH',
        `the guest has ${hello.ram_pages} page frames, expected ${config.ramPages} as in the scenario`,
      );
    }
    this.#take(link, hello, config);
    return { ramPages: hello.ram_pages, vcpus: hello.vcpus };
  }

  async #listenForSource({
    config: given,
    stream: asked,
  }: HostCommands['incoming']['params']): Promise<HostCommands['incoming']['result']> {
    const folder = asked ? null : mkdtempSync(`${tmpdir()}/ballast-`);
    this.#temporaryFolder = folder;
    const stream: Address = asked ?? { kind: 'unix', path: `${folder}/migration.sock` };
    const config: HostConfig = asked
      ? given
      : { ...given, listen: { kind: 'unix', path: `${folder}/guest.sock` } };
    const guest = await this.#listen(config);
    const listener = await listen(stream);
    const incoming = new Incoming(formatAddress(guest), config);
    this.#arrival = this.#receive(listener, incoming, config);
    // Whoever waits for the arrival hears of it; nobody else can come here.
    this.#arrival.catch(() => this.#listener?.close());
    return { stream: listener.address, guest };
  }

  /** The stream to its end, then the guest. */
  async #receive(
    listener: Listener,
    incoming: Incoming,
    config: HostConfig,
  ): Promise<ArrivalReport> {
    const socket = await listener.accept();
    await listener.close();
    const service = serveStream(socket, incoming);
    const loaded = incoming.loaded.then(() => null);
    const error = await Promise.race([service.closed, loaded]);
    if (!incoming.isLoaded) {
      const why = error?.message ?? 'the stream ended before everything was sent';
      throw loadFailed(error?.code ?? 'PEER_CLOSED', why);
    }
    const { link, hello } = await Promise.race([this.#acceptOne(config), sourceLost(service)]);
    this.removeFolder();
    mustBeTheGuestOf(incoming, hello);
    this.#take(link, hello, config);
    return this.#machine.arrive(incoming);
  }

  /** The connections outlive their names. */
  removeFolder(): void {
    if (this.#temporaryFolder) rmSync(this.#temporaryFolder, { recursive: true, force: true });
    this.#temporaryFolder = null;
  }

  async #arrive(): Promise<ArrivalReport> {
    if (!this.#arrival) throw new BallastError('MESSAGE_UNEXPECTED', 'arrive before incoming');
    return this.#arrival;
  }

  async #acceptOne(config: HostConfig): Promise<{ link: GuestLink; hello: Hello }> {
    if (!this.#listener) throw new BallastError('MESSAGE_UNEXPECTED', 'accept before listen');
    const socket = await this.#listener.accept();
    // One machine, one guest: nobody else is let in, and the socket file goes at once.
    await this.#listener.close();
    const link = hostLink(socket);
    return { link, hello: await hostHello(link, config.plan) };
  }

  #take(link: GuestLink, hello: Hello, config: HostConfig): void {
    this.#link = link;
    this.#watch(link);
    this.#hypervisor = new Hypervisor(link, hello, config, report, fileSink(config.logPath));
    forwardEvents(this.#hypervisor);
  }

  #watch(link: GuestLink): void {
    void link.closed.then((error) => {
      if (error) exitWith('host', error);
    });
  }

  /** @throws BallastError when nobody listens there: the guest runs on untouched. */
  async #beginMigration({
    migrate: params,
    to,
  }: HostCommands['beginMigration']['params']): Promise<null> {
    const stream = to ? streamLink(await connect(to, CONNECT_TIMEOUT_MS)) : null;
    await this.#machine.beginMigration(params, stream);
    this.#stream = stream;
    return null;
  }

  async #finishMigration(): Promise<MigrationReport> {
    const report = await this.#machine.finishMigration();
    await this.#stream?.close();
    this.#stream = null;
    if (!this.#machine.hasGuest) {
      await this.#link?.close();
      this.#link = null;
    }
    return report;
  }

  async #finish(): Promise<unknown> {
    const { vmm } = this.#machine;
    const { peak_rss_bytes: guestRss = 0 } = await guestStatistics(vmm);
    const sha256 = await this.#machine.digest();
    await this.#link?.close();
    return {
      event_log_sha256: sha256,
      peak_rss_bytes: { guest: guestRss, host: peakRssBytes() },
    };
  }
}

function peakRssBytes(): number {
  return process.resourceUsage().maxRSS * 1024;
}

/** Rejects when the source broke off after everything was sent, and the guest had time to come. */
async function sourceLost({ closed }: GuestService): Promise<never> {
  const error = await closed;
  if (!error) return new Promise(() => {});
  await new Promise((resolve) => setTimeout(resolve, CONNECT_TIMEOUT_MS));
  throw loadFailed('PEER_CLOSED', `${error.message}, and the guest did not come`);
}

function loadFailed(code: BallastErrorCode, why: string): BallastError {
  return new BallastError(code, `load of migration failed: ${why}`);
}

/** @throws BallastError HELLO_MISMATCH: somebody else has come. */
function mustBeTheGuestOf({ hello: expected }: Incoming, found: Hello): void {
  const same =
    found.ram_pages === expected.ram_pages &&
    found.record_size === expected.record_size &&
    found.vcpus === expected.vcpus &&
    Buffer.compare(found.ram_segments, expected.ram_segments) === 0;
  if (same) return;
  throw new BallastError('HELLO_MISMATCH', 'the guest that came is not the one that was sent');
}

function forwardEvents({ vmm }: Hypervisor): void {
  for (const name of HOST_EVENT_NAMES)
    vmm.events.on(name, (event: HostEvent) => process.send?.(event));
}

function report(what: string, done: number, total: number): void {
  process.send?.({ progress: { what, done, total } });
}

const host = new HostProcess();
let last: Promise<void> = Promise.resolve();

async function answer(request: ControlRequest): Promise<void> {
  let reply: ControlReply;
  try {
    reply = { id: request.id, result: await host.execute(request) };
  } catch (error) {
    if (!(error instanceof BallastError)) exitWith('host', error);
    reply = { id: request.id, error: { code: error.code, message: error.message } };
  }
  process.send?.(reply);
}

process.on('message', (request: ControlRequest) => {
  last = last.then(() => answer(request));
});
process.on('uncaughtException', (error) => exitWith('host', error));
onLaboratoryGone(() => {
  host.removeFolder();
  process.exit(ExitStatus.OK);
});
if (!process.send) {
  exitWith(
    'host',
    new BallastError('BAD_INPUT', 'started alone: expected to be started by `ballast host`'),
  );
}
