import { type Document, isMap, isNode, isPair, isScalar, LineCounter, parseDocument } from 'yaml';
import { BallastError } from '../../shared/index.ts';
import { type KeyPath, oneLine, type Problem, sayProblem } from '../input/problems.ts';

/**
 * A scenario's text with the line of every key, so that each complaint is one line a person can act
 * on: `file.yaml:LINE: key.path: expected …, found …`.
 */

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
      lines.map(({ where, problem }) => `${where}: ${sayProblem(problem, this.data)}`).join('\n'),
    );
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

function childAt(node: unknown, key: PropertyKey): unknown {
  const sequence = node as { items?: unknown[] } | null;
  return typeof key === 'number' ? sequence?.items?.[key] : undefined;
}

function startsWith(path: KeyPath, prefix: readonly string[]): boolean {
  return prefix.every((key, i) => String(path[i]) === key);
}

function isForbidden(key: string): boolean {
  return key === '__proto__' || key === 'constructor' || key === 'prototype';
}
