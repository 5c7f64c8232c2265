import type { HostStatus } from '../../protocol/control.ts';
import { MAX_ORDER, MM_COUNTERS, VMSTAT_NAMES } from '../../protocol/vmstat.ts';

/** Memory management in a run's result: the guest's counters by the names that results have. */

/** The counters that have the names of /proc/vmstat. */
export function vmstatOf(status: HostStatus): Record<string, number> {
  return pick(status, VMSTAT_NAMES);
}

/** The others, of allocations only the orders that were asked for, and what follows from them. */
export function mmFiguresOf(status: HostStatus): Record<string, number> {
  const figures = pick(status, MM_COUNTERS);
  for (let order = 0; order <= MAX_ORDER; order++) {
    const attempts = figures[`alloc_attempts_order${order}`];
    const success = figures[`alloc_success_order${order}`];
    if (attempts === undefined || success === undefined) continue;
    figures[`alloc_success_rate_order${order}`] = success / attempts;
  }
  return figures;
}

function pick({ counters }: HostStatus, names: readonly string[]): Record<string, number> {
  const found: Record<string, number> = {};
  for (const name of names) {
    const value = counters[`guest.${name}`];
    if (value !== undefined) found[name] = value;
  }
  return found;
}
