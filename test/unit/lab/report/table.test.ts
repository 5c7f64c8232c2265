import { stripVTControlCharacters } from 'node:util';
import { describe, expect, test } from 'vitest';
import { renderResult } from '../../../../lab/report/table.ts';
import type { Run } from '../../../../lab/runner/result.ts';
import { exampleRun } from '../../../support/run-example.ts';

function render(runs: Run[], color = false): string {
  return renderResult(
    { ballast: '0.1.0', command: 'run', scenario: 'idle-1g', seed: 1, runs },
    { color },
  );
}

/** The largest figures that a 1 TiB guest could give. */
const huge = exampleRun('iterate', 1.1e12, {
  memory: {
    pages: 268_435_456,
    free_pages_at_end: 1,
    wasted_pages: 268_435_456,
    lost_pages: 0,
    broken_free_pages: 0,
    undefined_pages: 0,
  },
});

const measured: Run['measured'] = {
  status: ['completed', 'completed'],
  total_ms: [4000, 4100],
  downtime_ms: [3, 3],
  setup_ms: [],
  transferred_bytes: [838_806_441, 838_806_441],
  normal_pages: [204_260, 204_256],
  duplicate_pages: [58_110, 58_113],
  skipped_pages: [],
  resent_pages: [],
  dirty_sync_count: [3, 3],
};
const error = {
  normal_pages: 0.0012,
  duplicate_pages: -0.0812,
  transferred_bytes: 0,
  total_ms: null,
};

describe('the table', () => {
  test.each([
    ['usual', exampleRun('alloc', 838_806_441, { measured, error })],
    ['huge', huge],
  ])('is at most 120 columns wide with %s figures', (_title, run) => {
    const widths = render([run])
      .split('\n')
      .map((line) => line.length);
    expect(Math.max(...widths)).toBeLessThanOrEqual(120);
  });

  test('puts the measurement and the error below the prediction', () => {
    const lines = render([exampleRun('none', 838_806_441, { measured, error })]).split('\n');
    const at = lines.findIndex((line) => line.includes('none'));
    expect(lines[at]).toContain('3,920');
    expect(lines[at + 1]).toMatch(/measured.*4,050.*204,258/);
    expect(lines[at + 2]).toMatch(/error.*\+0\.1 %.*−8\.1 %/);
  });

  test('shows a failed expectation, a lost page with its history, and an audit problem', () => {
    const run = exampleRun('alloc', 1, {
      expectations: [{ figure: 'recall', expected: 'at least 0.95', found: 0.2, holds: false }],
      lost: [{ pfn: 4711, history: ['1 hinted', '2 written'] }],
      audit_problems: ['pfn 7 has two owners'],
    });
    const text = render([run]);
    expect(text).toContain('FAILED  alloc: recall expected at least 0.95, found 0.2');
    expect(text).toContain('pfn 4711');
    expect(text).toContain('2 written');
    expect(text).toContain('pfn 7 has two owners');
  });

  test('has colour only when asked', () => {
    const runs = [exampleRun('none', 1000, { measured, error })];
    const plain = render(runs);
    expect(plain).toBe(stripVTControlCharacters(plain));
    expect(render(runs, true)).not.toBe(plain);
    expect(stripVTControlCharacters(render(runs, true))).toBe(plain);
  });

  test('leaves out what a run without migration does not have', () => {
    const text = render([exampleRun('none', 1, { migration: null, hints: null, memory: null })]);
    expect(text).not.toContain('total ms');
  });

  describe('of counters', () => {
    const quiet = { migration: null, hints: null, memory: null };
    const variant = (name: string, vmstat: Record<string, number>, changes: Partial<Run> = {}) =>
      exampleRun('none', 1, { ...quiet, variant: name, vmstat, ...changes });
    const shown = (runs: Run[]) =>
      render(runs)
        .split('\n')
        .map((line) => line.split('│')[1]?.trim())
        .filter((name) => name && name !== 'counter');

    test('has a column for each variant and a line for what differs or is expected', () => {
      const kept = { figure: 'pgmigrate_fail', expected: '0', found: 0, holds: true };
      const runs = [
        variant('a', { pgfree: 1, pgmigrate_fail: 0, oom_kill: 0 }, { expectations: [kept] }),
        variant('b', { pgfree: 2, pgmigrate_fail: 0, oom_kill: 0 }),
      ];
      expect(shown(runs)).toEqual(['pgfree', 'pgmigrate_fail']);
      expect(render(runs)).toMatch(/counter *│ a │ b/);
      expect(render(runs)).toMatch(/pgfree *│ 1 │ 2/);
    });

    test('leaves out the zeros of a single run, and of migrations what nobody expects', () => {
      expect(shown([variant('a', { pgfree: 1, oom_kill: 0 })])).toEqual(['pgfree']);
      const migrated = { vmstat: { pgfree: 1, pgalloc_dma: 2 } };
      expect(render([exampleRun('none', 1, migrated)])).not.toContain('counter');
      const expectations = [{ figure: 'pgfree', expected: '1', found: 1, holds: true }];
      const text = render([exampleRun('none', 1, { ...migrated, expectations })]);
      expect(text).toMatch(/pgfree *│ *1/);
      expect(text).not.toContain('pgalloc_dma');
    });

    test('tells CPU time in milliseconds and rates with three digits', () => {
      const mm = { kcompactd_cpu_ns: 1_234_567_890, alloc_success_rate_order9: 0.5 };
      const text = render([variant('a', {}, { mm })]);
      expect(text).toMatch(/kcompactd_cpu_ns *│ *1,235 ms/);
      expect(text).toMatch(/alloc_success_rate_order9 *│ *0\.500/);
    });
  });

  test('names the step that failed, with file and line', () => {
    const failed_steps = [{ where: 'x.yaml:3', line: 'exit name=vm', reason: 'no such process' }];
    expect(render([exampleRun('none', 1, { variant: 'a', failed_steps })])).toContain(
      'FAILED  a: x.yaml:3: exit name=vm: no such process',
    );
  });

  test.each([
    ['tcg', false, 'iterate: pages are not held; safe with this dirty log (tcg)'],
    [
      'kvm-bitmap with clear-at-id',
      false,
      'iterate: pages are not held; safe with this dirty log (kvm-bitmap with clear-at-id)',
    ],
    [
      'kvm-bitmap',
      false,
      'not safe: iterate with kvm-bitmap, where a hint can undo a write; ballast run hint-race shows it',
    ],
    ['kvm-bitmap', true, null],
    ['kvm-bitmap', null, null],
  ] as const)(
    'says under which log hints are safe: %s, held %s',
    (dirty_log, holds_pages, line) => {
      const text = render([exampleRun('iterate', 1000, { dirty_log, holds_pages })]);
      const said = text.split('\n').filter((one) => /not held|not safe/.test(one));
      expect(said).toEqual(line === null ? [] : [line]);
    },
  );
});
