/** The pages for users name every key, step and figure that there is. */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { knownKeys } from '../../../../lab/input/known-keys.ts';
import { consoleSteps } from '../../../../lab/scenario/console-steps.ts';
import { SECTIONS, STEP_NAMES, scenarioSchema } from '../../../../lab/scenario/schema.ts';
import { MM_COUNTERS, VMSTAT_NAMES } from '../../../../protocol/vmstat.ts';

const page = (name: string) =>
  readFileSync(new URL(`../../../../docs/${name}`, import.meta.url), 'utf8');
const scenarios = page('scenarios.md');
const results = page('result-format.md');

/** As code: alone, or at the beginning of an example. */
function isNamed(text: string, name: string): boolean {
  return new RegExp(`\`${name.replace('.', '\\.')}[\`:, ]`).test(text);
}

describe('docs/scenarios.md', () => {
  test.each(STEP_NAMES)('explains the step %s', (name) => {
    expect(isNamed(scenarios, name)).toBe(true);
  });

  test.each(SECTIONS.filter((name) => name !== 'costs'))('explains the keys of %s', (section) => {
    const keys = knownKeys(scenarioSchema, [section]).map((key) => `${section}.${key}`);
    expect(keys.length).toBeGreaterThan(0);
    expect(keys.filter((key) => !isNamed(scenarios, key))).toEqual([]);
  });

  test.each(Object.keys(consoleSteps))('names the keys of the step %s', (step) => {
    const row = scenarios.split('\n').filter((line) => line.startsWith(`| \`${step}`));
    const keys = knownKeys(scenarioSchema, ['steps', 0, step]);
    expect(keys.filter((key) => !row.join(' ').includes(key))).toEqual([]);
  });
});

describe('docs/result-format.md', () => {
  test('explains every counter', () => {
    const names = [...VMSTAT_NAMES, ...MM_COUNTERS].map((name) =>
      name.replace(/_order\d+$/, '_orderN'),
    );
    expect(names.filter((name) => !isNamed(results, name))).toEqual([]);
  });
});
