/** Printed at the end of a run against peers: the suite on each device, side by side. */
import Table from 'cli-table3';
import { TRAITS } from '../../peers/device-traits.ts';
import { openResults, takeResults } from './results.ts';

/** Vitest calls these around all test files of a run. */
export function setup(): void {
  openResults();
}

export function teardown(): void {
  const results = takeResults();
  if (results.length === 0) return;
  const table = new Table({
    head: ['device', 'tests', 'passed', 'failed'],
    style: { head: [], border: [] },
  });
  for (const { device, passed, failed } of results) {
    table.push([device, passed.length + failed.length, passed.length, failed.length]);
  }
  const [first, ...others] = results;
  const onAll = first!.passed.filter((title) =>
    others.every(({ passed }) => passed.includes(title)),
  );
  process.stdout.write(
    `\nConformance\n${table.toString()}\n` +
      `${onAll.length} tests passed on all of them; ${Object.keys(TRAITS).length} listed differences\n\n`,
  );
}
