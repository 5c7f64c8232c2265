import type { HostStatus } from '../../protocol/control.ts';
import { MAX_ORDER, MM_COUNTERS, VMSTAT_NAMES } from '../../protocol/vmstat.ts';
import { DEVICE_FIGURES } from '../scenario/figures.ts';

/** Counters in a run's result: the guest's memory management and the device, by the names of results. */

/** The device's. */
export function deviceFiguresOf(status: HostStatus): Record<string, number> {
  return pick(status, DEVICE_FIGURES, 'device');
}

/** The counters that have the names of /proc/vmstat. */
export function vmstatOf(status: HostStatus): Record<string, number> {
  return pick(status, VMSTAT_NAMES, 'guest');
}

/** The others, of allocations only the orders that were asked for, and what follows from them. */
export function mmFiguresOf(status: HostStatus): Record<string, number> {
  const figures = pick(status, MM_COUNTERS, 'guest');
  for (let order = 0; order <= MAX_ORDER; order++) {
    const attempts = figures[`alloc_attempts_order${order}`];
    const success = figures[`alloc_success_order${order}`];
    if (attempts === undefined || success === undefined) continue;
    figures[`alloc_success_rate_order${order}`] = success / attempts;
  }
  return figures;
}

function pick(
  { counters }: HostStatus,
  names: readonly string[],
  of: 'guest' | 'device',
): Record<string, number> {
  const found: Record<string, number> = {};
  for (const name of names) {
    const value = counters[`${of}.${name}`];
    if (value !== undefined) found[name] = value;
  }
  return found;
}
