import type { GuestStatsReport } from '../../protocol/balloon-stats.ts';
import type {
  ArrivalReport,
  HintingStatus,
  HostCommands,
  HostStatus,
  MigrateParams,
  MigrationReport,
  RunEnd,
} from '../../protocol/control.ts';
import type { HostEventEmitter } from '../../protocol/host-events.ts';
import {
  BallastError,
  NS_PER_MS,
  NS_PER_S,
  NS_PER_US,
  PAGE_SIZE_BYTES,
} from '../../shared/index.ts';
import type { Plan } from '../plan/plan.ts';
import type { Control } from './control.ts';
import type { Destinations } from './destination.ts';

/** A running pair of processes. All times are virtual; every call may reject with PEER_CLOSED. */

export type FinishReport = HostCommands['finish']['result'];

/** Long enough for the driver's probe and for every work item that it queues. */
const BOOT_NS = 100 * NS_PER_MS;
/** A balloon that stood still for so long has got what it can get: the driver retries every 200 ms. */
const BALLOON_STUCK_NS = NS_PER_S;
/** How long a round of hinting may take until we give it up. */
const HINT_STUCK_NS = NS_PER_S;
/** How long we let a console line work before we look: at first, and at most. */
const CONSOLE_STEP_NS = 100 * NS_PER_US;
const CONSOLE_STEP_MAX_NS = 100 * NS_PER_MS;
/** How long a shell works before we look again. */
const SHELL_STEP_NS = 20 * NS_PER_MS;
/** A line that takes longer is stuck. */
const CONSOLE_STUCK_NS = 600 * NS_PER_S;

/** What a migration that is over has ended, whatever became of it. */
const ENDS_WITH_MIGRATION: readonly RunEnd['kind'][] = ['migration', 'pass', 'switchover'];

/** What a machine says at its end that was killed. */
const NOTHING_LEFT: FinishReport = {
  event_log_sha256: '',
  peak_rss_bytes: { guest: 0, host: 0 },
};

type MigrationLimits = Pick<MigrateParams, 'bandwidthBytesPerS' | 'downtimeLimitMs'>;

export class Machine implements AsyncDisposable {
  readonly plan: Plan;
  /** Virtual time since power-on. */
  nowNs = 0;
  readonly #control: Control;
  readonly #dispose: () => Promise<void>;
  readonly #destinations: Destinations;
  /** Of a guest that came from another host: what was found then. */
  readonly arrival: ArrivalReport | null;
  #hasLeft = false;
  #lastStatus: HostStatus | null = null;
  #replayStartNs: number | null = null;
  /** A migration was started and has not been settled. */
  #migrates = false;
  /** Of the last one that was started. */
  #limits: MigrationLimits;
  /** Of the last one that was. */
  #report: MigrationReport | null = null;

  constructor(
    control: Control,
    plan: Plan,
    destinations: Destinations,
    dispose: () => Promise<void>,
    arrival: ArrivalReport | null = null,
  ) {
    this.arrival = arrival;
    this.#control = control;
    this.plan = plan;
    this.#limits = plan.migration;
    this.#dispose = dispose;
    this.#destinations = destinations;
  }

  /** What happens on the host, by QMP's names: `machine.events.on('MIGRATION_PASS', …)`. */
  get events(): HostEventEmitter {
    return this.#control.events;
  }

  /** Process ids: for tests that pull the plug. */
  get pids(): {
    readonly host: number;
    readonly guest: number | null;
    /** The host that the guest migrates to next, once it has been started. */
    readonly destination: number | null;
  } {
    const { host, guest, destination } = this.#control;
    return { host: host.pid, guest: guest?.pid ?? null, destination: destination?.pid ?? null };
  }

  /** Until when the replay knows what the guest did; null while nothing is replayed. */
  get replayEndNs(): number | null {
    if (this.#replayStartNs === null || !this.plan.recording) return null;
    return this.#replayStartNs + this.plan.recording.traceEndNs;
  }

  /** Powers on and lets the balloon driver probe. A real kernel is up already: it loads its driver. */
  async boot(): Promise<HostStatus> {
    if (this.plan.guest === 'linux') await this.shell('bind');
    return this.waitFor(BOOT_NS);
  }

  /** Types a line on the guest's console; `replay` starts the recording. */
  async workload(line = 'replay'): Promise<void> {
    if (line === 'replay') {
      if (!this.plan.recording)
        throw new BallastError('BAD_INPUT', 'replay: expected a machine with a recording');
      this.#replayStartNs = this.nowNs;
    }
    await this.#control.call('console', { line });
  }

  /**
   * Types a command on the guest's console and waits until its work is over. Returns why it failed,
   * or null.
   */
  async console(line: string): Promise<string | null> {
    await this.#control.call('console', { line });
    const startNs = this.nowNs;
    for (let stepNs = CONSOLE_STEP_NS; ; stepNs = Math.min(stepNs * 2, CONSOLE_STEP_MAX_NS)) {
      const { pending, lines } = await this.#control.call('readConsole', null);
      if (lines.length > 0) return lines.join('; ');
      if (pending === 0) return null;
      if (this.nowNs - startNs > CONSOLE_STUCK_NS) {
        return `not over after ${CONSOLE_STUCK_NS / NS_PER_S} s`;
      }
      await this.waitFor(stepNs);
    }
  }

  /** Types a command for the shell of a real kernel and returns what it printed, line by line. */
  async shell(line: string): Promise<readonly string[]> {
    await this.#control.call('console', { line });
    const startNs = this.nowNs;
    const printed: string[] = [];
    while (this.nowNs - startNs < CONSOLE_STUCK_NS) {
      const { pending, lines } = await this.#control.call('readConsole', null);
      printed.push(...lines);
      if (pending === 0 && lines.length === 0) return printed;
      if (pending > 0) await this.waitFor(SHELL_STEP_NS);
    }
    throw new BallastError('BAD_INPUT', `not over after ${CONSOLE_STUCK_NS / NS_PER_S} s: ${line}`);
  }

  /** Lets virtual time pass. */
  waitFor(durationNs: number): Promise<HostStatus> {
    return this.waitUntil(this.nowNs + durationNs);
  }

  /** Lets virtual time pass until an instant, or until the recorded guest asked to be migrated. */
  async waitUntil(instant: number | 'migrate_at'): Promise<HostStatus> {
    return this.#run(instant === 'migrate_at' ? this.#migrateAtNs() : instant, null);
  }

  /** Lets virtual time pass until this has happened, but no longer than so. */
  waitForEnd(end: RunEnd, atMostNs: number): Promise<HostStatus> {
    return this.#run(this.nowNs + atMostNs, end);
  }

  /** Asks for a balloon of this size, and does not wait for it. */
  async setTarget(sizeBytes: number): Promise<void> {
    await this.#control.call('balloon', { target_pages: sizeBytes / PAGE_SIZE_BYTES });
  }

  /** QMP stop and cont: the vCPUs and the device stand still, or go on. */
  async stop(): Promise<void> {
    await this.#control.call('stop', null);
  }

  async cont(): Promise<void> {
    await this.#control.call('cont', null);
  }

  /** Grows the balloon by so much, and waits until the guest gave it or can give no more. */
  inflate(sizeBytes: number): Promise<HostStatus> {
    return this.#resizeBalloon(sizeBytes / PAGE_SIZE_BYTES);
  }

  /** Shrinks the balloon by so much, and waits until the guest took it back. */
  deflate(sizeBytes: number): Promise<HostStatus> {
    return this.#resizeBalloon(-sizeBytes / PAGE_SIZE_BYTES);
  }

  /** QOM guest-stats-polling-interval, in virtual time; 0 turns polling off. */
  async setStatsPollingInterval(seconds: number): Promise<void> {
    await this.#control.call('statsPollingInterval', { seconds });
  }

  guestStats(): Promise<GuestStatsReport> {
    return this.#control.call('guestStats', null);
  }

  /** A round of hinting without a migration is asked for, as by Firecracker's API. */
  async hintStart(acknowledgeOnStop = true): Promise<void> {
    await this.#control.call('hintStart', { acknowledge_on_stop: acknowledgeOnStop });
  }

  async hintStop(): Promise<void> {
    await this.#control.call('hintStop', null);
  }

  hintStatus(): Promise<HintingStatus> {
    return this.#control.call('hintStatus', null);
  }

  /**
   * One whole round: waits until the guest has ended it, or has not for a second, and gives it back
   * what it hinted.
   */
  async hint(acknowledgeOnStop = true): Promise<void> {
    await this.hintStart(acknowledgeOnStop);
    await this.waitForEnd({ kind: 'hint' }, HINT_STUCK_NS);
    await this.hintStop();
  }

  /**
   * Migrates the guest to a host process of its own, where it then goes on. A migration that fails
   * or is cancelled leaves it here, and the report says so.
   */
  async migrate(params: Partial<MigrateParams> = {}): Promise<MigrationReport> {
    await this.startMigration(params);
    return this.finishMigration();
  }

  /**
   * Migrates in the background: it gets on whenever virtual time passes, and the machine is at the
   * destination from the moment at which the guest is.
   */
  async startMigration(params: Partial<MigrateParams> = {}): Promise<void> {
    const to = await this.#destinations.stream();
    const migrate: MigrateParams = { ...this.plan.migration, ...params };
    this.#limits = migrate;
    await this.status();
    this.#report = null;
    await this.#control.call('beginMigration', { migrate, to }).catch(async (error: unknown) => {
      await this.#destinations.drop();
      throw error;
    });
    this.#migrates = true;
  }

  /** migrate_cancel. */
  async cancelMigration(): Promise<void> {
    await this.#control.call('cancelMigration', null);
  }

  /** migrate-continue, of a migration that pauses before the switchover. */
  async continueMigration(): Promise<void> {
    await this.#control.call('continueMigration', null);
  }

  /** migrate-set-parameters, while a migration runs. */
  async setMigrationLimits(limits: Partial<MigrationLimits>): Promise<void> {
    this.#limits = { ...this.#limits, ...limits };
    await this.#control.call('setMigrationLimits', this.#limits);
  }

  /** The link to the destination carries nothing for so long; null: it is cut. */
  async disturbLink(stallNs: number | null): Promise<void> {
    await this.#control.call('disturbLink', { stall_ns: stallNs });
  }

  /**
   * SIGKILL. The guest survives its destination; with the source, where it runs, it is lost as it is
   * with its own process, and nothing can be asked of this machine any more. Resolves when all have
   * ended that cannot go on.
   */
  async kill(victim: 'source' | 'destination' | 'guest'): Promise<void> {
    if (victim === 'destination') {
      await this.#control.killDestination();
      // The source notices at this instant of virtual time, and not when its socket does.
      return this.disturbLink(null);
    }
    this.#hasLeft = true;
    await this.#control.killMachine(victim);
  }

  /** A migration was started, and what became of it was not fetched yet. */
  get migrates(): boolean {
    return this.#migrates;
  }

  /** Waits until the migration that was started last is over. */
  async finishMigration(): Promise<MigrationReport> {
    if (this.#migrates) await this.#settle();
    if (this.#report) return this.#report;
    throw new BallastError('BAD_INPUT', 'no migration: expected one that was started');
  }

  /** It was killed: nothing of it is left. */
  get isDead(): boolean {
    return this.#control.isDead;
  }

  /** The guest is at a host that somebody else has started: nothing can be asked of it here. */
  get hasLeft(): boolean {
    return this.#hasLeft;
  }

  /** Of a guest that has left: as it was when its migration began. */
  async status(): Promise<HostStatus> {
    if (this.#hasLeft && this.#lastStatus) return this.#lastStatus;
    return this.#seen(await this.#control.call('status', null));
  }

  /** Full audit of the guest's page allocator and driver: empty when all is well. */
  async verify(): Promise<readonly string[]> {
    if (this.#hasLeft) return [];
    return this.#control.call('verify', null);
  }

  /** Orderly end of both processes. */
  async finish(): Promise<FinishReport> {
    if (this.#control.isDead) return NOTHING_LEFT;
    if (this.#hasLeft) return this.#retire();
    const report = await this.#control.call('finish', null);
    this.#control.expectEnd();
    const { guest, host } = report.peak_rss_bytes;
    const peakRssBytes = Math.max(host, this.#destinations.peakRssBytes);
    return { ...report, peak_rss_bytes: { guest, host: peakRssBytes } };
  }

  /** Ends whatever still runs and removes what we made; safe at any time, and twice. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.#dispose();
  }

  /** As `waitUntil`, and ends early with `end`; the guest may be at another host then. */
  async #run(atNs: number, end: RunEnd | null): Promise<HostStatus> {
    for (;;) {
      const at = { at_ns: Math.max(atNs, this.nowNs), end };
      const status = this.#seen(await this.#control.call('runUntil', at));
      if (status.has_guest) return status;
      await this.#settle();
      const isOver = end !== null && ENDS_WITH_MIGRATION.includes(end.kind);
      if (this.#hasLeft || isOver || this.nowNs >= atNs) return this.status();
    }
  }

  /** The migration is over, or is brought to its end; what became of the guest is seen to. */
  async #settle(): Promise<void> {
    const report = await this.#control.call('finishMigration', null);
    this.#migrates = false;
    this.#report = report;
    const hasMoved = report.migration.status === 'completed';
    if (hasMoved && this.#destinations.takesAway) {
      this.#hasLeft = true;
      return;
    }
    if (hasMoved) this.#report = await this.#destinations.settle(report);
    else await this.#destinations.drop();
    await this.status();
  }

  async #resizeBalloon(deltaPages: number): Promise<HostStatus> {
    let status = await this.status();
    const target = Math.min(Math.max(0, status.actual_pages + deltaPages), this.plan.ramPages);
    await this.setTarget(target * PAGE_SIZE_BYTES);
    for (let before = -1; status.actual_pages !== target && status.actual_pages !== before; ) {
      before = status.actual_pages;
      status = await this.waitForEnd({ kind: 'balloon' }, BALLOON_STUCK_NS);
    }
    return status;
  }

  async #retire(): Promise<FinishReport> {
    const { peak_rss_bytes: host, event_log_sha256 } = await this.#control.call('retire', null);
    this.#control.expectEnd();
    return { event_log_sha256, peak_rss_bytes: { guest: 0, host } };
  }

  #migrateAtNs(): number {
    const { recording, monitorLatencyNs } = this.plan;
    if (!recording || this.#replayStartNs === null) {
      throw new BallastError(
        'BAD_INPUT',
        'migrate_at: expected a replay that was started with workload()',
      );
    }
    return this.#replayStartNs + recording.migrateAtNs + monitorLatencyNs;
  }

  #seen(status: HostStatus): HostStatus {
    this.nowNs = status.now_ns;
    this.#lastStatus = status;
    return status;
  }
}
