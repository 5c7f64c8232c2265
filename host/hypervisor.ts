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
  RunEnd,
  StreamLink,
} from '../protocol/index.ts';
import { factsOf, ramOf } from '../protocol/index.ts';
import { BallastError, EventLog, type Pfn } from '../shared/index.ts';
import { BalloonMonitor } from './balloon/monitor.ts';
import { deviceOptionsOf } from './balloon/profiles.ts';
import { guestStatistics } from './evaluation/evaluator.ts';
import type { Incoming } from './migration/incoming.ts';
import { loadStates, saveStates } from './migration/machine-state.ts';
import { Migration, UNWATCHED } from './migration/migration.ts';
import { KeptStream } from './migration/targets.ts';
import { endTest } from './run-end.ts';
import { Vmm } from './vmm.ts';
import { goOnWith, WatchedMigration } from './watched-migration.ts';

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
  /** The last one that is evaluated. */
  #watched: WatchedMigration | null = null;
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

  /** Ends early once `end` holds, and when the guest has moved to another host. */
  async runUntil(atNs: number, end: RunEnd | null = null): Promise<HostStatus> {
    const { vmm } = this;
    const startNs = vmm.now;
    const stop = endTest(end, vmm, this.#migration);
    while (vmm.now < atNs && this.hasGuest && !stop()) {
      const step = Math.min(atNs, vmm.now + PROGRESS_STEP_NS);
      const migration = this.#migration;
      const isUnderWay = migration && !migration.isOver;
      await (isUnderWay ? migration.advanceTo(step, stop) : vmm.advanceTo(step, stop));
      if (isUnderWay && migration.isOver) await this.#watched?.conclude();
      this.#onProgress('guest runs', vmm.now - startNs, atNs - startNs);
    }
    return this.status();
  }

  /** False: it is at another host. */
  get hasGuest(): boolean {
    return !this.#watched?.hasTakenGuest;
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
    await this.beginMigration(params, to);
    return this.finishMigration();
  }

  /** It gets on with `runUntil`, and to its end with `finishMigration`. Errors as of `migrate`. */
  async beginMigration(params: MigrateParams, to: StreamLink | null): Promise<void> {
    this.#mustNotMigrate();
    const total = this.vmm.ramPageCount;
    this.#watched = await WatchedMigration.begin(
      {
        vmm: this.vmm,
        facts: this.#facts,
        options: this.#plant,
        saveStates: (isRunning) =>
          saveStates(this.vmm, { sourceLog: this.#log.digest(), isRunning }),
        onProgress: (_sent, remaining) => this.#onProgress('migration', total - remaining, total),
      },
      params,
      to,
    );
    this.#migration = this.#watched.migration;
  }

  /** To its end, if it is not over yet. @throws BallastError MESSAGE_UNEXPECTED when there is none. */
  async finishMigration(): Promise<MigrationReport> {
    if (!this.#watched) throw new BallastError('MESSAGE_UNEXPECTED', 'no migration was begun');
    await this.#watched.migration.run();
    return this.#watched.conclude();
  }

  /**
   * A guest has come from another host: what is found is told before it runs on, with the memory
   * that was received. @throws BallastError MESSAGE_INVALID for states that make no sense.
   */
  async arrive(incoming: Incoming): Promise<ArrivalReport> {
    const { vmm } = this;
    const { sourceLog, isRunning } = loadStates(vmm, incoming.states);
    this.#log.add(vmm.now, 'arrived', { source_log: sourceLog });
    return goOnWith(vmm, incoming, isRunning);
  }

  /** What a source that its guest has left knows of pages, oldest first. */
  ledgerHistories(pfns: readonly Pfn[]): string[][] {
    return pfns.map((pfn) => this.#watched?.historyOf(pfn) ?? []);
  }

  /** @throws BallastError MESSAGE_UNEXPECTED while another migration gets on. */
  startMigration(params: MigrateParams): void {
    this.#mustNotMigrate();
    this.#kept = new KeptStream();
    this.#watched = null;
    this.#migration = new Migration(this.vmm, params, this.#kept, UNWATCHED);
  }

  setMigrationLimits(limits: Pick<MigrateParams, 'bandwidthBytesPerS' | 'downtimeLimitMs'>): void {
    this.#migration?.setLimits(limits);
  }

  cancelMigration(): void {
    this.#migration?.cancel();
  }

  continueMigration(): void {
    this.#migration?.continue();
  }

  /** The link carries nothing for so long; null: it is cut. */
  disturbLink(stallNs: number | null): void {
    if (stallNs === null) this.#migration?.cutLink();
    else this.#migration?.stallLink(stallNs);
  }

  queryMigration(): MigrateProgress {
    const { precopy, status } = this.#migration ?? {};
    return {
      status: status ?? 'none',
      normal_pages: precopy?.counters.normal ?? 0,
      duplicate_pages: precopy?.counters.duplicate ?? 0,
      transferred_bytes: precopy?.counters.transferredBytes ?? 0,
      remaining_bytes: precopy?.remainingBytes ?? 0,
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
    const guest = this.hasGuest ? await guestStatistics(vmm) : this.#watched!.guestCounters;
    for (const [name, value] of Object.entries(guest)) {
      counters[`guest.${name}`] = value;
    }
    for (const [name, value] of Object.entries(vmm.device.metrics)) {
      counters[`device.${name}`] = value;
    }
    return {
      now_ns: vmm.now,
      has_guest: this.hasGuest,
      migration: this.#migration?.status ?? 'none',
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
