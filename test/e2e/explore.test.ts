/** `ballast explore` as a person types it. */
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { PLANT_NAMES } from '../../shared/index.ts';

const bin = fileURLToPath(new URL('../../bin/ballast.mjs', import.meta.url));

interface Outcome {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

function ballast(...args: string[]): Promise<Outcome> {
  return new Promise((resolve) => {
    const child = execFile(process.execPath, [bin, ...args], (_error, stdout, stderr) => {
      resolve({ status: child.exitCode ?? -1, stdout, stderr });
    });
  });
}

/** What does not depend on how many schedules ran besides, or before. */
function violationOf({ stdout }: Outcome): string {
  return stdout.replace(/^[\d,]+ schedules?, .*$/m, '');
}

test('lists the planted bugs, one a line', async () => {
  const { status, stdout } = await ballast('explore', '--list-plants');
  expect(status).toBe(0);
  expect(stdout).toBe(`${PLANT_NAMES.join('\n')}\n`);
});

test('finds nothing where nothing is planted: status 0', async () => {
  const { status, stdout } = await ballast('explore', 'isolate', '--seeds', '300');
  expect(status).toBe(0);
  expect(stdout).toMatch(/^300 schedules, no violation \([\d,]+\/s, \d+ steps each\)\n$/);
});

test('finds a planted bug, whatever the number of processes, and its command repeats it: status 1', async () => {
  const plant = ['explore', '--plant', 'dirty-log-cleared-at-hint', '--seeds', '2000'];
  plant.push('--set', 'generation=pfn');
  const [one, two] = await Promise.all([
    ballast(...plant, '--jobs', '1'),
    ballast(...plant, '--jobs', '2'),
  ]);
  expect(one.status).toBe(1);
  expect(one.stdout).toContain('violation: no page is lost\n');
  expect(violationOf(two)).toBe(violationOf(one));
  const command = /^repeat: ballast (.+)$/m.exec(one.stdout)?.[1] ?? '';
  const again = await ballast(...command.split(' '));
  expect(again.status).toBe(1);
  expect(violationOf(again)).toBe(violationOf(one));
});

test.each([
  [['--plant', 'nothing'], 'Expected one of hwpoison-on-failure,'],
  [['no-such-scenario'], 'no-such-scenario: expected a scenario of the explorer'],
  [['--set', 'generation=old'], '--set generation=old: generation: expected one of list, pfn'],
  [['--seeds', 'many'], 'Expected a whole number above 0, found "many"'],
  [['--seed', '1', '--first-seed', '2'], '--seed and --first-seed are the same'],
  [['--first-seed', '4294967295'], 'expected seeds below 2^32'],
])('refuses %j in one line: status 2', async (args, message) => {
  const { status, stdout, stderr } = await ballast('explore', ...args);
  expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
  expect(stderr).toContain(message);
  expect(stderr.trim().split('\n')).toHaveLength(1);
});
