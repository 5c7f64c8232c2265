import type { Costs } from '../shared/index.ts';
import type { GuestStatsReport } from './balloon-stats.ts';
import type { DeviceConfig } from './device-config.ts';
import type { DirtyLogParams } from './dirty-log.ts';
import type { DriverConfig } from './driver-config.ts';
import type { Agreement } from './ipc/agreement.ts';

/**
 * How the laboratory starts and drives the two processes: plain data over Node's own IPC pipe,
 * which is the harness's, not the machine's. Nothing of it crosses the guest's channel.
 */

export type StrategyName = 'none' | 'iterate' | 'alloc' | 'alloc-ack' | 'oracle';
export const STRATEGIES: readonly StrategyName[] = [
  'none',
  'iterate',
  'alloc',
  'alloc-ack',
  'oracle',
];

/** Where the two processes meet. */
export type Address =
  | { readonly kind: 'unix'; readonly path: string }
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number };

export interface MmOptions {
  readonly initOnAlloc: boolean;
  readonly initOnFree: boolean;
  readonly pagePoison: boolean;
}

/** How far compaction looks whether a page is pinned before it isolates it. */
export type PinCheck = 'anonymous' | 'extra_refs' | 'maybe_dma_pinned';
export const PIN_CHECKS: readonly PinCheck[] = ['anonymous', 'extra_refs', 'maybe_dma_pinned'];

/** Which design of movable pages the guest's kernel has. */
export type MovableGenerationName = 'list' | 'pfn';
export const MOVABLE_GENERATIONS: readonly MovableGenerationName[] = ['list', 'pfn'];

/** Build and boot options of the guest's kernel beyond what fills pages. */
export interface KernelOptions {
  readonly movableGeneration: MovableGenerationName;
  readonly pinCheck: PinCheck;
  /** vm.compaction_proactiveness, 0 … 100; 0: kcompactd only works for whoever wakes it. */
  readonly compactionProactiveness: number;
  /** CONFIG_BALLOON_COMPACTION: pages of the balloon are movable. */
  readonly balloonCompaction: boolean;
  /** movablecore=, in pages. */
  readonly movableZonePages: number;
  /** page_reporting.page_reporting_order: the smallest block that is worth a report. */
  readonly pageReportingOrder: number;
}

export const DEFAULT_KERNEL_OPTIONS: KernelOptions = {
  movableGeneration: 'list',
  pinCheck: 'anonymous',
  compactionProactiveness: 20,
  balloonCompaction: true,
  movableZonePages: 0,
  pageReportingOrder: 9,
};

/** What the guest process is told at start. */
export interface GuestConfig {
  readonly seed: number;
  readonly ramPages: number;
  readonly vcpus: number;
  readonly mm: MmOptions;
  readonly kernel: KernelOptions;
  readonly strategy: StrategyName;
  /** What its host must have in common with it; left out: nothing. */
  readonly plan?: Agreement;
  /** The balloon driver, as far as it is not as Linux's. */
  readonly driver?: Partial<DriverConfig>;
  /** `iterate`: free list nodes per lock hold, and the smallest order that is hinted. */
  readonly iterate: { readonly budgetNodes: number; readonly minOrder: number };
  /** Compact recording that sets the initial state and can be replayed; null: an empty machine. */
  readonly recordingPath: string | null;
  readonly costs: Costs;
  /** Full audit of the page allocator after every n-th event; 0: never. */
  readonly auditEveryEvents: number;
  /** Where to write the lines of the event log; null: only the digest is kept. */
  readonly logPath: string | null;
}

/** What the process of a Linux guest is told at start. */
export interface LinuxGuestConfig {
  readonly ramPages: number;
  /** More arguments for the kernel than it boots with anyway. */
  readonly kernelArguments: string;
  /** As of `GuestConfig`. */
  readonly plan?: Agreement;
  /** Boot once for all guests of this kind: start from a snapshot of the booted machine. */
  readonly keepBooted: boolean;
}

/** What the host process is told at start. */
export interface HostConfig {
  readonly seed: number;
  readonly listen: Address;
  /** Page frames of the guest that belongs here; another one is turned away. */
  readonly ramPages: number;
  /** What its guest, and the other host of a migration, must have in common with it; left out: nothing. */
  readonly plan?: Agreement;
  readonly device: DeviceConfig;
  readonly costs: Costs;
  /** Virtual time now, where a host takes over a guest that runs already; default: 0. */
  readonly startNs?: number;
  readonly logPath: string | null;
  /** Plants for tests of the checks themselves. */
  readonly plant: {
    readonly acceptLateHints: boolean;
    /** A page that was hinted once is not sent any more, although it was written. */
    readonly neverResendHinted?: boolean;
  };
}

export interface MigrateParams extends DirtyLogParams {
  readonly bandwidthBytesPerS: number;
  readonly downtimeLimitMs: number;
  /** pause-before-switchover: the stopped machine waits for `continueMigration`. Default: no. */
  readonly pauseBeforeSwitchover?: boolean;
  /** What is done about a guest that writes faster than its pages can be sent. Default: nothing. */
  readonly policy?: ConvergencePolicy;
  /** vcpu-dirty-limit, of policy dirty-limit. Default: 1 MiB/s, QEMU's. */
  readonly vcpuDirtyLimitBytesPerS?: number;
}

/** `downtime-ramp`: the downtime limit grows, as management software does it. */
export const CONVERGENCE_POLICIES = [
  'default',
  'auto-converge',
  'dirty-limit',
  'downtime-ramp',
] as const;
export type ConvergencePolicy = (typeof CONVERGENCE_POLICIES)[number];

/** Of query-migrate: the states of a migration (qemu MigrationStatus). */
export type MigrationStatus =
  | 'setup'
  | 'active'
  | 'pre-switchover'
  | 'device'
  | 'completed'
  | 'failed'
  | 'cancelling'
  | 'cancelled';

/** query-migrate, of a migration in the background. */
export interface MigrateProgress {
  readonly status: MigrationStatus | 'none';
  readonly normal_pages: number;
  readonly duplicate_pages: number;
  readonly transferred_bytes: number;
  readonly remaining_bytes: number;
}

export interface MigrationFigures {
  readonly status: 'completed' | 'failed' | 'cancelled';
  readonly total_ms: number;
  readonly downtime_ms: number;
  readonly setup_ms: number;
  readonly transferred_bytes: number;
  readonly normal_pages: number;
  readonly duplicate_pages: number;
  /** Pages that a hint kept out of the stream, at least once. */
  readonly skipped_pages: number;
  /** Skipped, then dirtied and sent in a later round. */
  readonly resent_pages: number;
  readonly dirty_sync_count: number;
  /** cpu-throttle-percentage: the strongest that there was. */
  readonly throttle_percentage: number;
  /** What throttling or a dirty limit took of one vCPU's time. */
  readonly stolen_cpu_ms: number;
}

export interface LostPage {
  readonly pfn: number;
  /** What the host knows of it, then the guest, then the destination; each oldest first. */
  readonly history: readonly string[];
}

/** What the destination finds when the guest arrives, before it runs on. */
export interface ArrivalReport {
  readonly memory: Pick<
    MigrationReport['memory'],
    'lost_pages' | 'broken_free_pages' | 'undefined_pages'
  >;
  readonly limit_bytes: number | null;
  /** What the guest and the destination know of the pages that are lost or broken. */
  readonly lost: readonly LostPage[];
}

/** Everything one migration gave; lab/evaluation turns it into a run of the result format. */
export interface MigrationReport {
  readonly migration: MigrationFigures;
  readonly hints: {
    readonly rounds: number;
    readonly blocks: number;
    readonly pages: number;
    /** Distinct pages. */
    readonly unique_pages: number;
    /** Of `pages`: sent already when their hint came. */
    readonly already_sent_pages: number;
    /** Distinct pages hinted and never sent ÷ distinct pages hinted. */
    readonly useful_precision: number | null;
    readonly late_pages: number;
    readonly stale_pages: number;
    readonly precision_at_record: number | null;
    readonly precision_at_use: number | null;
    readonly recall: number | null;
  };
  readonly memory: {
    readonly pages: number;
    readonly free_pages_at_end: number;
    readonly wasted_pages: number;
    readonly lost_pages: number;
    /** Free pages of which the next allocation expects another content than they have. */
    readonly broken_free_pages: number;
    /** In use, and nobody has written them since they were allocated without content. */
    readonly undefined_pages: number;
  };
  readonly lost: readonly LostPage[];
  /** query-migrate's error-desc: why it failed, one line; null: it has not. */
  readonly error_desc: string | null;
  /** What a clairvoyant would have sent of this guest; null: it has not arrived anywhere. */
  readonly limit_bytes: number | null;
  readonly lock: {
    readonly max_hold_ns: number;
    readonly mean_hold_ns: number;
    readonly max_nodes: number;
  };
  readonly guest: {
    readonly held_pages_max: number;
    readonly alloc_stalls: number;
    readonly alloc_failures: number;
    readonly hinting_cpu_ns: number;
  };
}

/** Firecracker's balloon hinting status. */
export interface HintingStatus {
  /** STOP, DONE, or the id of the round that the host asked for last. */
  readonly host_cmd: number;
  /** The id that the guest sent last; null: none since the device was reset. */
  readonly guest_cmd: number | null;
}

/** What ends a run before its time. */
export type RunEnd =
  /** No migration is under way. */
  | { readonly kind: 'migration' }
  /** This pass of the migration has begun, or there is no migration under way. */
  | { readonly kind: 'pass'; readonly pass: number }
  /** The migration has stopped the vCPUs, or there is none under way. */
  | { readonly kind: 'switchover' }
  /** The balloon has the size that was asked for. */
  | { readonly kind: 'balloon' }
  /** The round of hinting that was asked for is over, as the guest says. */
  | { readonly kind: 'hint' };

export interface HostStatus {
  readonly now_ns: number;
  /** False: it is at another host, and what is said of it is what was seen last. */
  readonly has_guest: boolean;
  readonly migration: MigrationStatus | 'none';
  readonly ram_pages: number;
  /** Balloon: what the host asks for and what the driver says it gave, in pages. */
  readonly num_pages: number;
  readonly actual_pages: number;
  readonly protocol_violations: number;
  /** Named counters of guest (`guest.*`) and device (`device.*`). */
  readonly counters: Readonly<Record<string, number>>;
}

/** An empty list: every line that is over succeeded. */
export interface ConsoleOutput {
  readonly pending: number;
  readonly lines: readonly string[];
}

/** Commands of the laboratory to the host process; each is answered once. */
export interface HostCommands {
  /** Listen; resolves with the bound address (port 0 is filled in). */
  listen: { params: HostConfig; result: Address };
  /** Wait for the guest's hello. */
  accept: { params: null; result: { ramPages: number; vcpus: number } };
  /**
   * Be the destination of a migration: listen for its source at `stream`, and for the guest at
   * `config.listen`; `stream` null: for both in a new temporary folder, which goes when they have
   * come. Resolves with the bound addresses.
   */
  incoming: {
    params: {
      readonly config: HostConfig;
      readonly stream: Address | null;
    };
    result: { readonly stream: Address; readonly guest: Address };
  };
  /** Wait until the guest has arrived; it runs on from then. */
  arrive: { params: null; result: ArrivalReport };
  /** Let virtual time pass to this instant. */
  runUntil: { params: { at_ns: number; end?: RunEnd | null }; result: HostStatus };
  /** Type a line on the guest's console. */
  console: { params: { line: string }; result: null };
  /** What the console printed since the last time, and how many lines are still at work. */
  readConsole: { params: null; result: ConsoleOutput };
  /** Balloon target: pages the balloon should hold. */
  balloon: { params: { target_pages: number }; result: null };
  /** QOM guest-stats-polling-interval, virtual time; 0 turns polling off. */
  statsPollingInterval: { params: { seconds: number }; result: null };
  /** QOM guest-stats. */
  guestStats: { params: null; result: GuestStatsReport };
  /** Hinting without a migration, as Firecracker's API has it: a round under a new id. */
  hintStart: { params: { acknowledge_on_stop: boolean }; result: null };
  /** The round is over, and the guest may take back what it hinted. */
  hintStop: { params: null; result: null };
  hintStatus: { params: null; result: HintingStatus };
  /**
   * `to`: the destination's stream address; null: the guest stays and gets the memory that a
   * destination would hold. It gets on with `runUntil`, which ends when the guest has moved.
   */
  beginMigration: {
    params: { readonly migrate: MigrateParams; readonly to: Address | null };
    result: null;
  };
  /** To its end, if it is not over. Without what the destination finds, if there is one. */
  finishMigration: { params: null; result: MigrationReport };
  /** What a source that its guest has left knows of these pages, oldest first. */
  ledgerHistories: { params: { readonly pfns: readonly number[] }; result: readonly string[][] };
  /** The end of a source that its guest has left. */
  retire: {
    params: null;
    /** The digest is that of its event log alone. */
    result: { readonly peak_rss_bytes: number; readonly event_log_sha256: string };
  };
  /** To nowhere, and not evaluated: for whoever reads the stream. */
  startMigration: { params: MigrateParams; result: null };
  /** migrate-set-parameters, of the one in the background. */
  setMigrationLimits: {
    params: Pick<MigrateParams, 'bandwidthBytesPerS' | 'downtimeLimitMs'>;
    result: null;
  };
  cancelMigration: { params: null; result: null };
  /** migrate-continue, of one that pauses before the switchover. */
  continueMigration: { params: null; result: null };
  /** The link to the destination carries nothing for so long, or for ever (null): it is cut. */
  disturbLink: { params: { readonly stall_ns: number | null }; result: null };
  queryMigration: { params: null; result: MigrateProgress };
  /** What was sent since the last call: pairs of frame and content record, u32. */
  migrationStream: { params: null; result: Uint32Array };
  /** The vCPUs and the device stand still, or go on. */
  stop: { params: null; result: null };
  cont: { params: null; result: null };
  status: { params: null; result: HostStatus };
  /** Full audit of the guest: empty when all is well. */
  verify: { params: null; result: readonly string[] };
  /** End of the run: both processes exit after it. */
  finish: {
    params: null;
    result: { event_log_sha256: string; peak_rss_bytes: { guest: number; host: number } };
  };
}

export type HostCommandName = keyof HostCommands;

export interface ControlRequest {
  readonly id: number;
  readonly command: HostCommandName;
  readonly params: unknown;
}
export type ControlReply =
  | { readonly id: number; readonly result: unknown }
  | { readonly id: number; readonly error: { readonly code: string; readonly message: string } };
/** What happens on the host, by the names that QMP gives it. */
export interface HostEventData {
  MIGRATION: { readonly status: MigrationStatus };
  /** A round began: after each dirty sync. */
  MIGRATION_PASS: { readonly pass: number };
  /** `actual`: bytes that are left to the guest. */
  BALLOON_CHANGE: { readonly actual: number };
  STOP: Record<string, never>;
  RESUME: Record<string, never>;
}
export type HostEventName = keyof HostEventData;
export interface HostEvent<N extends HostEventName = HostEventName> {
  readonly event: N;
  readonly data: HostEventData[N];
  readonly at_ns: number;
}
/** For an emitter: the listener of each name gets the event. */
export type HostEvents = { [N in HostEventName]: [event: HostEvent<N>] };

/** Unasked for: how far the run is. */
export interface ControlProgress {
  readonly progress: { readonly what: string; readonly done: number; readonly total: number };
}
