/** What linters cannot hold: sizes, leftovers, links, and nothing of anybody's own machine. */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const root = fileURLToPath(new URL('../../', import.meta.url));
/** Tracked or about to be, and there. */
const listed = execFileSync('git', ['ls-files', '-co', '--exclude-standard'], {
  cwd: root,
  encoding: 'utf8',
});
const files = listed.split('\n').filter((name) => name && existsSync(root + name));
const isText = (name: string) =>
  /\.(ts|mjs|md|json|ya?ml|sh|grit)$/.test(name) && name !== 'package-lock.json';
const texts = new Map(
  files.filter(isText).map((name) => [name, readFileSync(root + name, 'utf8')]),
);
const CODE = /^(shared|protocol|guest|host|explorer|peers|fuzz|spec|lab)\/.*\.ts$/;
const code = [...texts].filter(([name]) => CODE.test(name));
const MAX_FILE_LINES = 400;
const MAX_FUNCTION_LINES = 70;

/** Begins a function, method or accessor whose body ends with a brace at the same indentation. */
const FUNCTION_START =
  /^(\s*)(?:(?:export |default |static |async |private |override |readonly |get |set )*(?:function\*? ?)?[*#\w]+(?:<[^(]*>)?\(.*|const \w+ = (?:async )?(?:function|\(.*=>).*)$/;
const CONTROL = /^\s*(?:if|for|while|switch|catch|return|expect|test|describe|throw|await|new)\b/;

function longFunctions(name: string, text: string): string[] {
  const lines = text.split('\n');
  const found: string[] = [];
  for (const [start, line] of lines.entries()) {
    const indent = FUNCTION_START.exec(line)?.[1];
    if (indent === undefined || CONTROL.test(line) || !/[{(]$/.test(line)) continue;
    const from = (after: number, first: string) =>
      lines.findIndex((other, i) => i > after && other.startsWith(indent + first));
    // Parameters on lines of their own: the body begins where they end, or this is only a call.
    const opened = line.endsWith('(') ? from(start, ')') : start;
    if (!lines[opened]?.endsWith('{')) continue;
    const end = from(opened, '}');
    if (end - start + 1 > MAX_FUNCTION_LINES) found.push(`${name}:${start + 1}`);
  }
  return found;
}

test('no function is longer than 70 lines', () => {
  const body = (count: number) =>
    `function f(\n  a: number,\n): void {\n${'  x();\n'.repeat(count)}}\n`;
  expect(longFunctions('short', body(66))).toEqual([]);
  expect(longFunctions('long', body(67))).toEqual(['long:1']);
  expect(code.flatMap(([name, text]) => longFunctions(name, text))).toEqual([]);
});

test('no file of the code is longer than 400 lines', () => {
  expect(code.length).toBeGreaterThan(50);
  const long = code.filter(([, text]) => text.split('\n').length - 1 > MAX_FILE_LINES);
  expect(long.map(([name]) => name)).toEqual([]);
});

/** Put together here, so that this file does not hold what it looks for. */
const FORBIDDEN: readonly (readonly [what: string, pattern: RegExp])[] = [
  [
    'leftovers',
    new RegExp(
      `\\b(?:${['FIX', 'TO', 'XX'].map((head, i) => head + ['ME', 'DO', 'X'][i]).join('|')})\\b`,
    ),
  ],
  ['paths of a machine', new RegExp(`(?:^|[\\s"'\`(=])/(?:${'work'}|home|root|Users)/\\w`, 'm')],
  ['a focused or skipped test', new RegExp(`\\b(?:test|describe|it)\\.${'only'}\\(`)],
  ['another registry', /"?(?:registry|resolved)"?\s*[:=]\s*"?https?:\/\/(?!registry\.npmjs\.org)/],
];

test.each(FORBIDDEN)('nowhere are there %s', (_what, pattern) => {
  const found = [...texts].filter(([, text]) => pattern.test(text)).map(([name]) => name);
  expect(found).toEqual([]);
});

test('every link between documents leads somewhere', () => {
  const dead: string[] = [];
  let links = 0;
  for (const [name, text] of texts) {
    if (!name.endsWith('.md')) continue;
    for (const [, target = ''] of text.matchAll(/\]\(([^)\s#]+)(?:#[^)]*)?\)/g)) {
      if (/^[a-z]+:/.test(target)) continue;
      links++;
      if (!existsSync(resolve(root, dirname(name), target))) dead.push(`${name} -> ${target}`);
    }
  }
  expect(links).toBeGreaterThan(0);
  expect(dead).toEqual([]);
});
