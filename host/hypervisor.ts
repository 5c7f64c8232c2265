/**
 * The host process as one object: what the laboratory may ask of it, one command at a time. It owns
 * the run loop and starts migrations; it knows no process, socket or wall clock.
 */
import { createHash } from 'node:crypto';
import type {
  ArrivalReport,
  ConsoleOutput,
  GuestFacts,
  GuestLink,
  Hello,
  HostConfig,
  HostStatus,
  MigrateParams,
  MigrateProgress,
  MigrationReport,
  StreamLink,
} from '../protocol/index.ts';
import { factsOf, ramOf, sourceHello, withArrival } from '../protocol/index.ts';
import { BallastError, EventLog, type Pfn } from '../shared/index.ts';
import { BalloonMonitor } from './balloon/monitor.ts';
import { deviceOptionsOf } from './balloon/profiles.ts';
import { verifyArrival, verifyStay } from './evaluation/arrival.ts';
import { Evaluator, guestStatistics } from './evaluation/evaluator.ts';
import { loadRam } from './memory/load.ts';
import type { HintLedger } from './migration/hint-ledger.ts';
import { InPlace } from './migration/in-place.ts';
import type { Incoming } from './migration/incoming.ts';
import { loadStates, saveStates } from './migration/machine-state.ts';
import { Migration, UNWATCHED } from './migration/migration.ts';
import type { DeviceState } from './migration/stream.ts';
import { KeptStream, ToHost } from './migration/targets.ts';
import { Vmm } from './vmm.ts';

export type ProgressSink = (what: string, done: number, total: number) => void;

/** Virtual time between two reports of progress. */
const PROGRESS_STEP_NS = 250_000_000;

export class Hypervisor {
  readonly vmm: Vmm;
  readonly balloon: BalloonMonitor;
  readonly #log: EventLog;
  readonly #onProgress: ProgressSink;
  /** The last one, whether it is over or not. */
  #migration: Migration | null = null;
  /** Of a migration in the background. */
  #kept: KeptStream | null = null;
  /** Of the migration that has taken the guest away. */
  #ledger: HintLedger | null = null;
  readonly #plant: HostConfig['plant'];
  readonly #facts: GuestFacts;

  constructor(
    link: GuestLink,
    hello: Hello,
    config: HostConfig,
    onProgress: ProgressSink = () => {},
    sink?: (line: string) => void,
  ) {
    this.#log = new EventLog(sink);
    this.#plant = config.plant;
    this.#facts = factsOf(hello);
    this.#onProgress = onProgress;
    this.#log.add(0, 'power_on', { seed: config.seed, ram_pages: hello.ram_pages });
    this.vmm = new Vmm(
      link,
      {
        ramPages: hello.ram_pages,
        ram: ramOf(hello),
        recordSizeBytes: hello.record_size,
        startNs: config.startNs ?? 0,
        costs: config.costs,
        device: {
          ...deviceOptionsOf(config.device),
          acceptLateHints: config.plant.acceptLateHints,
        },
      },
      this.#log,
    );
    this.balloon = new BalloonMonitor(this.vmm.device);
    const { statsPollingIntervalS } = config.device;
    if (statsPollingIntervalS) this.balloon.setStatsPollingInterval(statsPollingIntervalS);
  }

  async runUntil(atNs: number): Promise<HostStatus> {
    const { vmm } = this;
    const startNs = vmm.now;
    while (vmm.now < atNs) {
      const step = Math.min(atNs, vmm.now + PROGRESS_STEP_NS);
      const migration = this.#migration;
      await (migration && !migration.isOver ? migration.advanceTo(step) : vmm.advanceTo(step));
      this.#onProgress('guest runs', vmm.now - startNs, atNs - startNs);
    }
    return this.status();
  }

  console(line: string): void {
    this.vmm.post({ name: 'console', line });
  }

  async readConsole(): Promise<ConsoleOutput> {
    const { pending, lines } = await this.vmm.request({ name: 'getConsole' }, 'consoleOutput');
    return { pending, lines };
  }

  setBalloon(targetPages: number): void {
    this.#log.add(this.vmm.now, 'balloon', { target: targetPages });
    this.vmm.device.setTarget(targetPages);
  }

  /**
   * One migration to another host, or to none: then the guest stays and gets the memory that a
   * destination would hold. A destination that fails is no error: the report says so, and the guest
   * goes on here. @throws BallastError MESSAGE_UNEXPECTED while another migration gets on.
   */
  async migrate(params: MigrateParams, to: StreamLink | null = null): Promise<MigrationReport> {
    this.#mustNotMigrate();
    const { vmm } = this;
    const total = vmm.ramPageCount;
    const evaluator = new Evaluator(vmm, (_sent, remaining) =>
      this.#onProgress('migration', total - remaining, total),
    );
    await evaluator.begin();
    const inPlace = to ? null : await InPlace.open(vmm, this.#facts);
    const target = inPlace ?? (await this.#toHost(to!));
    vmm.records.onPages = target.onPages;
    const migration = new Migration(vmm, params, target, evaluator, this.#plant);
    this.#migration = migration;
    const figures = await migration.run();
    vmm.records.onPages = null;
    const { ledger } = migration.precopy;
    const watched = await evaluator.report(migration.precopy, figures);
    const report = { ...watched, error_desc: migration.error?.message ?? null };
    const hasMoved = figures.status === 'completed';
    if (hasMoved && !inPlace) {
      this.#ledger = ledger;
      return report;
    }
    const arrival =
      hasMoved && inPlace
        ? await this.#goOnWith(inPlace.incoming, migration.precopy.stoppedRunning)
        : await verifyStay(vmm);
    return withArrival(report, arrival, (pfn) => ledger.historyOf(pfn));
  }

  async #toHost(link: StreamLink): Promise<ToHost> {
    await sourceHello(link, this.#facts);
    return new ToHost(this.vmm, link, () => this.#saveStates());
  }

  /** The guest is looked at, gets the memory that was received, and goes on if it ran before. */
  async #goOnWith({ memory }: Incoming, isRunning: boolean): Promise<ArrivalReport> {
    const arrival = await verifyArrival(this.vmm, memory);
    await loadRam(this.vmm, memory);
    // In virtual time the guest was away for as long as the switchover took.
    this.vmm.running = isRunning;
    return arrival;
  }

  /**
   * A guest has come from another host: what is found is told before it runs on, with the memory
   * that was received. @throws BallastError MESSAGE_INVALID for states that make no sense.
   */
  async arrive(incoming: Incoming): Promise<ArrivalReport> {
    const { vmm } = this;
    const { sourceLog, isRunning } = loadStates(vmm, incoming.states);
    this.#log.add(vmm.now, 'arrived', { source_log: sourceLog });
    return this.#goOnWith(incoming, isRunning);
  }

  /** What a source that its guest has left knows of pages, oldest first. */
  ledgerHistories(pfns: readonly Pfn[]): string[][] {
    return pfns.map((pfn) => this.#ledger?.historyOf(pfn) ?? []);
  }

  #saveStates(): readonly DeviceState[] {
    const isRunning = this.#migration?.precopy.stoppedRunning ?? true;
    return saveStates(this.vmm, { sourceLog: this.#log.digest(), isRunning });
  }

  /** @throws BallastError MESSAGE_UNEXPECTED while another migration gets on. */
  startMigration(params: MigrateParams): void {
    this.#mustNotMigrate();
    this.#kept = new KeptStream();
    this.#migration = new Migration(this.vmm, params, this.#kept, UNWATCHED);
  }

  setMigrationLimits(limits: Pick<MigrateParams, 'bandwidthBytesPerS' | 'downtimeLimitMs'>): void {
    this.#migration?.setLimits(limits);
  }

  cancelMigration(): void {
    this.#migration?.cancel();
  }

  queryMigration(): MigrateProgress {
    const progress = this.#migration?.precopy.progress;
    return {
      status: this.#migration?.status ?? 'none',
      normal_pages: progress?.normalPages ?? 0,
      duplicate_pages: progress?.duplicatePages ?? 0,
      transferred_bytes: progress?.transferredBytes ?? 0,
      remaining_bytes: progress?.remainingBytes ?? 0,
    };
  }

  migrationStream(): Uint32Array {
    return this.#kept?.take() ?? new Uint32Array();
  }

  #mustNotMigrate(): void {
    if (!this.#migration || this.#migration.isOver) return;
    throw new BallastError('MESSAGE_UNEXPECTED', 'a migration is under way');
  }

  async status(): Promise<HostStatus> {
    const { vmm } = this;
    const counters: Record<string, number> = {};
    for (const [name, value] of Object.entries(await guestStatistics(vmm))) {
      counters[`guest.${name}`] = value;
    }
    for (const [name, value] of Object.entries(vmm.device.metrics)) {
      counters[`device.${name}`] = value;
    }
    return {
      now_ns: vmm.now,
      ram_pages: vmm.ramPageCount,
      num_pages: vmm.device.targetPages,
      actual_pages: vmm.device.actualPages,
      protocol_violations: vmm.device.protocolViolations,
      counters,
    };
  }

  async verify(): Promise<readonly string[]> {
    return (await this.vmm.request({ name: 'verify' }, 'verified')).problems;
  }

  /** SHA-256 of the host's event log. */
  logDigest(): string {
    return this.#log.digest();
  }

  /** SHA-256 over both sides' event logs. */
  async digest(): Promise<string> {
    const guest = await this.vmm.request({ name: 'getGuestDigest' }, 'guestDigest');
    return createHash('sha256').update(this.#log.digest()).update(guest.sha256).digest('hex');
  }
}
