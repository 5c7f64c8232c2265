/** What a campaign prints: cases by kind, label and outcome, and a failure with how to repeat it. */
import Table from 'cli-table3';
import { OUTCOMES } from './case.ts';
import { KINDS } from './kinds.ts';
import type { Done, FuzzRequest, Repeated, TallyRows } from './request.ts';

const numbers = new Intl.NumberFormat('en-US');

export function renderDone(request: FuzzRequest, done: Done, details: boolean): string {
  const perSecond = done.ms > 0 ? Math.round((1000 * done.cases) / done.ms) : 0;
  const lines = [
    `${request.direction}, seed ${request.seed}: ${numbers.format(done.cases)} cases, ${numbers.format(perSecond)}/s`,
    renderTally(done.tally, details),
  ];
  if (done.heapGrowthBytes !== null) {
    const mib = (done.heapGrowthBytes / 2 ** 20).toFixed(1);
    lines.push(
      `heap after all cases against after a fifth of them: ${mib.startsWith('-') ? '' : '+'}${mib} MiB`,
    );
  }
  return lines.join('\n');
}

function renderTally(tally: TallyRows, details: boolean): string {
  const table = new Table({
    head: ['kind', ...(details ? ['what was sent'] : []), 'cases', ...OUTCOMES],
    style: { head: [], border: [], compact: true },
    colAligns: [
      'left',
      ...(details ? (['left'] as const) : []),
      'right',
      ...OUTCOMES.map(() => 'right' as const),
    ],
  });
  for (const [kind, labels] of tally) {
    const total = OUTCOMES.map((outcome) =>
      labels.reduce((sum, [, counts]) => sum + counts[outcome], 0),
    );
    table.push(row(details ? [kind, ''] : [kind], total));
    if (!details) continue;
    for (const [label, counts] of [...labels].sort(([a], [b]) => (a < b ? -1 : 1))) {
      table.push(
        row(
          ['', label],
          OUTCOMES.map((outcome) => counts[outcome]),
        ),
      );
    }
  }
  return table.toString();
}

function row(names: readonly string[], counts: readonly number[]): string[] {
  const shown = [counts.reduce((sum, count) => sum + count, 0), ...counts];
  return [...names, ...shown.map((count) => (count === 0 ? '–' : numbers.format(count)))];
}

export function renderFailure(request: FuzzRequest, number: number, problem: string): string {
  return [
    `case ${number} failed: ${problem}`,
    'repeat it, and see it made smaller:',
    `  ${repeatCommand(request, number)}`,
  ].join('\n');
}

function repeatCommand({ direction, kinds, seed }: FuzzRequest, number: number): string {
  const only = kinds.length > 0 ? ` --kind ${kinds.join(',')}` : '';
  return `npm run fuzz -- --direction ${direction} --seed ${seed}${only} --case ${number}`;
}

export function renderRepeated(repeated: Repeated): string {
  const { failure, kindName, before } = repeated;
  const where = `${kindName}, after ${before} other cases on the same machine`;
  if (failure === null) return `${where}: ended as it must`;
  return [
    `${where}: ${failure.problem}`,
    `Smallest of ${failure.attempts} attempts: ${failure.tapes.length} cases on the machine, decisions`,
    ...failure.tapes.map((tape) => `  ${tape.join(' ')}`),
    'What crossed the channel in the last of them:',
    ...failure.trace.map((line) => `  ${line}`),
  ].join('\n');
}

export function kindList(): string {
  return KINDS.map(
    ({ name, direction, about }) => `  ${name.padEnd(10)} ${direction}: ${about}`,
  ).join('\n');
}
