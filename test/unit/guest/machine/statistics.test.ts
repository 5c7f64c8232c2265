/** What the guest counts has the names that results and scenarios know. */
import { expect, test } from 'vitest';
import { MM_COUNTERS, VMSTAT_NAMES } from '../../../../protocol/vmstat.ts';
import { inProcess } from '../../../support/in-process.ts';

/** Counters of allocations and of orders appear with the first one. */
const LAZY = /_order\d+$/;
/** No counters of Linux: for debugging alone. */
const OWN = ['kswapd_wakeups', 'alloc_failures'];

test('every counter that results show is counted, and none of mm is left out', async () => {
  const { guest, hypervisor } = await inProcess();
  await hypervisor.runUntil(1e8);
  const counters = guest.statistics();
  const missing = [...VMSTAT_NAMES, ...MM_COUNTERS].filter(
    (name) => !LAZY.test(name) && counters[name] === undefined,
  );
  expect(missing).toEqual([]);
  const known = new Set<string>([...VMSTAT_NAMES, ...OWN]);
  expect(Object.keys(guest.system.mm.vmstat).filter((name) => !known.has(name))).toEqual([]);
});
