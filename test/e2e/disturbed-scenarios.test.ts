/** The scenarios in which something happens to a migration, and the example of docs/scenarios.md. */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { loadScenario, runScenario } from '../../lab/index.ts';
import { packageRoot } from '../../lab/process/paths.ts';
import { isGood } from '../../lab/runner/expectation.ts';
import { parseScenario } from '../../lab/scenario/load.ts';
import type { Scenario } from '../../lab/scenario/scenario.ts';

async function expectGood(scenario: Scenario): Promise<void> {
  for (const run of await runScenario(scenario, { jobs: 2 })) {
    const { strategy, expectations, failed_steps, audit_problems } = run;
    const missed = expectations.filter(({ holds }) => !holds);
    expect({ strategy, missed, failed_steps, audit_problems, good: isGood(run) }).toEqual({
      strategy,
      missed: [],
      failed_steps: [],
      audit_problems: [],
      good: true,
    });
  }
}

describe('a migration that is disturbed', () => {
  test.each(['migration-cancelled', 'migration-link', 'migration-destination-killed'])(
    '%s',
    async (name) => expectGood(await loadScenario(name, { strategies: ['alloc'] })),
  );

  test.each([
    'migration-of-a-stopped-guest',
    'balloon-during-migration',
    'background-load',
    'hint-race-pressure',
    'inhibited-discards',
    'oom-during-migration',
    'command-id-wraps',
  ])('%s', async (name) => expectGood(await loadScenario(name)));

  test('as docs/scenarios.md has it', async () => {
    const docs = readFileSync(`${packageRoot}/docs/scenarios.md`, 'utf8');
    const section = docs.slice(docs.indexOf('### While a migration runs'));
    const [, yaml = ''] = /```yaml\n([^`]*)```/.exec(section) ?? [];
    await expectGood(await parseScenario('docs.yaml', yaml));
  });
});
