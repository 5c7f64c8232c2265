import type { MmOptions } from '../../protocol/control.ts';
import type { HypervisorName } from '../../protocol/dirty-log.ts';

/** What the laboratory itself needs to know of a recording; the guest reads the rest. */
export interface RecordingFacts {
  readonly name: string;
  /** Compact file, absolute. */
  readonly path: string;
  /** Of the compact file, hexadecimal. */
  readonly sha256: string;
  readonly memoryBytes: number;
  /** Page frame numbers; more than the memory has pages if there is a hole below 4 GiB. */
  readonly ramPages: number;
  readonly vcpus: number;
  /** As the recorded kernel was booted. */
  readonly mm: MmOptions;
  readonly bandwidthBytesPerS: number;
  readonly downtimeLimitMs: number;
  /** Since the first event of the trace. */
  readonly migrateAtNs: number;
  /** End of what was recorded, on the same clock. */
  readonly traceEndNs: number;
  /** Whose dirty log it was measured with; null: no profile is known. */
  readonly hypervisor: HypervisorName | null;
  readonly measured: readonly MeasuredRun[];
}

/** One migration of the real guest, as query-migrate counted it; what it lacks is left out. */
export interface MeasuredRun {
  readonly freePageHint: boolean;
  readonly figures: Readonly<Record<string, unknown>>;
}
