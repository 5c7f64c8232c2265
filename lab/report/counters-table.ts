import { NS_PER_MS } from '../../shared/index.ts';
import { labelOf } from '../runner/label.ts';
import type { Run } from '../runner/result.ts';
import { newTable, number, type Paint } from './format.ts';

/**
 * Memory management and the device: one counter a line, one run a column. Shown are those that somebody expects
 * something of; without migrations also those that differ between runs, or that are not 0 in the
 * only one.
 */
export function countersTable(runs: readonly Run[], paint: Paint): string {
  const names = namesOf(runs);
  if (names.length === 0) return '';
  const table = newTable(['counter', ...runs.map((run) => paint.bold(labelOf(run)))], paint);
  for (const name of names) {
    table.push([name, ...runs.map((run) => cell(name, figureIn(run, name)))]);
  }
  return table.toString();
}

/** In the order in which results have them: the kernel's counters, then the others, then the device's. */
function namesOf(runs: readonly Run[]): string[] {
  const all = new Set(runs.flatMap((run) => [run.vmstat, run.mm, run.device].flatMap(Object.keys)));
  const expected = new Set(
    runs.flatMap((run) => run.expectations.map(({ figure }) => figure.split(' ')[0])),
  );
  const migrates = runs.some((run) => run.migration !== null);
  return [...all].filter((name) => {
    if (expected.has(name)) return true;
    const values = new Set(runs.map((run) => figureIn(run, name)));
    return !migrates && (runs.length === 1 ? !values.has(0) : values.size > 1);
  });
}

function figureIn(run: Run, name: string): number | undefined {
  return run.vmstat[name] ?? run.mm[name] ?? run.device[name];
}

function cell(name: string, value: number | undefined): string {
  if (value === undefined) return '–';
  if (name.endsWith('_ns')) return `${number(value / NS_PER_MS)} ms`;
  return Number.isInteger(value) ? number(value) : value.toFixed(3);
}
