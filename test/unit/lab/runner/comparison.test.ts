import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { errorOf, measuredOf, withEfficiency } from '../../../../lab/runner/comparison.ts';
import {
  evaluate,
  evaluateComparisons,
  figureOf,
  isGood,
} from '../../../../lab/runner/expectation.ts';
import {
  MEASURED_KEYS,
  type Run,
  resultJsonSchema,
  resultSchema,
} from '../../../../lab/runner/result.ts';
import { RUN_FIGURES } from '../../../../lab/scenario/figures.ts';
import { exampleRun } from '../../../support/run-example.ts';

const measuredRuns = [
  {
    freePageHint: false,
    figures: { status: 'completed', total_ms: 3920, normal_pages: 100, setup_ms: null },
  },
  { freePageHint: false, figures: { status: 'completed', total_ms: 3921, normal_pages: 200 } },
  { freePageHint: true, figures: { status: 'completed', total_ms: 1006, normal_pages: 50 } },
];

describe('measured', () => {
  test('is what QEMU did without hints for none, with hints for alloc, and nothing for the others', () => {
    expect(measuredOf('none', measuredRuns)?.total_ms).toEqual([3920, 3921]);
    expect(measuredOf('alloc', measuredRuns)?.total_ms).toEqual([1006]);
    expect(measuredOf('iterate', measuredRuns)).toBeNull();
    expect(measuredOf('oracle', measuredRuns)).toBeNull();
    expect(measuredOf('alloc', measuredRuns.slice(0, 2))).toBeNull();
  });

  test('has an array for each key of migration, empty when it was not measured', () => {
    const measured = measuredOf('none', measuredRuns);
    expect(Object.keys(measured ?? {})).toEqual(MEASURED_KEYS);
    expect(measured?.setup_ms).toEqual([]);
    expect(measured?.status).toEqual(['completed', 'completed']);
  });

  test('gives the relative error to its mean', () => {
    const { migration } = exampleRun('none');
    const error = errorOf(migration, measuredOf('none', measuredRuns));
    expect(error?.normal_pages).toBeCloseTo((204_260 - 150) / 150, 9);
    expect(error?.total_ms).toBeCloseTo(-0.5 / 3920.5, 9);
    expect(error?.duplicate_pages).toBeNull();
    expect(errorOf(migration, null)).toBeNull();
  });
});

describe('efficiency', () => {
  test('is the share of the saving of the oracle', () => {
    const runs = withEfficiency([
      exampleRun('none', 1000),
      exampleRun('alloc', 400),
      exampleRun('oracle', 200),
    ]);
    expect(runs.map((run) => run.efficiency)).toEqual([0, 0.75, 1]);
  });

  test.each([
    ['none', ['alloc', 'oracle']],
    ['the oracle', ['none', 'alloc']],
  ])('is unknown without %s', (_title, strategies) => {
    const runs = withEfficiency(strategies.map((strategy, i) => exampleRun(strategy, 1000 - i)));
    expect(runs.every((run) => run.efficiency === null)).toBe(true);
  });

  test('is that of the own variant', () => {
    const runs = withEfficiency([
      exampleRun('none', 1000, { variant: 'a' }),
      exampleRun('oracle', 200, { variant: 'a' }),
      exampleRun('none', 500, { variant: 'b' }),
      exampleRun('alloc', 400, { variant: 'b' }),
      exampleRun('oracle', 300, { variant: 'b' }),
    ]);
    expect(runs.map((run) => run.efficiency)).toEqual([0, 1, 0, 0.5, 1]);
  });

  test('is unknown when nothing could be saved', () => {
    const runs = withEfficiency([exampleRun('none', 1000), exampleRun('oracle', 1000)]);
    expect(runs[1]?.efficiency).toBeNull();
  });
});

describe('an expectation', () => {
  const run = exampleRun('alloc', 1000, {
    error: { normal_pages: -0.04, duplicate_pages: 0, transferred_bytes: 0, total_ms: null },
  });

  test.each([
    ['lost_pages', { equal: 0 }, true],
    ['lost_pages', { equal: 1 }, false],
    ['recall', { at_least: 0.95 }, true],
    ['recall', { at_least: 0.96 }, false],
    ['normal_pages', { at_most: 204_260 }, true],
    ['normal_pages', { at_most: 204_259 }, false],
    ['normal_pages_error', { within: 0.04 }, true],
    ['normal_pages_error', { within: 0.03 }, false],
    ['total_ms', { at_least: 1, at_most: 10 }, false],
    ['efficiency', { at_least: 0 }, false],
    ['total_ms_error', { within: 1 }, false],
  ] as const)('%s %o: %s', (figure, bound, holds) => {
    expect(evaluate(run, [{ bounds: [{ figure, bound }], at: {} }])[0]?.holds).toBe(holds);
  });

  test('sees the balloon as it was at its step', () => {
    const checks = [
      {
        bounds: [{ figure: 'actual_pages' as const, bound: { equal: 7 } }],
        at: { actual_pages: 7 },
      },
    ];
    expect(evaluate(run, checks)[0]?.holds).toBe(true);
  });

  test('finds every figure that a scenario may name', () => {
    const complete = {
      ...run,
      efficiency: 1,
      efficiency_of_limit: 0.9,
      error: { normal_pages: 0, duplicate_pages: 0, transferred_bytes: 0, total_ms: 0 },
    };
    expect(RUN_FIGURES.filter((name) => figureOf(complete, name) === null)).toEqual([]);
  });

  test('fails the run when it does not hold, as a lost page and a problem of the audit do', () => {
    expect(isGood(run)).toBe(true);
    expect(isGood({ ...run, audit_problems: ['zone DMA: a page is on two lists'] })).toBe(false);
    const memory = run.memory!;
    for (const bad of ['lost_pages', 'broken_free_pages'] as const) {
      const spoiled = { ...run, memory: { ...memory, [bad]: 1 } };
      expect(isGood(spoiled)).toBe(false);
      // A scenario that shows a loss says so.
      const asked = { figure: bad, expected: 'at least 1', found: 1, holds: true };
      expect(isGood({ ...spoiled, expectations: [asked] })).toBe(true);
    }
    expect(
      isGood({
        ...run,
        expectations: [{ figure: 'recall', expected: '1', found: 0, holds: false }],
      }),
    ).toBe(false);
    const failed_steps = [{ where: 'x.yaml:3', line: 'exit name=vm', reason: 'no such process' }];
    expect(isGood({ ...run, failed_steps })).toBe(false);
  });
});

describe('a comparison', () => {
  const runs = (mine: number, theirs: number, applies = true) =>
    (
      [
        ['a', theirs],
        ['b', mine],
      ] as const
    ).map(([variant, pgfree]) => ({
      run: exampleRun('none', 1, { variant, migration: null, vmstat: { pgfree: 9999 } }),
      comparisons: [
        {
          to: 'a',
          applies,
          bounds: [
            { figure: 'pgfree' as const, bound: { factor_at_most: 0.01, factor_at_least: 0.001 } },
          ],
          at: { pgfree },
        },
      ],
    }));
  const judge = (mine: number, theirs: number, applies = true) => {
    const [a, b] = runs(mine, theirs, applies);
    if (!a || !b) throw new Error('expected two runs');
    return evaluateComparisons(b, [a, b]);
  };

  test.each([
    [100, 1, 0.01, true],
    [1000, 1, 0.001, true],
    [99, 1, 1 / 99, false],
    [1001, 1, 1 / 1001, false],
    [5, 0, 0, false],
    [0, 5, null, false],
    [0, 0, 1, false],
  ])('of %d with %d gives the factor of that moment', (theirs, mine, factor, good) => {
    expect(judge(mine, theirs)).toEqual([
      {
        figure: 'pgfree ÷ a',
        expected: 'factor at least 0.001 and factor at most 0.01',
        found: factor,
        holds: good,
      },
    ]);
  });

  test('is none of the variant itself, nor of one that it is not for, nor with another strategy', () => {
    const [a, b] = runs(1, 100);
    if (!a || !b) throw new Error('expected two runs');
    expect(evaluateComparisons(a, [a, b])).toEqual([]);
    expect(judge(1, 100, false)).toEqual([]);
    const other = { ...a, run: { ...a.run, strategy: 'oracle' } };
    expect(evaluateComparisons(b, [other, b])).toEqual([]);
  });
});

describe('the result format', () => {
  test('accepts a run', () => {
    const result = {
      ballast: '0',
      command: 'run',
      scenario: 's',
      seed: 1,
      runs: [exampleRun('none')],
    };
    expect(resultSchema.parse(result)).toEqual(result);
  });

  test('is published as docs/result.schema.json', () => {
    const published = readFileSync(
      new URL('../../../../docs/result.schema.json', import.meta.url),
      'utf8',
    );
    expect(JSON.parse(published)).toEqual(JSON.parse(resultJsonSchema()));
  });
});

describe('the share of what a clairvoyant could have saved', () => {
  const run = (
    limit_bytes: number | null,
    memory: Partial<NonNullable<Run['memory']>> = {},
  ): Run => {
    const alloc = exampleRun('alloc', 400, { limit_bytes });
    return { ...alloc, memory: { ...alloc.memory!, ...memory } };
  };

  test.each([
    ['600 of 800 saved', run(200), 0.75],
    ['as good as the bound', run(400), 1],
    ['a run that has not arrived', run(null), null],
    ['a run that lost a page', run(200, { lost_pages: 1 }), null],
    ['a run that broke a free page', run(200, { broken_free_pages: 1 }), null],
  ])('%s', (_what, alloc, expected) => {
    const runs = withEfficiency([exampleRun('none', 1000), alloc]);
    expect(runs[1]?.efficiency_of_limit).toBe(expected);
    expect(withEfficiency([alloc])[0]?.efficiency_of_limit).toBeNull();
  });
});
