/**
 * Makes a violating schedule short: threads that it does without are left out, then steps, then
 * context switches. Each attempt is a schedule of its own, and counts only if it breaks the same
 * invariant; what is printed is the last one that did.
 */
import type { ExploreScenario, ExploreStep } from '../protocol/index.ts';
import type { Plants } from '../shared/index.ts';
import { Replay } from './policy.ts';
import { runSchedule } from './schedule.ts';
import { countSwitches, Trace } from './trace.ts';

export interface Reduction {
  readonly message: string;
  readonly steps: readonly ExploreStep[];
  /** Threads of the scenario, by number, that it does without. */
  readonly without: ReadonlySet<number>;
}

export interface ReduceOptions {
  readonly scenario: ExploreScenario;
  readonly plants: Plants;
  readonly seed: number;
  readonly invariant: string;
  /** Ids of the actors as the violating schedule ran them. */
  readonly decisions: readonly number[];
  /** True once there is no time for another attempt. */
  isLate(): boolean;
}

/** A schedule that breaks the invariant, and how long it is. */
interface Attempt {
  /** What ran, until the violation. */
  readonly decisions: readonly number[];
  readonly without: ReadonlySet<number>;
  readonly switches: number;
}

export function reduce(options: ReduceOptions): Reduction {
  return new Reducer(options).run();
}

class Reducer {
  readonly #options: ReduceOptions;
  #best: Attempt;

  constructor(options: ReduceOptions) {
    this.#options = options;
    const { decisions } = options;
    this.#best = { decisions, without: new Set(), switches: switchesOf(decisions) };
  }

  run(): Reduction {
    let before: Attempt;
    do {
      before = this.#best;
      this.#leaveThreadsOut();
      this.#leaveActorsOut();
      this.#leaveStepsOut();
      this.#mergeSegments();
    } while (this.#best !== before && !this.#options.isLate());
    return this.#print();
  }

  #leaveThreadsOut(): void {
    const { threads } = this.#options.scenario;
    for (let number = 0; number < threads.length; number++) {
      const { decisions, without } = this.#best;
      if (!without.has(number)) this.#try(decisions, new Set(without).add(number));
    }
  }

  #leaveActorsOut(): void {
    for (const id of new Set(this.#best.decisions)) {
      const { decisions, without } = this.#best;
      this.#try(
        decisions.filter((other) => other !== id),
        without,
      );
    }
  }

  /** Delta debugging (Zeller 1999): halves first, single steps last. */
  #leaveStepsOut(): void {
    for (let size = this.#best.decisions.length >>> 1; size >= 1; size >>>= 1) {
      for (let start = 0; start < this.#best.decisions.length; ) {
        const { decisions, without } = this.#best;
        const rest = [...decisions.slice(0, start), ...decisions.slice(start + size)];
        if (!this.#try(rest, without)) start += size;
        if (this.#options.isLate()) return;
      }
    }
  }

  /** Brings the steps of an actor together with its steps before. */
  #mergeSegments(): void {
    for (let i = 1; i < this.#best.decisions.length; i++) {
      const { decisions, without } = this.#best;
      const id = decisions[i]!;
      if (decisions[i - 1] === id) continue;
      const last = decisions.lastIndexOf(id, i - 1);
      if (last < 0) continue;
      let end = i;
      while (decisions[end] === id) end++;
      const moved = decisions.slice(i, end);
      this.#try(
        [
          ...decisions.slice(0, last + 1),
          ...moved,
          ...decisions.slice(last + 1, i),
          ...decisions.slice(end),
        ],
        without,
      );
      if (this.#options.isLate()) return;
    }
  }

  /** True: the same violation, in a shorter schedule or one with fewer switches. */
  #try(decisions: readonly number[], without: ReadonlySet<number>): boolean {
    const { scenario, plants, seed, invariant, isLate } = this.#options;
    if (isLate()) return false;
    const outcome = runSchedule({
      scenario,
      plants,
      seed,
      policy: new Replay(decisions),
      without,
    });
    if (outcome.violation?.invariant !== invariant) return false;
    const switches = switchesOf(outcome.decisions);
    const best = this.#best;
    const shorter = outcome.decisions.length - best.decisions.length;
    const fewer = without.size - best.without.size;
    const isBetter = shorter < 0 || (shorter === 0 && (switches < best.switches || fewer > 0));
    if (!isBetter) return false;
    this.#best = { decisions: outcome.decisions, without, switches };
    return true;
  }

  #print(): Reduction {
    const { scenario, plants, seed } = this.#options;
    const { decisions, without } = this.#best;
    const recorder = new Trace();
    const policy = new Replay(decisions);
    const outcome = runSchedule({ scenario, plants, seed, policy, without, recorder });
    return { message: outcome.violation?.message ?? '', steps: recorder.steps, without };
  }
}

function switchesOf(decisions: readonly number[]): number {
  return countSwitches(decisions.map((id) => ({ actor: String(id) })));
}
