/** Scenarios that drive the guest's memory: each keeps its expectations, whoever runs it. */
import { expect, test } from 'vitest';
import { complaintsOf, runsByVariant } from '../support/scenario-runs.ts';

test.each([
  ['alloc-contig', 2],
  ['device-profiles', 6],
  ['firecracker-hinting', 1],
  ['memory-pressure', 2],
  ['page-cache', 1],
  ['movable-generations', 2],
  ['page-tables', 2],
  ['soft-offline', 2],
  ['zspool', 2],
])('%s keeps what it expects in each of its %d variants', async (name, variants) => {
  const runs = Object.values(await runsByVariant(name));
  expect(runs.flatMap(complaintsOf)).toEqual([]);
  expect(runs.length).toBe(variants);
  for (const run of runs) expect(run.expectations.length).toBeGreaterThan(1);
});

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
