import type { StrategyName } from '../../protocol/control.ts';
import type { MeasuredRun } from '../recording/facts.ts';
import { ERROR_KEYS, MEASURED_KEYS, type Run } from './result.ts';

/** Figures that one run alone does not have: measured, error and efficiency. Pure arithmetic. */

/** Which measured runs a strategy predicts: QEMU ran without hints, or with Linux's allocation. */
function measuredHint(strategy: StrategyName): boolean | null {
  if (strategy === 'none') return false;
  return strategy === 'alloc' ? true : null;
}

/** Arrays of what was measured under `strategy`; null when nobody measured that. */
export function measuredOf(strategy: StrategyName, runs: readonly MeasuredRun[]): Run['measured'] {
  const hint = measuredHint(strategy);
  const matching = runs.filter((run) => run.freePageHint === hint);
  if (matching.length === 0) return null;
  const arrays: Record<string, unknown[]> = {};
  for (const key of MEASURED_KEYS) {
    arrays[key] = matching
      .map((run) => run.figures[key])
      .filter((value) => typeof value === (key === 'status' ? 'string' : 'number'));
  }
  return arrays as Run['measured'];
}

/** (predicted − mean measured) ÷ mean measured, each null when it has no measurement. */
export function errorOf(migration: Run['migration'], measured: Run['measured']): Run['error'] {
  if (!migration || !measured) return null;
  const entries = ERROR_KEYS.map((key) => {
    const average = mean(measured[key]);
    return [key, average ? (migration[key] - average) / average : null] as const;
  });
  return Object.fromEntries(entries) as Run['error'];
}

/**
 * Sets each run's efficiency: its saving in bytes as a share of the oracle's, which is a reference
 * and no limit; and as a share of what a clairvoyant could have saved, which no run can exceed.
 */
export function withEfficiency(runs: readonly Run[]): Run[] {
  return runs.map((run) => {
    const bytesOf = (name: string) =>
      runs.find((other) => other.strategy === name && other.variant === run.variant)?.migration
        ?.transferred_bytes;
    const none = bytesOf('none');
    const oracle = bytesOf('oracle');
    const possible = none !== undefined && oracle !== undefined ? none - oracle : 0;
    const saved =
      none !== undefined && run.migration ? none - run.migration.transferred_bytes : null;
    const { lost_pages: lost = 0, broken_free_pages: broken = 0 } = run.memory ?? {};
    // Whoever leaves out what is needed is no measure.
    const isWhole = lost + broken === 0 && run.limit_bytes !== null;
    const spare = none !== undefined && isWhole ? none - (run.limit_bytes ?? 0) : 0;
    return {
      ...run,
      efficiency: possible > 0 && saved !== null ? saved / possible : null,
      efficiency_of_limit: spare > 0 && saved !== null ? saved / spare : null,
    };
  });
}

export function mean(values: readonly number[]): number | null {
  return values.length === 0 ? null : values.reduce((sum, value) => sum + value, 0) / values.length;
}
