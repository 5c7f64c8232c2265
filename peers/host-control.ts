/**
 * What a test bench does to a host, whoever it is: the other end of what a guest sees. One
 * implementation speaks QMP to QEMU, one commands our own host process.
 */

/** By the names of QMP's guest-stats (qom-get); null: the guest never reported it. */
export type GuestStats = Readonly<Record<string, number | null>>;

export interface GuestStatsReport {
  readonly stats: GuestStats;
  /** 0: never. Seconds of the host's clock. */
  readonly lastUpdateS: number;
}

export interface MigrationProgress {
  readonly status: string;
  readonly normalPages: number;
  readonly duplicatePages: number;
  readonly transferredBytes: number;
  readonly remainingBytes: number;
}

export interface MigrationLimits {
  readonly bandwidthBytesPerS: number;
  readonly downtimeLimitMs: number;
}

/** A page that arrived: all its bytes. Null: it was sent as a zero page. */
export type OnPage = (pfn: number, bytes: Uint8Array | null) => void;

export interface HostControl {
  readonly name: string;
  /** QMP `balloon`, in pages that the balloon should hold. */
  setTarget(pages: number): Promise<void>;
  /** `actual` as the driver reported it, in pages that the balloon holds. */
  actualPages(): Promise<number>;
  /** 0 turns polling off. */
  setStatsPollingInterval(seconds: number): Promise<void>;
  guestStats(): Promise<GuestStatsReport>;
  /** Returns as soon as the migration runs; `onPage` sees its stream. */
  migrate(limits: MigrationLimits, onPage?: OnPage): Promise<void>;
  setMigrationLimits(limits: MigrationLimits): Promise<void>;
  cancelMigration(): Promise<void>;
  queryMigration(): Promise<MigrationProgress>;
  stop(): Promise<void>;
  cont(): Promise<void>;
}
