import type { FigureBound } from '../scenario/scenario.ts';
import type { Bound, FigureName } from '../scenario/schema.ts';
import type { Run } from './result.ts';

/** `expect` steps: figures by name, and whether they keep their bounds. */

/** A step's bounds with what the balloon was at that moment; figures of comparison come later. */
export interface PendingCheck {
  readonly bounds: readonly FigureBound[];
  readonly at: Readonly<Partial<Record<FigureName, number>>>;
}

/** Value of a figure in a finished run; null: the run has none. */
export function figureOf(run: Run, name: FigureName): number | null {
  if (name.endsWith('_error')) {
    const errors: Readonly<Record<string, number | null>> = run.error ?? {};
    return errors[name.slice(0, -'_error'.length)] ?? null;
  }
  if (name === 'efficiency') return run.efficiency;
  if (name === 'audit_problems') return run.audit_problems.length;
  if (name === 'hinted_pages') return run.hints?.pages ?? null;
  for (const group of [run.migration, run.hints, run.memory, run.lock, run.guest, run.balloon]) {
    const value = group && Object.hasOwn(group, name) ? group[name as keyof typeof group] : null;
    if (typeof value === 'number') return value;
  }
  return null;
}

/** The checks of a run, in order. A figure that the run does not have keeps no bound. */
export function evaluate(run: Run, checks: readonly PendingCheck[]): Run['expectations'] {
  return checks.flatMap(({ bounds, at }) =>
    bounds.map(({ figure, bound }) => {
      const found = at[figure] ?? figureOf(run, figure);
      return {
        figure,
        expected: boundText(bound),
        found,
        holds: found !== null && holds(found, bound),
      };
    }),
  );
}

/** True when nothing failed: no lost page, no problem found by an audit, every expectation holds. */
export function isGood(run: Run): boolean {
  return (
    (run.memory?.lost_pages ?? 0) === 0 &&
    run.audit_problems.length === 0 &&
    run.expectations.every(({ holds }) => holds)
  );
}

function holds(value: number, bound: Bound): boolean {
  if (bound.equal !== undefined && value !== bound.equal) return false;
  if (bound.at_least !== undefined && value < bound.at_least) return false;
  if (bound.at_most !== undefined && value > bound.at_most) return false;
  return bound.within === undefined || Math.abs(value) <= bound.within;
}

function boundText(bound: Bound): string {
  const parts: string[] = [];
  if (bound.equal !== undefined) parts.push(`${bound.equal}`);
  if (bound.at_least !== undefined) parts.push(`at least ${bound.at_least}`);
  if (bound.at_most !== undefined) parts.push(`at most ${bound.at_most}`);
  if (bound.within !== undefined) parts.push(`within ±${bound.within}`);
  return parts.join(' and ');
}
