/** What a monitor may ask of the balloon device, with the refusals that a monitor's user reads. */
import type { GuestStatsReport, HintingStatus } from '../../protocol/index.ts';
import { BallastError, NS_PER_S } from '../../shared/index.ts';
import type { BalloonDevice } from './device.ts';

/** QEMU's guest-stats-polling-interval is a u32. */
const INTERVAL_MAX_S = 0xffff_ffff;

export class BalloonMonitor {
  readonly #device: BalloonDevice;

  constructor(device: BalloonDevice) {
    this.#device = device;
  }

  /**
   * guest-stats-polling-interval; 0 turns polling off.
   * @throws BallastError BAD_INPUT if the device has no statistics or does not take the interval.
   */
  setStatsPollingInterval(seconds: number): void {
    this.#mustHaveStats();
    if (!(seconds >= 0 && seconds <= INTERVAL_MAX_S)) {
      throw new BallastError(
        'BAD_INPUT',
        `polling interval: expected 0 … ${INTERVAL_MAX_S} seconds, found ${seconds}`,
      );
    }
    const device = this.#device;
    const switches = (device.stats.intervalNs === 0) !== (seconds === 0);
    if (switches && device.virtio.isLive && device.hasQuirk('stats-polling-fixed-at-boot')) {
      throw new BallastError(
        'BAD_INPUT',
        'polling interval: this device cannot turn statistics on or off while the guest runs',
      );
    }
    device.stats.setInterval(Math.round(seconds * NS_PER_S));
  }

  /** @throws BallastError BAD_INPUT if the device has no statistics. */
  guestStats(): GuestStatsReport {
    this.#mustHaveStats();
    return this.#device.stats.report();
  }

  /** @throws BallastError BAD_INPUT if hinting was not negotiated. */
  hintStart(acknowledgeOnStop: boolean): void {
    this.#mustHint();
    this.#device.hintStart(acknowledgeOnStop);
  }

  /** Firecracker's: the round is over, and the guest may take back what it hinted. */
  hintStop(): void {
    this.#mustHint();
    this.#device.hintDone();
  }

  hintStatus(): HintingStatus {
    this.#mustHint();
    return this.#device.hintCommands;
  }

  #mustHaveStats(): void {
    if (this.#device.hasStats) return;
    throw new BallastError('BAD_INPUT', 'statistics: the device does not offer STATS_VQ');
  }

  #mustHint(): void {
    if (this.#device.canHint) return;
    throw new BallastError('BAD_INPUT', 'hinting: FREE_PAGE_HINT was not negotiated');
  }
}
