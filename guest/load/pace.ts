import { type Nanoseconds, NS_PER_S } from '../../shared/index.ts';
import type { Kernel } from '../kernel/kernel.ts';
import type { Kthread } from '../sched/kthread.ts';

/**
 * So many units a second. Who is held up works through what is due at once, but not more than a
 * moment's worth: a program that was stopped does not make up for it.
 */
export class Pace {
  readonly #kernel: Pick<Kernel, 'now'>;
  readonly #unitNs: Nanoseconds;
  #dueNs: Nanoseconds;

  constructor(kernel: Pick<Kernel, 'now'>, unitsPerS: number) {
    this.#kernel = kernel;
    this.#unitNs = NS_PER_S / unitsPerS;
    this.#dueNs = kernel.now;
  }

  /** Sleeps until so many more units are due. */
  *wait(units: number): Kthread {
    this.#dueNs = Math.max(this.#dueNs + units * this.#unitNs, this.#kernel.now - MADE_UP_NS);
    const leftNs = this.#dueNs - this.#kernel.now;
    if (leftNs > 0) yield { kind: 'sleep', ns: leftNs };
  }
}

const MADE_UP_NS = 10_000_000;
