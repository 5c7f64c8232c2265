/** docs/races/ has a page for each planted bug, and each page can be repeated. */
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { PLANT_HOMES } from '../../../../lab/explore/homes.ts';
import { PLANT_NAMES } from '../../../../shared/index.ts';

const root = fileURLToPath(new URL('../../../../', import.meta.url));
const LINES_MAX = 60;

function read(path: string): string {
  return readFileSync(`${root}${path}`, 'utf8');
}

/** What the folder's files of this suffix are called without it, sorted. */
function namesIn(folder: string, suffix: string): string[] {
  const files = readdirSync(`${root}${folder}`).filter((file) => file.endsWith(suffix));
  return files.map((file) => file.slice(0, -suffix.length)).sort();
}

/** The cells of the row of the table that links to a plant's page. */
function rowOf(plant: string): readonly string[] {
  const row = read('docs/races/README.md')
    .split('\n')
    .find((line) => line.startsWith(`| [${plant}](${plant}.md) |`));
  return (row ?? '').split('|').map((cell) => cell.trim());
}

const COMMAND = /^ {4}ballast explore (\S+) --plant (\S+) --first-seed (\d+) --seeds 1$/m;
const INVARIANT = /^\*\*(.+)\*\*: /m;

test('each planted bug has a page, and each page a planted bug', () => {
  const pages = namesIn('docs/races', '.md').filter((name) => name !== 'README');
  expect(pages).toEqual([...PLANT_NAMES].sort());
});

describe.each(PLANT_NAMES)('%s', (plant) => {
  const page = () => read(`docs/races/${plant}.md`);

  test('its page draws a schedule, and is short', () => {
    expect(page()).toMatch(new RegExp(`^# ${plant}\n`));
    expect(page()).toMatch(/^```mermaid\nsequenceDiagram\n(?: {2}.+\n)+```$/m);
    expect(page().trimEnd().split('\n').length).toBeLessThanOrEqual(LINES_MAX);
  });

  test('its page names the command that repeats it, in an existing scenario', () => {
    const [, scenario, named] = COMMAND.exec(page()) ?? [];
    expect(named).toBe(plant);
    expect(namesIn('scenarios/explore', '.yaml')).toContain(scenario);
    expect(scenario).toBe(PLANT_HOMES[plant]);
  });

  test('the table agrees with its page, and its invariant is one of the explorer', () => {
    const [, scenario, , seed] = COMMAND.exec(page()) ?? [];
    const [, invariant] = INVARIANT.exec(page()) ?? [];
    expect(rowOf(plant).slice(4, 7)).toEqual([`\`${scenario}\``, invariant, seed]);
    const explorer = namesIn('explorer', '.ts').map((name) => read(`explorer/${name}.ts`));
    expect(explorer.join('')).toContain(`'${invariant}'`);
  });

  test('the files that its page names exist', () => {
    const named = page().match(/(?<=`)(?:guest|host|explorer)\/[\w/-]+\.ts(?=`)/g) ?? [];
    expect(named.length).toBeGreaterThan(0);
    for (const path of named) expect(() => read(path)).not.toThrow();
  });
});
