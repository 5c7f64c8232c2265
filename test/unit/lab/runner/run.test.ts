/** The runner on machines that are played: what becomes of what a machine says. */
import { describe, expect, test } from 'vitest';
import type { Machine } from '../../../../lab/machine/machine.ts';
import { isGood } from '../../../../lab/runner/expectation.ts';
import { runScenario } from '../../../../lab/runner/run.ts';
import { parseScenario } from '../../../../lab/scenario/load.ts';
import { exampleRun } from '../../../support/run-example.ts';

interface Played {
  readonly violations?: number;
  readonly problems?: readonly string[];
  readonly status?: 'completed' | 'cancelled';
  readonly counters?: Readonly<Record<string, number>>;
  /** By console line: why it fails. */
  readonly failures?: Readonly<Record<string, string>>;
}

/** A machine that does nothing, and says what a test wants. */
function played(play: Played): Machine {
  const { violations = 0, problems = [], status = 'completed', counters = {} } = play;
  const state = {
    now_ns: 0,
    num_pages: 0,
    actual_pages: 0,
    protocol_violations: violations,
    counters,
  };
  const seen = async () => state;
  const { hints, memory, lock, guest, migration } = exampleRun('none');
  const machine = {
    nowNs: 0,
    replayEndNs: null,
    boot: seen,
    workload: async () => {},
    waitFor: seen,
    waitUntil: seen,
    inflate: seen,
    deflate: seen,
    startMigration: async () => {},
    finishMigration: async () => ({
      migration: { ...migration, status, total_ms: 600_400 },
      hints,
      memory,
      lock,
      guest,
      lost: [],
      error_desc: null,
      limit_bytes: null,
    }),
    console: async (line: string) => play.failures?.[line] ?? null,
    verify: async () => problems,
    status: seen,
    finish: async () => ({ event_log_sha256: '', peak_rss_bytes: { guest: 1, host: 1 } }),
    [Symbol.asyncDispose]: async () => {},
  };
  return machine as unknown as Machine;
}

async function run(text: string, machine: Played = {}) {
  const scenario = await parseScenario('x.yaml', text);
  const runs = await runScenario(scenario, { launcher: async () => played(machine) });
  const first = runs[0];
  if (!first) throw new Error('expected one run');
  return first;
}

describe('a run', () => {
  test('fails when the driver broke a rule of the device, whoever asked', async () => {
    const broken = await run('steps: [boot]', { violations: 2 });
    expect([isGood(broken), broken.expectations]).toEqual([
      false,
      [{ figure: 'protocol_violations', expected: '0', found: 2, holds: false }],
    ]);
    expect(isGood(await run('steps: [boot]'))).toBe(true);
  });

  test('does not fail for violations that the plant makes', async () => {
    const planted = await run('steps: [boot]\nplant: { accept_late_hints: true }', {
      violations: 2,
    });
    expect([isGood(planted), planted.expectations]).toEqual([true, []]);
  });

  test('fails when verify finds something', async () => {
    const problems = ['zone DMA: a page is on two lists'];
    const bad = await run('steps: [boot, verify]', { problems });
    expect([isGood(bad), bad.audit_problems]).toEqual([false, problems]);
  });

  test('is audited at its end although no step asks for it', async () => {
    const unasked = await run('steps: [boot]', { problems: ['pfn 7 has two owners'] });
    expect([isGood(unasked), unasked.audit_problems]).toEqual([false, ['pfn 7 has two owners']]);
  });

  test('ends with the first step that fails, and says which one it was', async () => {
    const text = 'steps:\n  - boot\n  - exit: vm\n  - exit: other\n  - expect: { pgfree: 1 }\n';
    const failures = { 'exit name=vm': 'no such process', 'exit name=other': 'not reached' };
    const failed = await run(text, { failures });
    expect([isGood(failed), failed.failed_steps, failed.expectations]).toEqual([
      false,
      [{ where: 'x.yaml:3', line: 'exit name=vm', reason: 'no such process' }],
      [],
    ]);
  });

  test('has the counters of /proc/vmstat, and what the console has got', async () => {
    const counters = {
      'guest.pgfree': 7,
      'guest.console_done': 3,
      'guest.alloc_attempts_order9': 8,
      'guest.alloc_success_order9': 6,
    };
    const { vmstat, mm, expectations } = await run(
      'steps: [boot, expect: { pgfree: 7, alloc_success_rate_order9: 0.75 }]',
      { counters },
    );
    expect(vmstat).toEqual({ pgfree: 7 });
    expect(mm).toEqual({
      alloc_attempts_order9: 8,
      alloc_success_order9: 6,
      alloc_success_rate_order9: 0.75,
    });
    expect(expectations.map(({ holds }) => holds)).toEqual([true, true]);
  });

  test('says of a cancelled migration that nothing of it was verified', async () => {
    const cancelled = await run('steps: [boot, migrate]', { status: 'cancelled' });
    expect(cancelled.notes).toEqual([
      'migration cancelled after 600 s: no page of it was verified',
    ]);
    expect((await run('steps: [boot, migrate]')).notes).toEqual([]);
  });
});

test('every variant runs under every strategy, and knows its own name', async () => {
  const text = 'strategies: [none, oracle]\nvariants: [{ name: a }, { name: b }]\nsteps: [boot]';
  const runs = await runScenario(await parseScenario('x.yaml', text), {
    launcher: async () => played({}),
    jobs: 2,
  });
  expect(runs.map(({ variant, strategy }) => `${variant} ${strategy}`)).toEqual([
    'a none',
    'a oracle',
    'b none',
    'b oracle',
  ]);
});

describe('measured figures', () => {
  const replayed = 'boot, workload: recording, wait: { until: migrate_at }';
  test.each([
    ['beside the migration that was measured', `[${replayed}, migrate]`, '', true],
    ['not beside the second of two', `[${replayed}, migrate, migrate]`, '', false],
    [
      'not beside one at another moment',
      '[boot, workload: recording, wait: 1s, migrate]',
      '',
      false,
    ],
    [
      'not beside one of a balloon',
      `[boot, inflate: 4MiB, ${replayed.slice(6)}, migrate]`,
      '',
      false,
    ],
    ['not beside another kernel', `[${replayed}, migrate]`, 'mm: { page_poison: true }', false],
    ['not beside another link', `[${replayed}, migrate: { bandwidth: 1GiB/s }]`, '', false],
  ])('stand %s', async (_where, steps, more, stands) => {
    const text = `recording: idle-1g\nstrategies: [none]\nsteps: ${steps}\n${more}\n`;
    const { measured, error } = await run(text);
    expect([measured !== null, error !== null]).toEqual([stands, stands]);
  });
});
