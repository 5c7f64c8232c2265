import { createHash, type Hash } from 'node:crypto';
import type { Nanoseconds } from './units.ts';

/** Values that an event may carry: what prints the same on every engine. */
export type EventFields = Readonly<Record<string, number | string | boolean>>;

/**
 * The event log: one line per fact, `<time ns> <event> key=value …`. Only its SHA-256 is kept,
 * unless a sink wants the lines. Two runs are the same run exactly when their digests are equal.
 */
export class EventLog {
  readonly #hash: Hash = createHash('sha256');
  readonly #sink: ((line: string) => void) | undefined;
  #pending: string[] = [];
  lineCount = 0;

  constructor(sink?: (line: string) => void) {
    this.#sink = sink;
  }

  add(at: Nanoseconds, event: string, fields: EventFields = {}): void {
    let line = `${at.toString().padStart(15)} ${event}`;
    for (const key of Object.keys(fields)) line += ` ${key}=${fields[key]}`;
    this.lineCount++;
    this.#sink?.(line);
    this.#pending.push(line);
    if (this.#pending.length >= 1024) this.#flush();
  }

  /** SHA-256 of every line so far, hexadecimal; the log goes on. */
  digest(): string {
    this.#flush();
    return this.#hash.copy().digest('hex');
  }

  #flush(): void {
    if (this.#pending.length === 0) return;
    this.#hash.update(`${this.#pending.join('\n')}\n`);
    this.#pending = [];
  }
}
