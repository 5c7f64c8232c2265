/**
 * Who runs next. Random walks try everything sooner or later; PCT (Burckhardt et al. 2010) finds a
 * bug that needs d ordered events with a probability that is known: threads have random priorities,
 * and at d − 1 random steps the one that runs falls behind all others.
 */
import type { Prng } from '../shared/index.ts';
import { type Actor, ActorState } from './actor.ts';

export interface Policy {
  readonly name: string;
  /** `ready` is not empty and ascends by id; `current` ran last. */
  pick(ready: readonly Actor[], current: Actor | null): Actor;
}

/** Lengths that PCT spreads its change points over; a power of two in each schedule. */
const PCT_LENGTHS = [32, 64, 128, 256, 512] as const;
const PCT_DEPTH_MAX = 6;
/** The walk that stays: one switch in so many steps. */
const SWITCH_ONE_IN = [3, 6, 12] as const;

/** The policy of a seed. */
export function policyOf(seed: number, prng: Prng): Policy {
  switch (seed & 3) {
    case 0:
      return new RandomWalk(prng, 1);
    case 1:
      return new RandomWalk(prng, SWITCH_ONE_IN[prng.below(SWITCH_ONE_IN.length)]!);
    default: {
      const depth = 2 + prng.below(PCT_DEPTH_MAX - 1);
      return new PriorityPolicy(prng, depth, PCT_LENGTHS[prng.below(PCT_LENGTHS.length)]!);
    }
  }
}

/** Each step anybody, or with `switchOneIn` above 1 mostly whoever ran last. */
class RandomWalk implements Policy {
  readonly name: string;
  readonly #prng: Prng;
  readonly #switchOneIn: number;

  constructor(prng: Prng, switchOneIn: number) {
    this.name = switchOneIn === 1 ? 'random walk' : `random walk, a switch in ${switchOneIn} steps`;
    this.#prng = prng;
    this.#switchOneIn = switchOneIn;
  }

  pick(ready: readonly Actor[], current: Actor | null): Actor {
    if (ready.length === 1) return ready[0]!;
    if (current && this.#switchOneIn > 1 && canGoOn(current, ready)) {
      if (!this.#prng.chance(1, this.#switchOneIn)) return current;
    }
    return ready[this.#prng.below(ready.length)]!;
  }
}

class PriorityPolicy implements Policy {
  readonly name: string;
  readonly #prng: Prng;
  /** By id; higher runs first. Above 0 as drawn, below as demoted. */
  readonly #priorities: number[] = [];
  readonly #changePoints: number[] = [];
  #steps = 0;
  #lowest = 0;

  constructor(prng: Prng, depth: number, length: number) {
    this.name = `PCT, d = ${depth} over ${length} steps`;
    this.#prng = prng;
    for (let i = 1; i < depth; i++) this.#changePoints.push(prng.below(length));
  }

  pick(ready: readonly Actor[], current: Actor | null): Actor {
    // Who sleeps lets the others go first, or a loop that polls would run alone for ever.
    if (current?.slept) this.#demote(current);
    let best = this.#best(ready);
    if (this.#changePoints.includes(this.#steps)) {
      this.#demote(best);
      best = this.#best(ready);
    }
    this.#steps++;
    return best;
  }

  #best(ready: readonly Actor[]): Actor {
    let best = ready[0]!;
    let priority = this.#priorityOf(best);
    for (let i = 1; i < ready.length; i++) {
      const other = this.#priorityOf(ready[i]!);
      if (other <= priority) continue;
      best = ready[i]!;
      priority = other;
    }
    return best;
  }

  #priorityOf(actor: Actor): number {
    let priority = this.#priorities[actor.id];
    if (priority === undefined) {
      priority = 1 + this.#prng.nextU32();
      this.#priorities[actor.id] = priority;
    }
    return priority;
  }

  #demote(actor: Actor): void {
    this.#priorities[actor.id] = --this.#lowest;
  }
}

/** Whoever ran goes on as long as it can; then the next in a circle. Boots and ends schedules. */
export class RunToBlock implements Policy {
  readonly name = 'run to block';

  pick(ready: readonly Actor[], current: Actor | null): Actor {
    if (!current) return ready[0]!;
    return canGoOn(current, ready) ? current : nextAfter(ready, current);
  }
}

/** Everybody in turn: what ends at all ends under it. */
export class RoundRobin implements Policy {
  readonly name = 'round robin';

  pick(ready: readonly Actor[], current: Actor | null): Actor {
    return current ? nextAfter(ready, current) : ready[0]!;
  }
}

/** Follows a list of actors by id, leaving out who cannot run; then as `RunToBlock`. */
export class Replay implements Policy {
  readonly name = 'replay';
  readonly #ids: readonly number[];
  readonly #then = new RunToBlock();
  #at = 0;

  constructor(ids: readonly number[]) {
    this.#ids = ids;
  }

  pick(ready: readonly Actor[], current: Actor | null): Actor {
    while (this.#at < this.#ids.length) {
      const id = this.#ids[this.#at++];
      for (const actor of ready) if (actor.id === id) return actor;
    }
    return this.#then.pick(ready, current);
  }
}

function canGoOn(actor: Actor, ready: readonly Actor[]): boolean {
  return actor.state === ActorState.READY && !actor.slept && ready.includes(actor);
}

function nextAfter(ready: readonly Actor[], current: Actor): Actor {
  return ready.find((actor) => actor.id > current.id) ?? ready[0]!;
}
