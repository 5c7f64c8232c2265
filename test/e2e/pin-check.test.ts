/** Pages pinned by VFIO: what each way to recognise them costs compaction. */
import { expect, test } from 'vitest';
import { complaintsOf, runsByVariant } from '../support/scenario-runs.ts';

test('without a check of shared memory compaction isolates every pinned page in vain', async () => {
  const { anonymous, extra_refs, maybe_dma_pinned } = await runsByVariant('pin-check');
  if (!anonymous || !extra_refs || !maybe_dma_pinned) throw new Error('expected three variants');
  expect([anonymous, extra_refs, maybe_dma_pinned].flatMap(complaintsOf)).toEqual([]);
  const cpuNs = (run: typeof anonymous) => run.mm['compaction_cpu_ns'] ?? 0;
  for (const checked of [extra_refs, maybe_dma_pinned]) {
    const { compact_isolated: isolated = 0, pgmigrate_fail: failed = 0 } = checked.vmstat;
    expect((anonymous.vmstat['compact_isolated'] ?? 0) / isolated).toBeGreaterThanOrEqual(100);
    expect((anonymous.vmstat['pgmigrate_fail'] ?? 0) / Math.max(1, failed)).toBeGreaterThan(1000);
    expect(cpuNs(anonymous) / cpuNs(checked)).toBeGreaterThanOrEqual(10);
    // What can be moved is moved, where the pinned pages do not use up the scanners' meeting.
    const moved = anonymous.vmstat['pgmigrate_success'] ?? 0;
    expect(checked.vmstat['pgmigrate_success']).toBeGreaterThan(moved);
  }
});
