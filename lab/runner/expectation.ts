import type { FigureName } from '../scenario/figures.ts';
import type { FigureBound, FigureFactor } from '../scenario/scenario.ts';
import type { Bound, FactorBound } from '../scenario/schema.ts';
import type { Run } from './result.ts';

/** `expect` and `compare` steps: figures by name, and whether they keep their bounds. */

/** Counters of guest and balloon at the moment of a step. */
export type Moment = Readonly<Record<string, number>>;

/** A step's bounds with the counters of that moment; figures of migrations come later. */
export interface PendingCheck {
  readonly bounds: readonly FigureBound[];
  readonly at: Moment;
}

/** A step that compares: one of each run, so that the n-th of one run belongs to the n-th of another. */
export interface PendingComparison {
  readonly to: string;
  readonly bounds: readonly FigureFactor[];
  readonly at: Moment;
  /** False: the step is not for this run, which may still be what others are compared with. */
  readonly applies: boolean;
}

/** Value of a figure in a finished run; null: the run has none. */
export function figureOf(run: Run, name: FigureName): number | null {
  if (name.endsWith('_error')) {
    const errors: Readonly<Record<string, number | null>> = run.error ?? {};
    return errors[name.slice(0, -'_error'.length)] ?? null;
  }
  if (name === 'efficiency' || name === 'efficiency_of_limit') return run[name];
  if (name === 'audit_problems') return run.audit_problems.length;
  if (name === 'hinted_pages') return run.hints?.pages ?? null;
  const { migration, migrations, hints, memory, lock, guest, balloon, device, mm, vmstat } = run;
  for (const group of [
    migration,
    migrations,
    hints,
    memory,
    lock,
    guest,
    balloon,
    device,
    mm,
    vmstat,
  ]) {
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

/** A run with the comparisons that its steps left. */
export interface Compared {
  readonly run: Run;
  readonly comparisons: readonly PendingComparison[];
}

/**
 * The comparisons of one run with the runs of the same strategy. `found` is the factor; null: one
 * of the two has no such figure, or that of the other variant is 0 and this one's is not.
 */
export function evaluateComparisons(
  { run, comparisons }: Compared,
  all: readonly Compared[],
): Run['expectations'] {
  return comparisons.flatMap(({ to, bounds, at, applies }, index) => {
    const other = all.find((one) => one.run.variant === to && one.run.strategy === run.strategy);
    if (!applies || !other || other.run === run) return [];
    return bounds.map(({ figure, bound }) => {
      const mine = at[figure] ?? figureOf(run, figure);
      const theirs = other.comparisons[index]?.at[figure] ?? figureOf(other.run, figure);
      const found = factorOf(mine, theirs);
      return {
        figure: `${figure} ÷ ${to}`,
        expected: factorText(bound),
        found,
        holds: found !== null && keepsFactor(found, bound),
      };
    });
  });
}

function factorOf(mine: number | null, theirs: number | null): number | null {
  if (mine === null || theirs === null) return null;
  if (theirs === 0) return mine === 0 ? 1 : null;
  return mine / theirs;
}

/**
 * True when nothing failed: no step, no lost or broken page that no expectation has asked for,
 * nothing found by an audit, no expectation.
 */
export function isGood(run: Run): boolean {
  const { lost_pages: lost = 0, broken_free_pages: broken = 0 } = run.memory ?? {};
  return (
    (lost === 0 || isExpected(run, 'lost_pages')) &&
    (broken === 0 || isExpected(run, 'broken_free_pages')) &&
    run.audit_problems.length === 0 &&
    run.failed_steps.length === 0 &&
    run.expectations.every(({ holds }) => holds)
  );
}

/** A scenario that shows a loss says so: an expectation of that figure holds. */
function isExpected(run: Run, name: FigureName): boolean {
  return run.expectations.some(({ figure, holds: isHeld }) => figure === name && isHeld);
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

function keepsFactor(found: number, bound: FactorBound): boolean {
  if (bound.factor_at_least !== undefined && found < bound.factor_at_least) return false;
  return bound.factor_at_most === undefined || found <= bound.factor_at_most;
}

function factorText({ factor_at_least, factor_at_most }: FactorBound): string {
  const parts: string[] = [];
  if (factor_at_least !== undefined) parts.push(`factor at least ${factor_at_least}`);
  if (factor_at_most !== undefined) parts.push(`factor at most ${factor_at_most}`);
  return parts.join(' and ');
}
