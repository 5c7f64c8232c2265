/**
 * What is done about a guest that writes faster than its pages can be sent (qemu migration/ram.c
 * migration_trigger_throttle): once a period it is looked whether more than half of what was sent has
 * become dirty again, and the second time something happens.
 */
import type { MigrateParams } from '../../protocol/index.ts';
import { type Nanoseconds, NS_PER_S, PAGE_SIZE_BYTES } from '../../shared/index.ts';
import type { MigrationMachine } from './thread.ts';

/** A period is longer than so. */
const PERIOD_NS = NS_PER_S;
/** throttle-trigger-threshold. */
const TRIGGER_SHARE = 0.5;
/** Periods of too much writing until something happens. */
const HIGH_PERIODS = 2;
/** cpu-throttle-initial, cpu-throttle-increment, max-cpu-throttle. */
const THROTTLE = { initial: 20, increment: 10, max: 99 } as const;
/** The downtime limit grows by itself, as management software does it, up to so many times. */
const DOWNTIME_STEPS_MAX = 10;
/** vcpu-dirty-limit: 1 MB/s. */
const DIRTY_LIMIT_BYTES_PER_S = 1 << 20;

export class Convergence {
  /** The strongest so far, in percent. */
  throttlePercentage = 0;
  readonly #params: MigrateParams;
  readonly #machine: Pick<MigrationMachine, 'throttle' | 'post'>;
  readonly #setDowntimeLimit: (ms: number) => void;
  #periodStartNs: Nanoseconds | null = null;
  #dirtiedPages = 0;
  #transferredBefore = 0;
  #highPeriods = 0;
  #downtimeSteps = 1;
  #isActive = false;

  constructor(
    params: MigrateParams,
    machine: Pick<MigrationMachine, 'throttle' | 'post'>,
    setDowntimeLimit: (ms: number) => void,
  ) {
    this.#params = params;
    this.#machine = machine;
    this.#setDowntimeLimit = setDowntimeLimit;
  }

  /** A sync is over: it has found so many pages that were clean before. */
  synced(nowNs: Nanoseconds, addedPages: number, transferredBytes: number): void {
    this.#dirtiedPages += addedPages;
    this.#periodStartNs ??= nowNs;
    if (nowNs <= this.#periodStartNs + PERIOD_NS) return;
    const sentBytes = transferredBytes - this.#transferredBefore;
    const isHigh = this.#dirtiedPages * PAGE_SIZE_BYTES > TRIGGER_SHARE * sentBytes;
    if (isHigh && ++this.#highPeriods >= HIGH_PERIODS) {
      this.#highPeriods = 0;
      this.#act();
    }
    this.#periodStartNs = nowNs;
    this.#dirtiedPages = 0;
    this.#transferredBefore = transferredBytes;
  }

  /** The migration is over, however it ended. */
  stop(): void {
    if (!this.#isActive) return;
    this.#isActive = false;
    this.#machine.throttle(0);
    this.#limitDirtyRate(0);
  }

  #act(): void {
    const { policy, downtimeLimitMs, vcpuDirtyLimitBytesPerS } = this.#params;
    if (policy === 'auto-converge') {
      const isFirst = this.throttlePercentage === 0;
      const next = isFirst ? THROTTLE.initial : this.throttlePercentage + THROTTLE.increment;
      this.throttlePercentage = Math.min(next, THROTTLE.max);
      this.#isActive = true;
      this.#machine.throttle(this.throttlePercentage);
    } else if (policy === 'dirty-limit') {
      this.#isActive = true;
      this.#limitDirtyRate(vcpuDirtyLimitBytesPerS ?? DIRTY_LIMIT_BYTES_PER_S);
    } else if (policy === 'downtime-ramp') {
      this.#downtimeSteps = Math.min(this.#downtimeSteps + 1, DOWNTIME_STEPS_MAX);
      this.#setDowntimeLimit(this.#downtimeSteps * downtimeLimitMs);
    }
  }

  /** 0: any. */
  #limitDirtyRate(bytesPerS: number): void {
    const pagesPerS = Math.ceil(bytesPerS / PAGE_SIZE_BYTES);
    this.#machine.post({ name: 'limitDirtyRate', pages_per_s: pagesPerS });
  }
}

/**
 * A guest that dirties faster than the link carries never converges, and somebody cancels: here after
 * ten minutes, or after so many times what its memory takes on a link of that bandwidth.
 */
const GIVE_UP_NS = 600 * NS_PER_S;
const GIVE_UP_PASSES = 3;

/** `remainingBytes`: in the beginning, of all memory. */
export function giveUpAfterNs(
  remainingBytes: number,
  { bandwidthBytesPerS }: MigrateParams,
): Nanoseconds {
  const passNs = (remainingBytes * NS_PER_S) / bandwidthBytesPerS;
  return Math.max(GIVE_UP_NS, GIVE_UP_PASSES * passNs);
}
