import type { z } from 'zod';
import { BallastError } from '../../shared/index.ts';
import { knownKeys } from './known-keys.ts';

/** What a schema refuses, in our words: `key.path: expected …, found …`. */

export type KeyPath = readonly PropertyKey[];

export interface Problem {
  readonly path: KeyPath;
  readonly expected: string;
  /** Left out: the value at `path`. */
  readonly found?: string;
}

/** What zod found. */
export function problemsOf(error: z.ZodError, schema: z.ZodType): Problem[] {
  const unknown = error.issues.filter((issue) => issue.code === 'unrecognized_keys');
  const explained = new Set(unknown.map((issue) => pathText(issue.path)));
  // A step with an unknown name is also not exactly one step: say the first only.
  const issues = error.issues.filter(
    (issue) => issue.code !== 'custom' || !explained.has(pathText(issue.path)),
  );
  return issues.flatMap((issue) => problemsOfIssue(issue, schema));
}

/** One line; `data` is what was checked. */
export function sayProblem({ path, expected, found }: Problem, data: unknown): string {
  const name = pathText(path);
  return `${name ? `${name}: ` : ''}expected ${expected}, found ${found ?? show(valueAt(data, path))}`;
}

/** Keys that there were once, and what says the same now. */
const REPLACED_KEYS: Readonly<Record<string, string>> = {
  clear_log:
    'dirty_log in its place (at-sync: tcg; lazy: kvm-bitmap; lazy-at-start: kvm-bitmap with hint_remedy: clear-at-id)',
};

/** Throws all problems, one line each; `where` begins each line. */
export function refuse(problems: readonly Problem[], data: unknown, where: string): never {
  const lines = problems.map((problem) => `${where}: ${sayProblem(problem, data)}`);
  throw new BallastError('BAD_INPUT', lines.join('\n'));
}

function problemsOfIssue(issue: z.core.$ZodIssue, schema: z.ZodType): Problem[] {
  const path = issue.path;
  switch (issue.code) {
    case 'unrecognized_keys': {
      const expected = isOfFigures(path)
        ? 'a figure of docs/result-format.md'
        : `one of ${knownKeys(schema, path).join(', ')}`;
      return issue.keys.map((key) => ({
        path: [...path, key],
        expected: REPLACED_KEYS[key] ?? expected,
        found: `unknown key "${key}"`,
      }));
    }
    case 'invalid_type':
      return [{ path, expected: typeNames[issue.expected] ?? issue.expected }];
    case 'invalid_value':
      return [{ path, expected: `one of ${issue.values.map(String).join(', ')}` }];
    case 'too_small':
      return [
        { path, expected: `${issue.inclusive === false ? 'above' : 'at least'} ${issue.minimum}` },
      ];
    case 'too_big':
      return [
        { path, expected: `${issue.inclusive === false ? 'below' : 'at most'} ${issue.maximum}` },
      ];
    default:
      return [{ path, expected: oneLine(issue.message) }];
  }
}

/** Too many to list. */
function isOfFigures(path: KeyPath): boolean {
  const last = path.at(-1);
  return last === 'expect' || last === 'compare';
}

const typeNames: Readonly<Record<string, string>> = {
  object: 'a map of keys',
  array: 'a list',
  string: 'a text',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
};

function valueAt(data: unknown, path: KeyPath): unknown {
  let at = data;
  for (const key of path) at = (at as Record<PropertyKey, unknown> | undefined | null)?.[key];
  return at;
}

function pathText(path: KeyPath): string {
  let text = '';
  for (const key of path)
    text += typeof key === 'number' ? `[${key}]` : `${text && '.'}${String(key)}`;
  return text;
}

function show(value: unknown): string {
  if (value === undefined) return 'nothing';
  // JSON has no NaN, and no functions.
  const text = typeof value === 'number' ? String(value) : jsonOf(value);
  return text.length > 60 ? `${text.slice(0, 57)}…` : text;
}

function jsonOf(value: unknown): string {
  try {
    return JSON.stringify(value) ?? typeof value;
  } catch {
    return typeof value;
  }
}

export function oneLine(text: string): string {
  return text.split('\n', 1)[0]?.trim() ?? '';
}
