/** The figures as a table that is read at a glance. */
import Table from 'cli-table3';
import type { Summary, Target } from './figure.ts';

export function renderTable(summaries: readonly Summary[]): string {
  const table = new Table({
    head: ['figure', 'median', 'min – max', 'reference', 'ratio', 'target', 'met'],
    style: { head: [], border: [], compact: true },
    colAligns: ['left', 'right', 'right', 'left', 'right', 'left', 'left'],
  });
  let bench = '';
  for (const summary of summaries) {
    if (summary.bench !== bench) {
      bench = summary.bench;
      table.push([{ colSpan: 7, content: bench.toUpperCase() }]);
    }
    const { reference, unit } = summary;
    table.push([
      `  ${summary.name}`,
      `${digits(summary.median)} ${unit}`,
      `${digits(summary.min)} – ${digits(summary.max)}`,
      reference ? `${reference.name} ${digits(reference.median)} ${unit}` : '',
      summary.ratio === null ? '' : digits(summary.ratio),
      targetText(summary.target, unit),
      summary.met === null ? '' : summary.met ? 'yes' : 'NO',
    ]);
  }
  return table.toString();
}

function targetText(target: Target | null, unit: string): string {
  if (!target) return '';
  const bound =
    target.atLeast === undefined
      ? `≤ ${digits(target.atMost ?? 0)}`
      : `≥ ${digits(target.atLeast)}`;
  return target.of === 'ratio' ? `ratio ${bound}` : `${bound} ${unit}`;
}

/** Three significant digits. */
function digits(value: number): string {
  if (!Number.isFinite(value)) return '–';
  if (Math.abs(value) >= 100) return Math.round(value).toLocaleString('en-US');
  return Number(value.toPrecision(3)).toString();
}
