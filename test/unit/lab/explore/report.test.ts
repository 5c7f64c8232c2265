import { expect, test } from 'vitest';
import type { ExplorationResult } from '../../../../lab/explore/explore.ts';
import { renderExploration } from '../../../../lab/explore/report.ts';

const QUIET = { schedules: 100_000, steps: 7_100_000, elapsedMs: 50_000, ran: 100_000 };

const VIOLATED: ExplorationResult = {
  ...QUIET,
  schedules: 3,
  violation: {
    kind: 'reduced',
    violation: {
      seed: 4711,
      invariant: 'no page leaks',
      message: `free pages: 1, ${'at boot '.repeat(20)}`,
    },
    policy: 'PCT, d = 3 over 64 steps',
    found: { steps: 190, switches: 70 },
    reduced: { steps: 3, switches: 1 },
    without: ['churn', 'deflate'],
    trace: [
      { number: 1, actor: 'balloon-wq', notes: [], at: 'sleeps' },
      {
        number: 2,
        actor: 'balloon-wq',
        notes: ['free block 80+16', 'free block 96+16'],
        at: 'runs',
      },
      {
        number: 3,
        actor: 'device free_page_vq',
        notes: [`records of ${'80+16 '.repeat(40)}`],
        at: '',
      },
    ],
  },
};

test('a quiet exploration is one line', () => {
  expect(renderExploration({ ...QUIET, violation: null }, 'x')).toBe(
    '100,000 schedules, no violation (2,000/s, 71 steps each)',
  );
});

test('a violation names seed, policy, threads that it does without, and the command that repeats it', () => {
  const text = renderExploration(VIOLATED, 'ballast explore mixed --first-seed 4711 --seeds 1');
  expect(text).toContain('violation: no page leaks\n');
  expect(text).toContain('seed 4711, PCT, d = 3 over 64 steps\n');
  expect(text).toContain(
    'reduced from 190 steps (70 context switches) to 3 steps (1 context switch), without churn, deflate\n',
  );
  expect(text).toContain('   1  balloon-wq           → sleeps\n');
  expect(text).toContain('   2                       free block 80+16; free block 96+16; → runs\n');
  expect(text.split('\n').at(-1)).toBe('repeat: ballast explore mixed --first-seed 4711 --seeds 1');
});

test('no line is wider than a terminal of 100 columns', () => {
  const widths = renderExploration(VIOLATED, 'x')
    .split('\n')
    .map((line) => line.length);
  expect(Math.max(...widths)).toBeLessThanOrEqual(100);
});
