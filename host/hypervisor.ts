/**
 * The host process as one object: what the laboratory may ask of it, one command at a time. It owns
 * the run loop and starts migrations; it knows no process, socket or wall clock.
 */
import { createHash } from 'node:crypto';
import type {
  ConsoleOutput,
  GuestLink,
  Hello,
  HostConfig,
  HostStatus,
  MigrateParams,
  MigrateProgress,
  MigrationReport,
} from '../protocol/index.ts';
import { ramOf } from '../protocol/index.ts';
import { BallastError, EventLog } from '../shared/index.ts';
import { BalloonMonitor } from './balloon/monitor.ts';
import { deviceOptionsOf } from './balloon/profiles.ts';
import { Evaluator, guestStatistics } from './evaluation/evaluator.ts';
import { migrate } from './migration/drive.ts';
import { MigrationJob } from './migration/job.ts';
import { LiveDestination } from './migration/live-destination.ts';
import { Vmm } from './vmm.ts';

export type ProgressSink = (what: string, done: number, total: number) => void;

/** Virtual time between two reports of progress. */
const PROGRESS_STEP_NS = 250_000_000;

export class Hypervisor {
  readonly vmm: Vmm;
  readonly balloon: BalloonMonitor;
  readonly #log: EventLog;
  readonly #onProgress: ProgressSink;
  #job: MigrationJob | null = null;
  readonly #plant: HostConfig['plant'];
  readonly #recordSizeBytes: number;
  /** Where the next migration takes the guest. */
  #destination: LiveDestination | null = null;

  constructor(
    link: GuestLink,
    hello: Hello,
    config: HostConfig,
    onProgress: ProgressSink = () => {},
    sink?: (line: string) => void,
  ) {
    this.#log = new EventLog(sink);
    this.#plant = config.plant;
    this.#recordSizeBytes = hello.record_size;
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
      await (this.#job && !this.#job.isOver ? this.#job.advanceTo(step) : vmm.advanceTo(step));
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

  /** @throws BallastError HELLO_MISMATCH when the machine is not like this guest's. */
  setDestination(link: GuestLink, hello: Hello): void {
    const { ramPages } = this.vmm.options;
    this.#destination = new LiveDestination(link, hello, ramPages, this.#recordSizeBytes);
  }

  /** With a destination, the guest is there afterwards. */
  async migrate(params: MigrateParams): Promise<MigrationReport> {
    this.#mustNotMigrate();
    const { vmm } = this;
    const destination = this.#destination;
    const total = vmm.ramPageCount;
    const evaluator = new Evaluator(
      vmm,
      (_sent, remaining) => this.#onProgress('migration', total - remaining, total),
      destination,
    );
    await evaluator.begin();
    vmm.records.onPages = destination?.onPages ?? null;
    const { precopy, figures } = await migrate(vmm, params, evaluator, this.#plant);
    vmm.records.onPages = null;
    await destination?.drain();
    const report = await evaluator.report(precopy, figures);
    if (destination && figures.status === 'completed') await this.#switchOver(destination);
    // The guest goes on; in virtual time it was away for as long as the switchover took.
    vmm.running = true;
    return report;
  }

  async #switchOver(destination: LiveDestination): Promise<void> {
    await destination.takeState((message) => this.vmm.request(message, 'machineState'));
    this.#destination = null;
    this.vmm.moveTo(destination.link);
  }

  /** @throws BallastError MESSAGE_UNEXPECTED while another migration gets on. */
  startMigration(params: MigrateParams): void {
    this.#mustNotMigrate();
    this.#job = new MigrationJob(this.vmm, params);
  }

  setMigrationLimits(limits: Pick<MigrateParams, 'bandwidthBytesPerS' | 'downtimeLimitMs'>): void {
    this.#job?.setLimits(limits);
  }

  cancelMigration(): void {
    this.#job?.cancel();
  }

  queryMigration(): MigrateProgress {
    const progress = this.#job?.progress;
    return {
      status: this.#job?.status ?? 'none',
      normal_pages: progress?.normalPages ?? 0,
      duplicate_pages: progress?.duplicatePages ?? 0,
      transferred_bytes: progress?.transferredBytes ?? 0,
      remaining_bytes: progress?.remainingBytes ?? 0,
    };
  }

  migrationStream(): Uint32Array {
    return this.#job?.takeStream() ?? new Uint32Array();
  }

  #mustNotMigrate(): void {
    if (!this.#job || this.#job.isOver) return;
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

  /** SHA-256 over both sides' event logs. */
  async digest(): Promise<string> {
    const guest = await this.vmm.request({ name: 'getGuestDigest' }, 'guestDigest');
    return createHash('sha256').update(this.#log.digest()).update(guest.sha256).digest('hex');
  }
}
