import { type Document, isMap, isNode, isPair, isScalar, LineCounter, parseDocument } from 'yaml';
import type { z } from 'zod';
import { BallastError } from '../../shared/index.ts';
import { knownKeys } from './known-keys.ts';

/**
 * A scenario's text with the line of every key, so that each complaint is one line a person can act
 * on: `file.yaml:LINE: key.path: expected …, found …`.
 */

export type KeyPath = readonly PropertyKey[];

export interface Problem {
  readonly path: KeyPath;
  readonly expected: string;
  /** Left out: the value at `path`. */
  readonly found?: string;
}

/** `--set` argument: `mm.init_on_alloc=false`. */
export interface Override {
  readonly path: readonly string[];
  readonly value: unknown;
  readonly text: string;
}

export class ScenarioSource {
  readonly file: string;
  /** The parsed document with the overrides applied. */
  readonly data: unknown;
  readonly #document: Document;
  readonly #lines: LineCounter;
  readonly #overrides: readonly Override[];

  /** @throws BallastError BAD_INPUT when the text is not YAML. */
  constructor(file: string, text: string, overrides: readonly Override[] = []) {
    this.file = file;
    this.#lines = new LineCounter();
    this.#document = parseDocument(text, { lineCounter: this.#lines, prettyErrors: false });
    this.#overrides = overrides;
    const error = this.#document.errors[0] ?? this.#document.warnings[0];
    if (error) {
      const line = this.#lines.linePos(error.pos[0]).line;
      throw new BallastError(
        'BAD_INPUT',
        `${file}:${line}: expected YAML, found: ${oneLine(error.message)}`,
      );
    }
    this.data = this.#plain();
    for (const override of overrides) this.#apply(override);
  }

  /** Throws all problems, one line each, in the order of the file. */
  fail(problems: readonly Problem[]): never {
    const lines = problems.map((problem) => ({ ...this.#locate(problem.path), problem }));
    lines.sort((a, b) => a.line - b.line);
    throw new BallastError(
      'BAD_INPUT',
      lines.map(({ where, problem }) => `${where}: ${this.#say(problem)}`).join('\n'),
    );
  }

  /** What zod found, in our words. */
  problemsOf(error: z.ZodError, schema: z.ZodType): Problem[] {
    const unknown = error.issues.filter((issue) => issue.code === 'unrecognized_keys');
    const explained = new Set(unknown.map((issue) => pathText(issue.path)));
    // A step with an unknown name is also not exactly one step: say the first only.
    const issues = error.issues.filter(
      (issue) => issue.code !== 'custom' || !explained.has(pathText(issue.path)),
    );
    return issues.flatMap((issue) => problemsOfIssue(issue, schema));
  }

  /** File and line of a key, or the override that set it. */
  where(path: KeyPath): string {
    return this.#locate(path).where;
  }

  #plain(): unknown {
    try {
      return this.#document.toJS({ maxAliasCount: 100 }) ?? {};
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new BallastError(
        'BAD_INPUT',
        `${this.file}:1: expected YAML, found: ${oneLine(reason)}`,
      );
    }
  }

  #apply(override: Override): void {
    let at = this.data;
    for (const [depth, key] of override.path.entries()) {
      if (typeof at !== 'object' || at === null || (!Array.isArray(at) && isForbidden(key))) {
        const where = override.path.slice(0, depth).join('.');
        throw new BallastError(
          'BAD_INPUT',
          `--set ${override.text}: expected ${where} to have keys`,
        );
      }
      const map = at as Record<string, unknown>;
      if (depth === override.path.length - 1) map[key] = override.value;
      else at = map[key] ??= {};
    }
  }

  #say({ path, expected, found }: Problem): string {
    const name = pathText(path);
    return `${name ? `${name}: ` : ''}expected ${expected}, found ${found ?? show(valueAt(this.data, path))}`;
  }

  #locate(path: KeyPath): { where: string; line: number } {
    const override = this.#overrides.find((o) => startsWith(path, o.path));
    if (override) return { where: `--set ${override.text}`, line: Number.MAX_SAFE_INTEGER };
    const line = this.#lineOf(path);
    return { where: `${this.file}:${line}`, line };
  }

  /** Line of the key at `path`, or of its nearest parent that is in the text. */
  #lineOf(path: KeyPath): number {
    let node: unknown = this.#document.contents;
    let offset = isNode(node) ? (node.range?.[0] ?? 0) : 0;
    for (const key of path) {
      if (isMap(node)) {
        const pair = node.items.find(
          (item) => isScalar(item.key) && String(item.key.value) === String(key),
        );
        if (!isPair(pair)) break;
        if (isNode(pair.key)) offset = pair.key.range?.[0] ?? offset;
        node = pair.value;
      } else {
        const item: unknown = this.#document.contents && childAt(node, key);
        if (!isNode(item)) break;
        node = item;
        offset = item.range?.[0] ?? offset;
      }
    }
    return this.#lines.linePos(offset).line || 1;
  }
}

/** Keys that there were once, and what says the same now. */
const REPLACED_KEYS: Readonly<Record<string, string>> = {
  clear_log:
    'dirty_log in its place (at-sync: tcg; lazy: kvm-bitmap; lazy-at-start: kvm-bitmap with hint_remedy: clear-at-id)',
};

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
      return [{ path, expected: `at least ${issue.minimum}` }];
    case 'too_big':
      return [{ path, expected: `at most ${issue.maximum}` }];
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

function childAt(node: unknown, key: PropertyKey): unknown {
  const sequence = node as { items?: unknown[] } | null;
  return typeof key === 'number' ? sequence?.items?.[key] : undefined;
}

function valueAt(data: unknown, path: KeyPath): unknown {
  let at = data;
  for (const key of path) at = (at as Record<PropertyKey, unknown> | undefined | null)?.[key];
  return at;
}

function startsWith(path: KeyPath, prefix: readonly string[]): boolean {
  return prefix.every((key, i) => String(path[i]) === key);
}

function isForbidden(key: string): boolean {
  return key === '__proto__' || key === 'constructor' || key === 'prototype';
}

function pathText(path: KeyPath): string {
  let text = '';
  for (const key of path)
    text += typeof key === 'number' ? `[${key}]` : `${text && '.'}${String(key)}`;
  return text;
}

function show(value: unknown): string {
  if (value === undefined) return 'nothing';
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 60 ? `${text.slice(0, 57)}…` : text;
}

function oneLine(text: string): string {
  return text.split('\n', 1)[0]?.trim() ?? '';
}
