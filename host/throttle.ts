/**
 * vCPUs that sleep for a part of their time (qemu softmmu/cpu-throttle.c): each runs for a timeslice and
 * sleeps for what the percentage leaves of the period.
 */
import type { Message } from '../protocol/index.ts';
import { type Nanoseconds, NS_PER_MS } from '../shared/index.ts';

/** CPU_THROTTLE_TIMESLICE_NS. */
const TIMESLICE_NS = 10 * NS_PER_MS;

export interface ThrottledMachine {
  now(): Nanoseconds;
  post(message: Message): void;
  after(delayNs: Nanoseconds, action: () => void): void;
}

export class Throttle {
  /** What one vCPU has slept for so far. */
  stolenNs = 0;
  readonly #machine: ThrottledMachine;
  #percentage = 0;
  /** Whether the next period is on its way. */
  #isTicking = false;

  constructor(machine: ThrottledMachine) {
    this.#machine = machine;
  }

  /** 0 … 99. */
  set(percentage: number): void {
    this.#percentage = percentage;
    if (percentage > 0 && !this.#isTicking) this.#tick();
  }

  #tick(): void {
    this.#isTicking = this.#percentage > 0;
    if (!this.#isTicking) return;
    const share = this.#percentage / 100;
    const periodNs = Math.round(TIMESLICE_NS / (1 - share));
    const sleepNs = periodNs - TIMESLICE_NS;
    this.stolenNs += sleepNs;
    this.#machine.post({ name: 'steal', until_ns: this.#machine.now() + sleepNs });
    this.#machine.after(periodNs, () => this.#tick());
  }
}
