/** Scenarios that drive the guest's memory: each keeps its expectations, whoever runs it. */
import { describe, expect, test } from 'vitest';
import { complaintsOf, runsByVariant } from '../support/scenario-runs.ts';

describe.each(['alloc-contig', 'movable-generations', 'page-tables', 'soft-offline', 'zspool'])(
  '%s',
  (name) => {
    test('keeps what it expects in both generations of movable pages', async () => {
      const { list, pfn } = await runsByVariant(name);
      if (!list || !pfn) throw new Error('expected two variants');
      expect([list, pfn].flatMap(complaintsOf)).toEqual([]);
      expect(list.expectations.length).toBeGreaterThan(0);
    });
  },
);

test('a line that the guest cannot do ends the run with its step', async () => {
  const { none } = await runsByVariant('balloon-inflate', ['steps=[boot, {exit: vm}, {exit: no}]']);
  expect(none?.failed_steps).toMatchObject([
    { line: 'exit name=vm', reason: 'there is no process vm' },
  ]);
});

test('the same scenario gives the same event log, one run at a time or two', async () => {
  const digests = async () =>
    Object.values(await runsByVariant('page-tables')).map((run) => run.event_log_sha256);
  const first = await digests();
  expect(await digests()).toEqual(first);
  expect(new Set(first).size).toBe(1);
});
