import type { Nanoseconds } from '../../shared/index.ts';
import type { Workload } from '../sched/scheduler.ts';

/** Several workloads as one, in time order; at one instant the first of the list goes first. */
export class MergedWorkload implements Workload {
  readonly #parts: readonly Workload[];

  constructor(parts: readonly Workload[]) {
    this.#parts = parts;
  }

  nextAt(freeAt: Nanoseconds): Nanoseconds {
    let next = Number.POSITIVE_INFINITY;
    for (const part of this.#parts) next = Math.min(next, part.nextAt(freeAt));
    return next;
  }

  advance(freeAt: Nanoseconds, until: Nanoseconds): Nanoseconds {
    let earliest = this.#parts[0]!;
    let earliestAt = Number.POSITIVE_INFINITY;
    let runnerUpAt = Number.POSITIVE_INFINITY;
    for (const part of this.#parts) {
      const at = part.nextAt(freeAt);
      if (at < earliestAt) {
        runnerUpAt = earliestAt;
        earliestAt = at;
        earliest = part;
      } else {
        runnerUpAt = Math.min(runnerUpAt, at);
      }
    }
    return earliest.advance(freeAt, Math.min(until, runnerUpAt));
  }
}
