/** A balloon over fragmented memory: huge pages with and without CONFIG_BALLOON_COMPACTION. */
import { expect, test } from 'vitest';
import { complaintsOf, runsByVariant } from '../support/scenario-runs.ts';

test('huge pages can be had again only if pages of the balloon are movable', async () => {
  const { off, on } = await runsByVariant('balloon-compaction');
  if (!off || !on) throw new Error('expected two variants');
  expect([off, on].flatMap(complaintsOf)).toEqual([]);
  const rate = (run: typeof off) => run.mm['alloc_success_rate_order9'] ?? 0;
  expect(rate(on) - rate(off)).toBeGreaterThan(0.5);
  expect(off.vmstat['balloon_migrate']).toBe(0);
  // Every page that moved is a balloon page, and each was told to the host.
  expect(on.vmstat['balloon_migrate']).toBe(on.vmstat['pgmigrate_success']);
  expect(on.balloon).toEqual({ actual_pages: 0, protocol_violations: 0 });
});
