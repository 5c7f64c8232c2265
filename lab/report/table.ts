import { MIB } from '../../shared/index.ts';
import { mean } from '../runner/comparison.ts';
import { labelOf } from '../runner/label.ts';
import type { ErrorKey, Result, Run } from '../runner/result.ts';
import { countersTable } from './counters-table.ts';
import { newTable, number, type Paint, painter, ratio } from './format.ts';

/** Results as a person reads them: what it cost, beside what QEMU measured; then how good the hints were. */

export interface TableOptions {
  readonly color: boolean;
}

type Cell = string;
/** Errors beyond these are worth a look (what repeated measurements themselves differ by, and more). */
const LARGE_ERROR = 0.05;
/** All of them are in the JSON result. */
const LOST_PAGES_SHOWN = 3;

export function renderResult(result: Result, options: TableOptions): string {
  const paint = painter(options.color);
  const parts = [
    `${paint.bold(result.scenario)}  seed ${result.seed}  ballast ${result.ballast}`,
    migrationTable(result.runs, paint),
    hintTable(result.runs, paint),
    holdLine(result.runs, paint),
    ...throttleLines(result.runs, paint),
    countersTable(result.runs, paint),
    ...verdicts(result.runs, paint),
  ];
  return `${parts.filter((part) => part !== '').join('\n')}\n`;
}

function migrationTable(runs: readonly Run[], paint: Paint): string {
  const migrated = runs.filter((run) => run.migration);
  if (migrated.length === 0) return '';
  const table = newTable(
    [
      'migration',
      'total ms',
      'downtime',
      'normal',
      'duplicate',
      'MiB sent',
      'skipped',
      're-sent',
      'syncs',
      'oracle',
      'limit',
    ],
    paint,
  );
  for (const run of migrated) {
    const m = run.migration;
    if (!m) continue;
    const times = [number(m.total_ms), number(m.downtime_ms)];
    const pages = [number(m.normal_pages), number(m.duplicate_pages), mib(m.transferred_bytes)];
    const rest = [
      number(m.skipped_pages),
      number(m.resent_pages),
      number(m.dirty_sync_count),
      ratio(run.efficiency),
      ratio(run.efficiency_of_limit),
    ];
    table.push([paint.bold(labelOf(run)), ...times, ...pages, ...rest]);
    if (run.measured) table.push(measuredRow(run.measured), errorRow(run, paint));
  }
  return table.toString();
}

function measuredRow(measured: NonNullable<Run['measured']>): Cell[] {
  const average = (values: readonly number[], format = number) => {
    const value = mean(values);
    return value === null ? '' : format(value);
  };
  return [
    '  measured',
    average(measured.total_ms),
    average(measured.downtime_ms),
    average(measured.normal_pages),
    average(measured.duplicate_pages),
    average(measured.transferred_bytes, mib),
    '',
    '',
    average(measured.dirty_sync_count),
    '',
    '',
  ];
}

function errorRow(run: Run, paint: Paint): Cell[] {
  const percent = (key: ErrorKey): Cell => {
    const error = run.error?.[key] ?? null;
    if (error === null) return '';
    const text = `${error < 0 ? '−' : '+'}${Math.abs(error * 100).toFixed(1)} %`;
    return Math.abs(error) > LARGE_ERROR ? paint.yellow(text) : paint.dim(text);
  };
  const bytes = percent('transferred_bytes');
  return [
    '  error',
    percent('total_ms'),
    '',
    percent('normal_pages'),
    percent('duplicate_pages'),
    bytes,
    '',
    '',
    '',
    '',
    '',
  ];
}

function hintTable(runs: readonly Run[], paint: Paint): string {
  const migrated = runs.filter((run) => run.hints && run.memory);
  if (migrated.length === 0) return '';
  const table = newTable(
    [
      'hints',
      'pages',
      'recall',
      'precise',
      'at use',
      'useful',
      'late',
      'wasted',
      'lost',
      'broken',
      'lock max',
      'held',
    ],
    paint,
  );
  for (const run of migrated) {
    const { hints, memory, lock, guest } = run;
    if (!hints || !memory) continue;
    const lost = memory.lost_pages === 0 ? '0' : paint.red(number(memory.lost_pages));
    const ratios = [
      ratio(hints.recall),
      ratio(hints.precision_at_record),
      ratio(hints.precision_at_use),
      ratio(hints.useful_precision),
    ];
    const misses = [
      number(hints.late_pages),
      number(memory.wasted_pages),
      lost,
      memory.broken_free_pages === 0 ? '0' : paint.red(number(memory.broken_free_pages)),
    ];
    const cost = [lock ? microseconds(lock.max_hold_ns) : '', number(guest?.held_pages_max ?? 0)];
    table.push([paint.bold(labelOf(run)), number(hints.pages), ...ratios, ...misses, ...cost]);
  }
  return table.toString();
}

/** Under which dirty log the hints of strategies that do not hold their pages are safe. */
function holdLine(runs: readonly Run[], paint: Paint): string {
  const loose = runs.filter((run) => run.holds_pages === false && run.dirty_log !== null);
  const unsafe = loose.filter((run) => run.dirty_log === 'kvm-bitmap');
  const names = (some: readonly Run[]): string => [...new Set(some.map(labelOf))].join(', ');
  if (unsafe.length > 0) {
    return paint.yellow(
      `not safe: ${names(unsafe)} with kvm-bitmap, where a hint can undo a write; ballast run hint-race shows it`,
    );
  }
  if (loose.length === 0) return '';
  const logs = [...new Set(loose.map((run) => run.dirty_log))].join(', ');
  return paint.dim(`${names(loose)}: pages are not held; safe with this dirty log (${logs})`);
}

/** What its convergence has cost each guest that was slowed. */
function throttleLines(runs: readonly Run[], paint: Paint): string[] {
  return runs.flatMap((run) => {
    const { throttle_percentage: percent = 0, stolen_cpu_ms: stolenMs = 0 } = run.migration ?? {};
    if (!run.migration || stolenMs === 0) return [];
    const how = percent > 0 ? `throttled to ${percent} %` : 'its writes limited';
    const [stolen, total] = [stolenMs, run.migration.total_ms].map((ms) => (ms / 1000).toFixed(1));
    return [paint.dim(`${labelOf(run)}: ${how}, ${stolen} s of ${total} s taken from each vCPU`)];
  });
}

/** What holds is a count; what does not is told in full. */
function verdicts(runs: readonly Run[], paint: Paint): string[] {
  const lines = runs.flatMap((run) => complaints(run, paint));
  const checks = runs.flatMap((run) => run.expectations);
  const held = checks.filter(({ holds }) => holds).length;
  if (checks.length > 0) lines.push(`${held} of ${checks.length} expectations hold`);
  return lines;
}

function complaints(run: Run, paint: Paint): string[] {
  const label = labelOf(run);
  const lines: string[] = [];
  for (const { where, line, reason } of run.failed_steps) {
    lines.push(paint.red(`FAILED  ${label}: ${where}: ${line}: ${reason}`));
  }
  for (const { figure, expected, found, holds } of run.expectations) {
    if (holds) continue;
    const text = `${label}: ${figure} expected ${expected}, found ${found ?? 'none'}`;
    lines.push(paint.red(`FAILED  ${text}`));
  }
  for (const note of run.notes) lines.push(paint.yellow(`NOTE    ${label}: ${note}`));
  for (const problem of run.audit_problems) {
    lines.push(paint.red(`AUDIT   ${label}: ${problem}`));
  }
  for (const page of run.lost.slice(0, LOST_PAGES_SHOWN)) {
    lines.push(paint.red(`LOST    ${label}: pfn ${page.pfn}`));
    lines.push(...page.history.map((line) => `        ${line}`));
  }
  const { lost_pages: lost = 0, broken_free_pages: broken = 0 } = run.memory ?? {};
  const more = lost + broken - LOST_PAGES_SHOWN;
  const told = number(run.lost.length);
  if (more > 0) {
    lines.push(paint.red(`LOST    ${label}: ${number(more)} more; --json tells of ${told} in all`));
  }
  return lines;
}

function mib(bytes: number): string {
  return (bytes / MIB).toFixed(1);
}

function microseconds(ns: number): string {
  return `${(ns / 1000).toFixed(1)} µs`;
}
