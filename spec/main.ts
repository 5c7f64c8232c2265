/**
 * `npm run spec`: write docs/conformance.md from the clauses and the tags of the tests.
 *   --check   write nothing; fail where the page is not what it would be
 * Exit status: 0; 1 a MUST without a test, a wrong tag, or a page that is out of date; 2 bad input.
 */
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { readClauses } from './clauses.ts';
import { findMistakes, renderReport } from './report.ts';
import { findTags } from './tags.ts';

const root = fileURLToPath(new URL('../', import.meta.url));
const PAGE = 'docs/conformance.md';
const FOLDERS = ['test', 'shared', 'protocol', 'guest', 'host', 'explorer', 'peers', 'fuzz'];

function sources(): string[] {
  const folders = FOLDERS.filter((folder) => existsSync(root + folder));
  const files = folders.flatMap((folder) => {
    const names = readdirSync(root + folder, { recursive: true, encoding: 'utf8' });
    return names.map((name) => `${folder}/${name.replaceAll('\\', '/')}`);
  });
  // This tool's own tests hold tags that mean nothing.
  return files.filter((name) => /\.ts$/.test(name) && !name.startsWith('test/unit/spec/')).sort();
}

function main(args: readonly string[]): number {
  const unknown = args.find((arg) => arg !== '--check');
  if (unknown) throw new Error(`unknown argument ${unknown}: only --check is known`);
  const read = (name: string) => readFileSync(root + name, 'utf8');
  const clauses = readClauses(read('spec/clauses.yaml'));
  const tags = sources().flatMap((name) => findTags(name, read(name)));
  const mistakes = findMistakes(clauses, tags);
  const page = renderReport(clauses, tags);
  if (args.includes('--check')) {
    if (page !== read(PAGE)) mistakes.push(`${PAGE} is out of date: run \`npm run spec\``);
  } else writeFileSync(root + PAGE, page);
  for (const mistake of mistakes) console.error(mistake);
  const answered = tags.reduce((sum, tag) => sum + tag.ids.length, 0);
  console.log(`${answered} answers in ${tags.length} tags; ${mistakes.length} mistakes`);
  return mistakes.length === 0 ? 0 : 1;
}

try {
  process.exitCode = main(process.argv.slice(2));
} catch (error) {
  console.error(error instanceof Error ? error.message : String(error));
  process.exitCode = 2;
}
