/**
 * Memory statistics, device side (virtio 1.4 §5.5.6.4): the device keeps the one buffer of the queue
 * and asks for figures by using it. Like QEMU it asks one interval after the last answer, so a guest
 * that stops answering is asked no more; unlike QEMU it says then that the figures are stale.
 */
import { BalloonStat, type DeviceQuirk, type GuestStatsReport } from '../../protocol/index.ts';
import type { Nanoseconds } from '../../shared/index.ts';
import type { State, StateFields } from '../state/fields.ts';
import { type BalloonMetrics, countViolation } from './metrics.ts';

/** What the queue asks of the device around it. */
export interface StatsQueueHooks {
  now(): Nanoseconds;
  after(delayNs: Nanoseconds, action: () => void): void;
  /** Use the buffer and interrupt the driver. */
  use(head: number): void;
  /** The driver is ready and has accepted STATS_VQ. */
  isServed(): boolean;
}

const NOTHING_HELD = -1;
const NO_TIMER = Number.POSITIVE_INFINITY;
const TIME_MAX = Number.MAX_SAFE_INTEGER;
/** Firecracker's MAX_STATS_DESC_LEN: 256 entries. */
const STATS_MAX = 256;
/** A value of 2^64−1 says that there is none, as in QEMU's guest-stats. */
const UNREPORTED_WORD = 0xffff_ffff;
const UNKNOWN_STAT = 'undefined';

export class StatsQueue {
  readonly #names: ReadonlyMap<number, string>;
  readonly #quirks: ReadonlySet<DeviceQuirk>;
  readonly #metrics: BalloonMetrics;
  readonly #hooks: StatsQueueHooks;
  readonly #values = new Map<string, number | null>();
  #held = NOTHING_HELD;
  #intervalNs: Nanoseconds = 0;
  /** Timers of an earlier interval or life find another number here. */
  #timer = 0;
  /** When the timer that counts goes off, and when the question is due. */
  #timerAtNs: Nanoseconds = NO_TIMER;
  #dueAtNs: Nanoseconds = 0;
  #lastUpdateNs: Nanoseconds | null = null;
  /** When the question was put that has not been answered yet. */
  #askedAtNs: Nanoseconds | null = null;
  /** This driver, since its last reset, has answered. */
  #answered = false;

  constructor(
    names: ReadonlyMap<number, string>,
    quirks: ReadonlySet<DeviceQuirk>,
    metrics: BalloonMetrics,
    hooks: StatsQueueHooks,
  ) {
    this.#names = names;
    this.#quirks = quirks;
    this.#metrics = metrics;
    this.#hooks = hooks;
    for (const name of names.values()) this.#values.set(name, null);
  }

  get intervalNs(): Nanoseconds {
    return this.#intervalNs;
  }

  /** 0 turns polling off; otherwise the first question goes out at once, if a buffer is there. */
  setInterval(ns: Nanoseconds): void {
    if (ns === this.#intervalNs) return;
    const wasOff = this.#intervalNs === 0;
    this.#intervalNs = ns;
    this.#timer++;
    this.#timerAtNs = NO_TIMER;
    if (ns === 0) return;
    this.#arm(wasOff ? 0 : ns);
  }

  /** A buffer from the driver. Returns the one that goes back for it, or −1. */
  receive(head: number, buffer: DataView, start: number, lengthBytes: number): number {
    const returned = this.#held;
    if (returned !== NOTHING_HELD) countViolation(this.#metrics, 'second_stats_buffers');
    this.#held = head;
    this.#metrics.stats_reports++;
    const isTooLong = lengthBytes > STATS_MAX * BalloonStat.sizeBytes;
    if (isTooLong && this.#quirks.has('stats-over-256-ignored')) {
      countViolation(this.#metrics, 'bad_lengths');
    } else {
      this.#read(buffer, start, lengthBytes);
    }
    this.#lastUpdateNs = this.#hooks.now();
    this.#askedAtNs = null;
    this.#answered = true;
    if (this.#intervalNs > 0) this.#arm(this.#intervalNs);
    return returned;
  }

  report(): GuestStatsReport {
    return {
      stats: Object.fromEntries(this.#values),
      last_update_ns: this.#lastUpdateNs,
      stale: this.#isStale(),
    };
  }

  /** The driver, or the queue, starts over: nothing is held. What was reported stays, as QEMU's. */
  reset(): void {
    this.#held = NOTHING_HELD;
    this.#askedAtNs = null;
    this.#answered = false;
  }

  forgetReports(): void {
    for (const name of this.#values.keys()) this.#values.set(name, null);
    this.#lastUpdateNs = null;
  }

  saveState(): State {
    return {
      values: Object.fromEntries(this.#values),
      held: this.#held,
      interval_ns: this.#intervalNs,
      timer_at_ns: this.#timerAtNs === NO_TIMER ? null : this.#timerAtNs,
      due_at_ns: this.#dueAtNs,
      last_update_ns: this.#lastUpdateNs,
      asked_at_ns: this.#askedAtNs,
      answered: this.#answered,
    };
  }

  loadState(fields: StateFields): void {
    const values = fields.object('values');
    for (const name of this.#values.keys()) {
      this.#values.set(name, values.numberOrNull(name));
    }
    this.#held = fields.int('held', 0xffff, NOTHING_HELD);
    this.#intervalNs = fields.int('interval_ns', TIME_MAX);
    this.#dueAtNs = fields.int('due_at_ns', TIME_MAX);
    this.#lastUpdateNs = fields.intOrNull('last_update_ns', TIME_MAX);
    this.#askedAtNs = fields.intOrNull('asked_at_ns', TIME_MAX);
    this.#answered = fields.bool('answered');
    const timerAtNs = fields.intOrNull('timer_at_ns', TIME_MAX);
    if (timerAtNs !== null) this.#schedule(Math.max(0, timerAtNs - this.#hooks.now()));
  }

  #isStale(): boolean {
    if (!this.#answered) return true;
    if (this.#askedAtNs === null) return false;
    return this.#hooks.now() - this.#askedAtNs > this.#intervalNs;
  }

  #read(buffer: DataView, start: number, lengthBytes: number): void {
    const stray = lengthBytes % BalloonStat.sizeBytes;
    if (stray !== 0 || lengthBytes === 0) countViolation(this.#metrics, 'bad_lengths');
    if (!this.#quirks.has('unreported-stats-kept')) {
      for (const name of this.#names.values()) this.#values.set(name, null);
    }
    const { tag: tagOffset, val: valueOffset } = BalloonStat.offsets;
    for (let at = start; at < start + lengthBytes - stray; at += BalloonStat.sizeBytes) {
      const name = this.#nameOf(buffer.getUint16(at + tagOffset, true));
      if (name === null) continue;
      const low = buffer.getUint32(at + valueOffset, true);
      const high = buffer.getUint32(at + valueOffset + 4, true);
      const isUnreported = low === UNREPORTED_WORD && high === UNREPORTED_WORD;
      this.#values.set(name, isUnreported ? null : high * 0x1_0000_0000 + low);
    }
  }

  #nameOf(tag: number): string | null {
    const name = this.#names.get(tag);
    if (name !== undefined) return name;
    this.#metrics.stats_unknown_tags++;
    return this.#quirks.has('unknown-stats-as-undefined') ? UNKNOWN_STAT : null;
  }

  /** Ask so much later, and not before: a driver that answers unasked puts the question off. */
  #arm(delayNs: Nanoseconds): void {
    this.#dueAtNs = this.#hooks.now() + delayNs;
    // One timer, however many answers come: it looks again when it is early.
    if (this.#timerAtNs <= this.#dueAtNs) return;
    this.#schedule(delayNs);
  }

  #schedule(delayNs: Nanoseconds): void {
    const timer = ++this.#timer;
    this.#timerAtNs = this.#hooks.now() + delayNs;
    this.#hooks.after(delayNs, () => {
      if (timer !== this.#timer) return;
      this.#timerAtNs = NO_TIMER;
      const earlyNs = this.#dueAtNs - this.#hooks.now();
      if (earlyNs > 0) this.#schedule(earlyNs);
      else this.#poll();
    });
  }

  #poll(): void {
    if (this.#held === NOTHING_HELD || !this.#hooks.isServed()) {
      this.#arm(this.#intervalNs);
      return;
    }
    const head = this.#held;
    this.#held = NOTHING_HELD;
    this.#askedAtNs = this.#hooks.now();
    this.#metrics.stats_requests++;
    this.#hooks.use(head);
  }
}
