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
    migrate: async () => ({
      migration: { ...migration, status, total_ms: 600_400 },
      hints,
      memory,
      lock,
      guest,
      lost: [],
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

  test('says of a cancelled migration that nothing of it was verified', async () => {
    const cancelled = await run('steps: [boot, migrate]', { status: 'cancelled' });
    expect(cancelled.notes).toEqual([
      'migration cancelled after 600 s: no page of it was verified',
    ]);
    expect((await run('steps: [boot, migrate]')).notes).toEqual([]);
  });
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
