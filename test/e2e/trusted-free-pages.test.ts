/**
 * A guest that relies on what its free pages hold: who hints them without filling them again breaks
 * it, the destination finds that, and the guest, which runs on there, finds it too.
 */
import { describe, expect, test } from 'vitest';
import { runScenario } from '../../lab/index.ts';
import { isGood } from '../../lab/runner/expectation.ts';
import type { Run } from '../../lab/runner/result.ts';
import { parseScenario } from '../../lab/scenario/load.ts';

async function run(memory: string, mm: string, overrides: boolean): Promise<Map<string, Run>> {
  const scenario = await parseScenario(
    'trusted.yaml',
    `
machine: { memory: ${memory}, vcpus: 1 }
mm: { init_on_alloc: false, ${mm}: true }
strategies: [none, iterate, alloc, oracle]
driver: { hint_trusted_free_pages: ${overrides} }
steps:
  - boot
  # Written, sent and freed: its pages hold old data wherever a hint leaves them out.
  - process: { name: old, anonymous: 32MiB }
  - exit: old
  - migrate: { bandwidth: 100MiB/s }
  - process: { name: new, anonymous: 96MiB }
`,
  );
  const runs = await runScenario(scenario, { jobs: 2 });
  return new Map(runs.map((one) => [one.strategy, one]));
}

describe.each([
  ['256MiB', 'page_poison'],
  ['1GiB', 'page_poison'],
])('a guest of %s with %s', (memory, mm) => {
  test('is not hinted by strategies that would break it, and the notes say why', async () => {
    const runs = await run(memory, mm, false);
    for (const strategy of ['iterate', 'oracle']) {
      expect(runs.get(strategy)).toMatchObject({
        hints: { pages: 0 },
        notes: [expect.stringContaining('not used')],
      });
    }
    expect(runs.get('alloc')?.hints?.pages).toBeGreaterThan(10_000);
    for (const one of runs.values()) {
      expect([one.memory?.lost_pages, one.memory?.broken_free_pages]).toEqual([0, 0]);
      expect([one.guest?.corruptions, isGood(one)]).toEqual([0, true]);
    }
  });

  test('is broken by them when it is told to hint all the same, and finds it by itself', async () => {
    const runs = await run(memory, mm, true);
    for (const strategy of ['iterate', 'oracle']) {
      const one = runs.get(strategy)!;
      expect(one.memory?.broken_free_pages).toBeGreaterThan(10_000);
      expect(one.guest?.corruptions).toBeGreaterThan(10_000);
      expect(isGood(one)).toBe(false);
    }
    for (const strategy of ['none', 'alloc']) {
      const one = runs.get(strategy)!;
      expect([one.memory?.broken_free_pages, one.guest?.corruptions]).toEqual([0, 0]);
      expect(isGood(one)).toBe(true);
    }
  });
});

test('a guest with init_on_free is broken by hints of pages that were sent before they were freed', async () => {
  const scenario = await parseScenario(
    'init-on-free.yaml',
    `
recording: churn-1g
mm: { init_on_alloc: false, init_on_free: true }
strategies: [iterate, alloc]
driver: { hint_trusted_free_pages: true }
steps:
  - boot
  - workload: recording
  # It fills its memory and frees it while it is migrated.
  - wait: 500ms
  - migrate
  - process: { name: new, anonymous: 500MiB }
`,
  );
  const [iterate, alloc] = await runScenario(scenario, { jobs: 2 });
  expect(iterate?.memory?.broken_free_pages).toBeGreaterThan(10_000);
  expect(iterate?.guest?.corruptions).toBeGreaterThan(1000);
  expect([alloc?.memory?.broken_free_pages, alloc?.guest?.corruptions]).toEqual([0, 0]);
  expect(alloc?.audit_problems).toEqual([]);
});

test('discarded hints break such a guest without a migration, and its audit says so', async () => {
  const scenario = await parseScenario(
    'discards.yaml',
    `
machine: { memory: 64MiB, vcpus: 1 }
mm: { init_on_alloc: false, page_poison: true }
strategies: [iterate, alloc]
device: { discard_hints: true }
driver: { hint_trusted_free_pages: true }
steps:
  - boot
  - hint
  - wait: 100ms
`,
  );
  const [iterate, alloc] = await runScenario(scenario, { jobs: 2 });
  expect(iterate?.audit_problems).toEqual([
    expect.stringMatching(/^\d{5} free pages do not hold the poison/),
  ]);
  // It fills again what it gives back.
  expect(alloc?.audit_problems).toEqual([]);
});
