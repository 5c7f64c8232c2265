import { NS_PER_MS } from '../../shared/index.ts';
import { labelOf } from '../runner/label.ts';
import type { Run } from '../runner/result.ts';
import { newTable, number, type Paint } from './format.ts';

/**
 * Memory management, for runs that do not migrate: one counter a line, one run a column. Shown are
 * those that somebody expects something of and those that differ between runs; of a single run all
 * that are not 0.
 */
export function countersTable(runs: readonly Run[], paint: Paint): string {
  const shown = runs.filter((run) => run.migration === null);
  const names = namesOf(shown);
  if (names.length === 0) return '';
  const table = newTable(['counter', ...shown.map((run) => paint.bold(labelOf(run)))], paint);
  for (const name of names) {
    table.push([name, ...shown.map((run) => cell(name, figureIn(run, name)))]);
  }
  return table.toString();
}

/** In the order in which results have them: the kernel's counters, then the others. */
function namesOf(runs: readonly Run[]): string[] {
  const all = new Set(runs.flatMap((run) => [...Object.keys(run.vmstat), ...Object.keys(run.mm)]));
  const expected = new Set(
    runs.flatMap((run) => run.expectations.map(({ figure }) => figure.split(' ')[0])),
  );
  return [...all].filter((name) => {
    const values = new Set(runs.map((run) => figureIn(run, name)));
    return expected.has(name) || (runs.length === 1 ? !values.has(0) : values.size > 1);
  });
}

function figureIn(run: Run, name: string): number | undefined {
  return run.vmstat[name] ?? run.mm[name];
}

function cell(name: string, value: number | undefined): string {
  if (value === undefined) return '–';
  if (name.endsWith('_ns')) return `${number(value / NS_PER_MS)} ms`;
  return Number.isInteger(value) ? number(value) : value.toFixed(3);
}
