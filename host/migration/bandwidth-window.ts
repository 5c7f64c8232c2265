/**
 * Bandwidth is limited and measured in windows (qemu migration_rate_limit, migration_update_counters):
 * what the last one has carried decides how much may be left at the switchover.
 */
import type { MigrateParams } from '../../protocol/index.ts';
import { type Nanoseconds, NS_PER_MS, NS_PER_S } from '../../shared/index.ts';

/** BUFFER_DELAY. */
const WINDOW_NS = 100 * NS_PER_MS;

export class BandwidthWindow {
  /** So much fits into the downtime limit, as the last window says; 0: none is over yet. */
  thresholdBytes = 0;
  #startNs: Nanoseconds = 0;
  #bytes = 0;

  get endNs(): Nanoseconds {
    return this.#startNs + WINDOW_NS;
  }

  begin(nowNs: Nanoseconds): void {
    this.#startNs = nowNs;
  }

  count(bytes: number): void {
    this.#bytes += bytes;
  }

  /** Negative: more was sent than the window may carry. */
  leftBytes({ bandwidthBytesPerS }: Pick<MigrateParams, 'bandwidthBytesPerS'>): number {
    return (bandwidthBytesPerS * WINDOW_NS) / NS_PER_S - this.#bytes;
  }

  /** The next one begins. */
  end(nowNs: Nanoseconds, { downtimeLimitMs }: Pick<MigrateParams, 'downtimeLimitMs'>): void {
    const bytesPerNs = this.#bytes / (nowNs - this.#startNs);
    this.thresholdBytes = bytesPerNs * downtimeLimitMs * NS_PER_MS;
    this.#startNs = nowNs;
    this.#bytes = 0;
  }
}
