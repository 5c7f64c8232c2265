/** Predictions beside what QEMU measured when the recorded guests were migrated. */
import { describe, expect, test } from 'vitest';
import { loadScenario, type Run, runScenario } from '../../lab/index.ts';
import type { StrategyName } from '../../protocol/index.ts';
import { sharedRecording } from '../support/in-process.ts';

/** (predicted − measured) ÷ measured, at most. */
const WITHIN = { normal_pages: 0.03, total_ms: 0.05, duplicate_pages: 0.1 };

async function runs(scenario: string, strategies: StrategyName[]): Promise<Run[]> {
  return await runScenario(await loadScenario(scenario, { strategies }), { jobs: 2 });
}

const CASES: readonly string[] = [
  'idle-1g',
  'churn-1g',
  'rewrite-1g',
  'fork-1g',
  'tmpfs-1g',
  'frag8-1g',
];

describe('the prediction is near what was measured', () => {
  test.each(CASES)('%s, without hints and with those of Linux', async (name) => {
    for (const run of await runs(name, ['none', 'alloc'])) {
      expect(run.error, `${run.strategy} has a measured counterpart`).not.toBeNull();
      expect(run.memory?.lost_pages).toBe(0);
      const far = Object.entries(WITHIN).filter(
        ([figure, within]) =>
          Math.abs(run.error?.[figure as keyof typeof WITHIN] ?? Number.NaN) > within,
      );
      expect(far, `${run.strategy}: ${JSON.stringify(run.error)}`).toEqual([]);
    }
  });
});

test('what the hinting driver makes zero comes from init_on_alloc', async () => {
  const [zeroing] = await runs('idle-1g', ['alloc']);
  const [without] = await runs('idle-1g-no-init-on-alloc', ['alloc']);
  const duplicates = (run: Run | undefined) => run?.migration?.duplicate_pages ?? Number.NaN;
  expect(duplicates(zeroing) - duplicates(without)).toBeGreaterThan(150_000);
  // What stays are pages in use that hold nothing, the recorder's trace buffer above all.
  const { start } = sharedRecording('idle-1g');
  const zeroInUse = start.zero.countAndNot(start.free);
  expect(duplicates(without)).toBeGreaterThan(0.9 * zeroInUse);
  expect(duplicates(without)).toBeLessThan(1.25 * zeroInUse);
  expect(without?.memory?.lost_pages).toBe(0);
});
