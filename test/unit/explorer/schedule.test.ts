import { describe, expect, test } from 'vitest';
import { runSchedule } from '../../../explorer/schedule.ts';
import { PLANT_HOMES } from '../../../lab/explore/homes.ts';
import { MOVABLE_GENERATIONS } from '../../../protocol/index.ts';
import { NO_PLANTS, PLANT_NAMES, plantsOf } from '../../../shared/index.ts';
import { exploreScenario } from '../../support/explore-scenario.ts';

const SCENARIOS = ['compaction', 'hint-discards', 'hinting', 'isolate', 'soft-offline', 'zspool'];

describe.each([...SCENARIOS, 'mixed', 'mixed-pfn'])('%s', (name) => {
  const scenario = exploreScenario(name);

  test('a seed is one schedule, and seeds differ', () => {
    const runs = [0, 1, 2, 3, 0, 1, 2, 3].map((seed) =>
      runSchedule({ scenario, plants: NO_PLANTS, seed }).decisions.join(),
    );
    expect(runs.slice(4)).toEqual(runs.slice(0, 4));
    expect(new Set(runs).size).toBe(4);
  });

  test.each(MOVABLE_GENERATIONS)('breaks nothing without a plant: %s', (generation) => {
    for (let seed = 0; seed < 40; seed++) {
      const outcome = runSchedule({
        scenario: { ...scenario, generation },
        plants: NO_PLANTS,
        seed,
      });
      expect(outcome.violation).toBeNull();
    }
  });
});

test.each(PLANT_NAMES)('%s is found where it lives', (plant) => {
  const scenario = exploreScenario(PLANT_HOMES[plant]);
  const plants = plantsOf(plant);
  let seed = 0;
  while (seed < 2000 && !runSchedule({ scenario, plants, seed }).violation) seed++;
  expect(seed).toBeLessThan(2000);
});

test('a thread that is left out does not run, and the others keep their draws', () => {
  const scenario = exploreScenario('isolate');
  const without = new Set(scenario.threads.keys());
  const outcome = runSchedule({ scenario, plants: NO_PLANTS, seed: 3, without });
  expect(outcome.violation).toBeNull();
  expect(outcome.steps).toBe(0);
});
