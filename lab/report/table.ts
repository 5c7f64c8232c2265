import Table from 'cli-table3';
import { MIB } from '../../shared/index.ts';
import { mean } from '../runner/comparison.ts';
import type { ErrorKey, Result, Run } from '../runner/result.ts';

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
      'efficiency',
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
    ];
    table.push([paint.bold(run.strategy), ...times, ...pages, ...rest]);
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
  ];
}

function hintTable(runs: readonly Run[], paint: Paint): string {
  const migrated = runs.filter((run) => run.hints && run.memory);
  if (migrated.length === 0) return '';
  const table = newTable(
    [
      'hints',
      'blocks',
      'pages',
      'recall',
      'precise',
      'at use',
      'stale',
      'late',
      'wasted',
      'lost',
      'lock max',
      'held',
    ],
    paint,
  );
  for (const { strategy, hints, memory, lock, guest } of migrated) {
    if (!hints || !memory) continue;
    const lost = memory.lost_pages === 0 ? '0' : paint.red(number(memory.lost_pages));
    const ratios = [
      ratio(hints.recall),
      ratio(hints.precision_at_record),
      ratio(hints.precision_at_use),
    ];
    const misses = [
      number(hints.stale_pages),
      number(hints.late_pages),
      number(memory.wasted_pages),
      lost,
    ];
    const cost = [lock ? microseconds(lock.max_hold_ns) : '', number(guest?.held_pages_max ?? 0)];
    table.push([
      paint.bold(strategy),
      number(hints.blocks),
      number(hints.pages),
      ...ratios,
      ...misses,
      ...cost,
    ]);
  }
  return table.toString();
}

/** What holds is a count; what does not is told in full. */
function verdicts(runs: readonly Run[], paint: Paint): string[] {
  const lines: string[] = [];
  for (const run of runs) {
    for (const { figure, expected, found, holds } of run.expectations) {
      if (holds) continue;
      const text = `${run.strategy}: ${figure} expected ${expected}, found ${found ?? 'none'}`;
      lines.push(paint.red(`FAILED  ${text}`));
    }
    for (const note of run.notes) lines.push(paint.yellow(`NOTE    ${run.strategy}: ${note}`));
    for (const problem of run.audit_problems) {
      lines.push(paint.red(`AUDIT   ${run.strategy}: ${problem}`));
    }
    for (const page of run.lost.slice(0, LOST_PAGES_SHOWN)) {
      lines.push(paint.red(`LOST    ${run.strategy}: pfn ${page.pfn}`));
      lines.push(...page.history.map((line) => `        ${line}`));
    }
    const more = (run.memory?.lost_pages ?? 0) - LOST_PAGES_SHOWN;
    const told = number(run.lost.length);
    if (more > 0) {
      lines.push(
        paint.red(`LOST    ${run.strategy}: ${number(more)} more; --json tells of ${told} in all`),
      );
    }
  }
  const checks = runs.flatMap((run) => run.expectations);
  const held = checks.filter(({ holds }) => holds).length;
  if (checks.length > 0) lines.push(`${held} of ${checks.length} expectations hold`);
  return lines;
}

function newTable(head: string[], paint: Paint): InstanceType<typeof Table> {
  return new Table({
    head: head.map((title) => paint.dim(title)),
    colAligns: head.map((_, i) => (i === 0 ? 'left' : 'right')),
    style: { head: [], border: [], compact: true },
  });
}

function number(value: number): string {
  return Math.round(value).toLocaleString('en-US');
}

function mib(bytes: number): string {
  return (bytes / MIB).toFixed(1);
}

function ratio(value: number | null): string {
  return value === null ? '–' : value.toFixed(3);
}

function microseconds(ns: number): string {
  return `${(ns / 1000).toFixed(1)} µs`;
}

interface Paint {
  bold(text: string): string;
  dim(text: string): string;
  red(text: string): string;
  yellow(text: string): string;
}

function painter(color: boolean): Paint {
  const wrap = (code: number) => (text: string) =>
    color ? `\u001b[${code}m${text}\u001b[0m` : text;
  return { bold: wrap(1), dim: wrap(2), red: wrap(31), yellow: wrap(33) };
}
