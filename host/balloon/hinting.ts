/**
 * Free page hinting, device side: QEMU's state machine and command ids
 * (hw/virtio/virtio-balloon.c), virtio 1.4 §5.5.6.5. A hint counts only while the round of its
 * command id is open; every other one is acknowledged and ignored.
 */
import { type DeviceQuirk, HintCommand } from '../../protocol/index.ts';
import type { Nanoseconds, Pfn } from '../../shared/index.ts';
import type { State, StateFields } from '../state/fields.ts';
import type { BalloonMetrics } from './metrics.ts';

/** QEMU's FREE_PAGE_HINT_S_*. */
export const HintStatus = { STOP: 0, REQUESTED: 1, START: 2, DONE: 3 } as const;
export type HintStatus = (typeof HintStatus)[keyof typeof HintStatus];

/** QEMU's id before the first round; ids count up from here and come back here after 2^32−1. */
export const FREE_PAGE_HINT_CMD_ID_MIN = 0x8000_0000;
const CMD_ID_MAX = 0xffff_ffff;
/** 0 and 1 are STOP and DONE. */
const FIRST_FREE_ID = 2;
/** No driver sent this: what cannot be read is compared as it. */
const UNREADABLE_ID = -1;

/**
 * How ids follow one another: QEMU's count from 2^31+1, Firecracker's from 2, and v86 asks for every
 * round under the same one.
 */
export type HintIds = 'qemu' | 'firecracker' | 'constant';

export interface HintingOptions {
  /** Plant: take hints whatever the state and the id, to prove that the checks can fail. */
  readonly acceptLateHints: boolean;
  /** The id used last, by the source of an incoming migration; by default there was none. */
  readonly lastCmdId?: number;
  readonly hintIds: HintIds;
  readonly quirks: ReadonlySet<DeviceQuirk>;
}

/** Under which id a block came, and when its chain was queued. */
export interface HintOrigin {
  readonly cmdId: number;
  readonly queuedAtNs: Nanoseconds;
}

/** Receives each accepted block; `origin` is the same object every time, valid until it returns. */
export type HintSink = (firstPfn: Pfn, pageCount: number, origin: HintOrigin) => void;

export class HintStateMachine {
  readonly #options: HintingOptions;
  readonly #metrics: BalloonMetrics;
  readonly #onHint: HintSink;
  readonly #startReadsAsStop: boolean;
  readonly #comparesIds: boolean;
  readonly #doneAtGuestStop: boolean;
  readonly #takesInAnyState: boolean;
  readonly #origin = { cmdId: 0, queuedAtNs: 0 };
  #status: HintStatus = HintStatus.STOP;
  #cmdId: number;
  /** The id that the driver sent last: what its blocks belong to. */
  #driverId: number | null = null;
  /** The last round in which the driver has said something after its id. */
  #answeredId: number | null = null;
  /** Of this round: the guest's STOP is answered by DONE. */
  #acknowledgesStop = false;

  constructor(options: HintingOptions, metrics: BalloonMetrics, onHint: HintSink) {
    this.#options = options;
    this.#cmdId = options.lastCmdId ?? idBefore(options);
    this.#metrics = metrics;
    this.#onHint = onHint;
    const { quirks } = options;
    this.#startReadsAsStop = quirks.has('start-reads-as-stop');
    this.#comparesIds = quirks.has('hint-ids-compared');
    this.#doneAtGuestStop = quirks.has('done-at-guest-stop');
    this.#takesInAnyState = quirks.has('hints-in-any-state');
  }

  get status(): HintStatus {
    return this.#status;
  }

  /** The id published last. */
  get cmdId(): number {
    return this.#cmdId;
  }

  /** The command that the host stands by: STOP, DONE, or the id of the round. */
  get hostCommand(): number {
    if (this.#status === HintStatus.STOP) return HintCommand.STOP;
    return this.#status === HintStatus.DONE ? HintCommand.DONE : this.#cmdId;
  }

  /** The id that the driver sent last; null: none since the reset. */
  get driverId(): number | null {
    return this.#driverId;
  }

  /** Whether the round that was asked for last is still to be answered, as far as the driver says. */
  get awaitsDriver(): boolean {
    return this.hostCommand === this.#cmdId && this.#answeredId !== this.#cmdId;
  }

  /**
   * What the driver reads in `free_page_hint_cmd_id`. QEMU leaves the field 0 while a round is open,
   * which is STOP: any config interrupt in a round ends it early.
   */
  get configValue(): number {
    const isHidden = this.#status === HintStatus.START && this.#startReadsAsStop;
    return isHidden ? HintCommand.STOP : this.hostCommand;
  }

  /**
   * Ask for a round under a new id; `acknowledgeOnStop`: the driver's own STOP ends it with DONE.
   * The caller notifies the driver.
   */
  start(acknowledgeOnStop = false): void {
    this.#cmdId = nextCmdId(this.#options.hintIds, this.#cmdId);
    this.#status = HintStatus.REQUESTED;
    this.#acknowledgesStop = acknowledgeOnStop;
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
    this.#driverId = null;
    if (this.#options.quirks.has('state-zeroed-by-reset')) this.#cmdId = idBefore(this.#options);
  }

  /** A command id from the driver. True: the driver must be notified of a change. */
  command(id: number): boolean {
    this.#metrics.hint_commands++;
    if (this.#driverId === this.#cmdId) this.#answeredId = this.#cmdId;
    this.#driverId = id;
    const isOpen = this.#status === HintStatus.REQUESTED || this.#status === HintStatus.START;
    const isAnswered = this.#doneAtGuestStop ? id === HintCommand.STOP : this.#acknowledgesStop;
    if (isAnswered && isOpen && endsRound(id)) {
      this.#status = HintStatus.DONE;
      return true;
    }
    if (isOpen && this.#comparesIds) {
      this.#status = id === this.#cmdId ? HintStatus.START : HintStatus.REQUESTED;
    } else if (this.#status === HintStatus.START) {
      // Whatever it says, the round is over; QEMU does not notify the driver of that.
      this.#status = HintStatus.STOP;
    } else if (this.#status === HintStatus.REQUESTED && id === this.#cmdId) {
      this.#status = HintStatus.START;
    } else if (id !== HintCommand.STOP) {
      // STOP answers a round that the device has ended itself: the driver always sends it.
      this.#metrics.hint_stale_ids++;
    }
    return this.#doneAtGuestStop && id === HintCommand.STOP;
  }

  /** A command in a buffer that the device cannot read: it names no round. */
  unreadableCommand(): boolean {
    return this.command(UNREADABLE_ID);
  }

  /** The blocks that follow were queued at that time. */
  beginChain(atNs: Nanoseconds): void {
    this.#origin.queuedAtNs = atNs;
  }

  /** Whole pages of guest memory that the driver hinted. */
  hint(firstPfn: Pfn, pageCount: number): void {
    const inRound = this.#status === HintStatus.START || this.#takesInAnyState;
    if (!inRound) {
      this.#metrics.hints_late++;
      this.#metrics.hint_pages_late += pageCount;
      if (!this.#options.acceptLateHints) return;
    }
    this.#metrics.hints_accepted++;
    this.#metrics.hint_pages_accepted += pageCount;
    this.#origin.cmdId = inRound ? this.#cmdId : (this.#driverId ?? HintCommand.STOP);
    this.#onHint(firstPfn, pageCount, this.#origin);
  }

  saveState(): State {
    return {
      status: this.#status,
      cmd_id: this.#cmdId,
      driver_id: this.#driverId,
      acknowledges_stop: this.#acknowledgesStop,
    };
  }

  loadState(fields: StateFields): void {
    this.#status = fields.int('status', HintStatus.DONE) as HintStatus;
    this.#cmdId = fields.int('cmd_id', CMD_ID_MAX);
    this.#driverId = fields.intOrNull('driver_id', CMD_ID_MAX);
    this.#acknowledgesStop = fields.bool('acknowledges_stop');
  }

  #enter(status: HintStatus): boolean {
    if (this.#status === status) return false;
    this.#status = status;
    return true;
  }
}

function endsRound(id: number): boolean {
  return id === HintCommand.STOP || id === HintCommand.DONE;
}

/** What the first id follows on. */
function idBefore({ hintIds }: HintingOptions): number {
  return hintIds === 'qemu' ? FREE_PAGE_HINT_CMD_ID_MIN : 0;
}

function nextCmdId(ids: HintIds, last: number): number {
  if (ids === 'constant') return FIRST_FREE_ID;
  if (last === CMD_ID_MAX) return ids === 'qemu' ? FREE_PAGE_HINT_CMD_ID_MIN : FIRST_FREE_ID;
  return Math.max(last + 1, FIRST_FREE_ID);
}
