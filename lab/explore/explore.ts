import type { ExploreScenario } from '../../protocol/index.ts';
import type { PlantName } from '../../shared/index.ts';
import { type ReplyTo, type Worker, withWorkers } from './workers.ts';

/**
 * Explores the schedules of a range of seeds on several processes. The answer does not depend on
 * their number: the violation of the lowest seed is reported.
 */

/** Seeds that a worker gets at a time: some tenths of a second. */
const BATCH_SEEDS = 250;
/** How long a violating schedule may be reduced. */
const REDUCE_LIMIT_MS = 10_000;

export interface Exploration {
  readonly scenario: ExploreScenario;
  readonly plant: PlantName | null;
  readonly firstSeed: number;
  readonly seeds: number;
  readonly jobs: number;
  /** Schedules so far, and how many in a second of wall clock. */
  onProgress?(schedules: number, perSecond: number): void;
  /** A violation was found and is being reduced. */
  onViolation?(seed: number): void;
}

export interface ExplorationResult {
  /** Up to and with the violating one. */
  readonly schedules: number;
  /** Steps of all that ran. */
  readonly steps: number;
  readonly elapsedMs: number;
  /** Schedules that ran, in that time. */
  readonly ran: number;
  readonly violation: ReplyTo<'reduce'> | null;
}

export function explore(exploration: Exploration): Promise<ExplorationResult> {
  const batches = Math.ceil(exploration.seeds / BATCH_SEEDS);
  return withWorkers(Math.min(exploration.jobs, batches), async (workers) => {
    const search = new Search(exploration);
    await Promise.all(workers.map((worker) => search.start(worker)));
    await Promise.all(workers.map((worker) => search.work(worker)));
    return search.finish(workers[0]!);
  });
}

class Search {
  readonly #exploration: Exploration;
  #startMs = performance.now();
  #nextSeed: number;
  /** Exclusive; no seed from the lowest violating one on needs to be looked at. */
  #endSeed: number;
  #lowest: number | null = null;
  #ran = 0;
  #steps = 0;

  constructor(exploration: Exploration) {
    this.#exploration = exploration;
    this.#nextSeed = exploration.firstSeed;
    this.#endSeed = exploration.firstSeed + exploration.seeds;
  }

  /** Waits until the process is there: to start it is not exploring. */
  async start(worker: Worker): Promise<void> {
    const { scenario, plant } = this.#exploration;
    await worker.ask({ kind: 'explore', scenario, plant, first: 0, count: 0 });
    this.#startMs = performance.now();
  }

  async work(worker: Worker): Promise<void> {
    const { scenario, plant, onProgress } = this.#exploration;
    while (this.#nextSeed < this.#endSeed) {
      const first = this.#nextSeed;
      const count = Math.min(BATCH_SEEDS, this.#endSeed - first);
      this.#nextSeed += count;
      const reply = await worker.ask({ kind: 'explore', scenario, plant, first, count });
      this.#ran += reply.schedules;
      this.#steps += reply.steps;
      onProgress?.(this.#ran, Math.round((this.#ran * 1000) / (performance.now() - this.#startMs)));
      const seed = reply.violation?.seed;
      if (seed === undefined || seed >= this.#endSeed) continue;
      this.#lowest = seed;
      this.#endSeed = seed;
    }
  }

  async finish(worker: Worker): Promise<ExplorationResult> {
    const elapsedMs = performance.now() - this.#startMs;
    const { scenario, plant, firstSeed, seeds, onViolation } = this.#exploration;
    const seed = this.#lowest;
    let violation: ReplyTo<'reduce'> | null = null;
    if (seed !== null) {
      onViolation?.(seed);
      const limitMs = REDUCE_LIMIT_MS;
      violation = await worker.ask({ kind: 'reduce', scenario, plant, seed, limitMs });
    }
    const schedules = seed === null ? seeds : seed - firstSeed + 1;
    return { schedules, steps: this.#steps, elapsedMs, ran: this.#ran, violation };
  }
}
