/** What query-migrate counts of a migration, and what it is in the end. */
import type { MigrationFigures } from '../../protocol/index.ts';
import { type Nanoseconds, NS_PER_MS } from '../../shared/index.ts';
import type { HintLedger } from './hint-ledger.ts';

/** What the migration thread knows; who watches it adds what the guest has lost. */
export type PrecopyFigures = Omit<MigrationFigures, 'stolen_cpu_ms'>;

export interface MigrationTimes {
  readonly startNs: Nanoseconds;
  readonly setupNs: Nanoseconds;
  readonly downtimeNs: Nanoseconds;
  readonly endNs: Nanoseconds;
}

export class MigrationCounters {
  normal = 0;
  duplicate = 0;
  transferredBytes = 0;
  dirtySyncs = 0;

  figures(
    status: MigrationFigures['status'],
    { startNs, setupNs, downtimeNs, endNs }: MigrationTimes,
    ledger: HintLedger,
  ): Omit<PrecopyFigures, 'throttle_percentage'> {
    return {
      status,
      total_ms: Math.round((endNs - startNs) / NS_PER_MS),
      downtime_ms: Math.round(downtimeNs / NS_PER_MS),
      setup_ms: Math.round(setupNs / NS_PER_MS),
      transferred_bytes: this.transferredBytes,
      normal_pages: this.normal,
      duplicate_pages: this.duplicate,
      skipped_pages: ledger.everSkipped.count(),
      resent_pages: ledger.resentPages,
      dirty_sync_count: this.dirtySyncs,
    };
  }
}
