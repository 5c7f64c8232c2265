/** A hinting round as a test plays it: it writes down what a strategy hints, and ends when told. */
import { HintOutcome, type HintRound } from '../../../../guest/balloon/hinting.ts';
import type { Kernel } from '../../../../guest/kernel/kernel.ts';
import type { Kthread } from '../../../../guest/sched/kthread.ts';
import type { Nanoseconds } from '../../../../shared/index.ts';

interface Hinted {
  readonly pfn: number;
  readonly pageCount: number;
  readonly recordedAtNs: Nanoseconds;
}

export class PlayedRound implements HintRound {
  recorded(): void {}

  readonly cmdId = 0x8000_0001;
  readonly kernel: Kernel;
  readonly hinted: Hinted[] = [];
  /** The host has published another id. */
  ended = false;
  /** Ends by itself after so many blocks. */
  limitBlocks = Number.POSITIVE_INFINITY;
  /** What becomes of the next single hints; then QUEUED. */
  outcomes: HintOutcome[] = [];

  constructor(kernel: Kernel) {
    this.kernel = kernel;
  }

  /** HINT_WAIT_ON_ACK; then `onAck` runs before each `used` returns. */
  waitsOnAck = false;
  onAck: () => void = () => {};

  *used(): Kthread {
    yield* atOnce();
    this.onAck();
  }

  freeEntries(): number {
    return 1023;
  }

  *active(): Kthread<boolean> {
    yield* atOnce();
    return !this.ended;
  }

  *waitForSpace(): Kthread<boolean> {
    yield* atOnce();
    return !this.ended;
  }

  *hint(pfn: number, pageCount: number, recordedAtNs: Nanoseconds): Kthread<HintOutcome> {
    yield* atOnce();
    const outcome = this.outcomes.shift() ?? HintOutcome.QUEUED;
    if (outcome === HintOutcome.QUEUED) this.#add(pfn, pageCount, recordedAtNs);
    if (outcome === HintOutcome.ENDED) this.ended = true;
    return outcome;
  }

  *hintMany(
    pfns: Uint32Array,
    orders: Uint8Array,
    count: number,
    recordedAtNs: Nanoseconds,
  ): Kthread<number> {
    yield* atOnce();
    let done = 0;
    for (; done < count && !this.ended; done++) {
      this.#add(pfns[done]!, 1 << orders[done]!, recordedAtNs);
    }
    return done;
  }

  #add(pfn: number, pageCount: number, recordedAtNs: Nanoseconds): void {
    this.hinted.push({ pfn, pageCount, recordedAtNs });
    if (this.hinted.length >= this.limitBlocks) this.ended = true;
  }

  /** How often each frame was hinted. */
  timesOf(ramPages: number): Uint8Array {
    const times = new Uint8Array(ramPages);
    for (const { pfn, pageCount } of this.hinted) {
      for (let i = pfn; i < pfn + pageCount; i++) times[i]!++;
    }
    return times;
  }
}

/** A thread that takes no time. */
function* atOnce(): Kthread {}
