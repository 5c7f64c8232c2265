/** The host process: executes the laboratory's commands, one after the other, over its IPC pipe. */
import {
  type Address,
  type ControlReply,
  type ControlRequest,
  type GuestLink,
  type Hello,
  HOST_EVENT_NAMES,
  type HostConfig,
  type HostEvent,
  hostHello,
  hostLink,
  listen,
  type MigrateParams,
  type MigrationReport,
} from '../protocol/index.ts';
import { BallastError, ExitStatus } from '../shared/index.ts';
import { exitWith, fileSink, onLaboratoryGone } from '../shared/process.ts';
import type { BalloonMonitor } from './balloon/monitor.ts';
import { guestStatistics } from './evaluation/evaluator.ts';
import { Hypervisor } from './hypervisor.ts';

type Listener = Awaited<ReturnType<typeof listen>>;

class HostProcess {
  #config: HostConfig | null = null;
  #listener: Listener | null = null;
  #link: GuestLink | null = null;
  #destination: GuestLink | null = null;
  #hypervisor: Hypervisor | null = null;

  async execute({ command, params }: ControlRequest): Promise<unknown> {
    switch (command) {
      case 'listen':
        return this.#listen(params as HostConfig);
      case 'accept':
        return this.#accept();
      case 'listenDestination':
        this.#listener = await listen(params as Address);
        return this.#listener.address;
      case 'acceptDestination':
        return this.#acceptDestination();
      case 'runUntil':
        return this.#machine.runUntil((params as { at_ns: number }).at_ns);
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
      case 'migrate':
        return this.#migrate(params as MigrateParams);
      case 'startMigration':
        this.#machine.startMigration(params as MigrateParams);
        return null;
      case 'setMigrationLimits':
        this.#machine.setMigrationLimits(params as MigrateParams);
        return null;
      case 'cancelMigration':
        this.#machine.cancelMigration();
        return null;
      case 'queryMigration':
        return this.#machine.queryMigration();
      case 'migrationStream':
        return this.#machine.migrationStream();
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
    const { link, hello } = await this.#acceptOne();
    this.#link = link;
    if (hello.ram_pages !== config.ramPages) {
      await link.close();
      throw new BallastError(
        'HELLO_MISMATCH',
        `the guest has ${hello.ram_pages} page frames, expected ${config.ramPages} as in the scenario`,
      );
    }
    this.#watch(link);
    this.#hypervisor = new Hypervisor(link, hello, config, report, fileSink(config.logPath));
    forwardEvents(this.#hypervisor);
    return { ramPages: hello.ram_pages, vcpus: hello.vcpus };
  }

  async #acceptDestination(): Promise<null> {
    const machine = this.#machine;
    const { link, hello } = await this.#acceptOne();
    machine.setDestination(link, hello);
    this.#watch(link);
    this.#destination = link;
    return null;
  }

  async #acceptOne(): Promise<{ link: GuestLink; hello: Hello }> {
    if (!this.#listener) throw new BallastError('MESSAGE_UNEXPECTED', 'accept before listen');
    const socket = await this.#listener.accept();
    // One machine, one guest: nobody else is let in, and the socket file goes at once.
    await this.#listener.close();
    const link = hostLink(socket);
    return { link, hello: await hostHello(link) };
  }

  #watch(link: GuestLink): void {
    void link.closed.then((error) => {
      if (error) exitWith('host', error);
    });
  }

  async #migrate(params: MigrateParams): Promise<MigrationReport> {
    const report = await this.#machine.migrate(params);
    if (this.#destination && report.migration.status === 'completed') {
      const source = this.#link;
      this.#link = this.#destination;
      this.#destination = null;
      await source?.close();
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
      peak_rss_bytes: { guest: guestRss, host: process.resourceUsage().maxRSS * 1024 },
    };
  }
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
onLaboratoryGone(() => process.exit(ExitStatus.OK));
if (!process.send) {
  exitWith(
    'host',
    new BallastError('BAD_INPUT', 'started alone: expected to be started by `ballast host`'),
  );
}
