/** Whole schedules, looked through on as many processes as the machine has cores. */
import { availableParallelism } from 'node:os';
import { explore } from '../lab/explore/explore.ts';
import { loadExploration } from '../lab/explore/load.ts';
import { assert } from '../shared/index.ts';
import { type Bench, type Figure, sample } from './figure.ts';

/** Schedules of one sample: some seconds. */
const SEEDS = 6000;
/** The target is for short schedules: `isolate` has some 140 steps, the mixed one over 300. */
const SCENARIOS = [
  { name: 'isolate', target: { of: 'value', atLeast: 2 } },
  { name: 'soft-offline' },
  { name: 'mixed' },
] as const;

export const benchExplorer: Bench = async ({ runs, progress }) => {
  const figures: Figure[] = [];
  for (const scenario of SCENARIOS) {
    progress(`schedules of ${scenario.name}`);
    const { schedules } = await sample(runs, {
      schedules: () => thousandsPerSecond(scenario.name),
    });
    figures.push({
      bench: 'explorer',
      name: `schedules of ${scenario.name}`,
      unit: 'k/s',
      samples: schedules,
      ...('target' in scenario ? { target: scenario.target } : {}),
    });
  }
  return figures;
};

async function thousandsPerSecond(name: string): Promise<number> {
  const result = await explore({
    scenario: await loadExploration(name),
    plant: null,
    firstSeed: 0,
    seeds: SEEDS,
    jobs: availableParallelism(),
  });
  assert(result.violation === null, 'the honest build violates nothing');
  return result.ran / result.elapsedMs;
}
