/**
 * Free page hinting, device side: QEMU's state machine and command ids
 * (hw/virtio/virtio-balloon.c), virtio 1.4 §5.5.6.5. A hint counts only while the round of its
 * command id is open; every other one is acknowledged and ignored.
 */
import { HintCommand } from '../../protocol/index.ts';
import { type Gpa, type Nanoseconds, PAGE_SIZE_BYTES } from '../../shared/index.ts';
import { type BalloonMetrics, countViolation } from './metrics.ts';

/** QEMU's FREE_PAGE_HINT_S_*. */
export const HintStatus = { STOP: 0, REQUESTED: 1, START: 2, DONE: 3 } as const;
export type HintStatus = (typeof HintStatus)[keyof typeof HintStatus];

/** The id before the first round; ids count up from here and come back here after 2^32−1. */
export const FREE_PAGE_HINT_CMD_ID_MIN = 0x8000_0000;
const CMD_ID_MAX = 0xffff_ffff;

export interface HintingOptions {
  /**
   * What `free_page_hint_cmd_id` reads while a round is open. QEMU leaves the field 0, which is
   * STOP: any config interrupt in a round ends it early.
   */
  readonly startReadsAs: 'stop' | 'id';
  /** Plant: take hints whatever the state and the id, to prove that the checks can fail. */
  readonly acceptLateHints: boolean;
  readonly ramPages: number;
  /** The id used last, by the source of an incoming migration; the minimum by default. */
  readonly lastCmdId?: number;
}

/** Receives each accepted block. */
export type HintSink = (gpa: Gpa, sizeBytes: number, cmdId: number, chainAtNs: Nanoseconds) => void;

export class HintStateMachine {
  readonly #options: HintingOptions;
  readonly #metrics: BalloonMetrics;
  readonly #onHint: HintSink;
  #status: HintStatus = HintStatus.STOP;
  #cmdId: number;
  /** The id that the driver sent last: what its blocks belong to. */
  #driverId: number = HintCommand.STOP;

  constructor(options: HintingOptions, metrics: BalloonMetrics, onHint: HintSink) {
    this.#options = options;
    this.#cmdId = options.lastCmdId ?? FREE_PAGE_HINT_CMD_ID_MIN;
    this.#metrics = metrics;
    this.#onHint = onHint;
  }

  get status(): HintStatus {
    return this.#status;
  }

  /** The id published last. */
  get cmdId(): number {
    return this.#cmdId;
  }

  /** What the driver reads in `free_page_hint_cmd_id`. */
  get configValue(): number {
    const { status } = this;
    if (status === HintStatus.STOP) return HintCommand.STOP;
    if (status === HintStatus.DONE) return HintCommand.DONE;
    const hidden = status === HintStatus.START && this.#options.startReadsAs === 'stop';
    return hidden ? HintCommand.STOP : this.#cmdId;
  }

  /** Ask for a round under a new id. The caller notifies the driver. */
  start(): void {
    this.#cmdId = this.#cmdId === CMD_ID_MAX ? FREE_PAGE_HINT_CMD_ID_MIN : this.#cmdId + 1;
    this.#status = HintStatus.REQUESTED;
    this.#metrics.hint_rounds++;
  }

  /** Hints are useless from now on. True: the driver must be notified. */
  stop(): boolean {
    return this.#enter(HintStatus.STOP);
  }

  /** The driver may have its pages back. True: the driver must be notified. */
  done(): boolean {
    return this.#enter(HintStatus.DONE);
  }

  /** A device reset stops the round and keeps counting the ids, as QEMU does. */
  reset(): void {
    this.#status = HintStatus.STOP;
    this.#driverId = HintCommand.STOP;
  }

  /** A command id from the driver. */
  command(id: number): void {
    this.#metrics.hint_commands++;
    this.#driverId = id;
    if (this.#status === HintStatus.START) {
      // Whatever it says, the round is over; QEMU does not notify the driver of that.
      this.#status = HintStatus.STOP;
    } else if (this.#status === HintStatus.REQUESTED && id === this.#cmdId) {
      this.#status = HintStatus.START;
    } else if (id !== HintCommand.STOP) {
      // STOP answers a round that the device has ended itself: the driver always sends it.
      this.#metrics.hint_stale_ids++;
    }
  }

  /** One writable segment. */
  block(gpa: Gpa, sizeBytes: number, chainAtNs: Nanoseconds): void {
    const ramBytes = this.#options.ramPages * PAGE_SIZE_BYTES;
    if (gpa + sizeBytes > ramBytes || gpa % PAGE_SIZE_BYTES !== 0 || sizeBytes % PAGE_SIZE_BYTES) {
      countViolation(this.#metrics, 'bad_hints');
      return;
    }
    const pageCount = sizeBytes / PAGE_SIZE_BYTES;
    const inRound = this.#status === HintStatus.START;
    if (!inRound) {
      this.#metrics.hints_late++;
      this.#metrics.hint_pages_late += pageCount;
      if (!this.#options.acceptLateHints) return;
    }
    this.#metrics.hints_accepted++;
    this.#metrics.hint_pages_accepted += pageCount;
    this.#onHint(gpa, sizeBytes, inRound ? this.#cmdId : this.#driverId, chainAtNs);
  }

  #enter(status: HintStatus): boolean {
    if (this.#status === status) return false;
    this.#status = status;
    return true;
  }
}
