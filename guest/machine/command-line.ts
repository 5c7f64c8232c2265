import { BallastError } from '../../shared/index.ts';
import { MAX_PAGE_ORDER } from '../mm/index.ts';

/**
 * No line names more pages or objects than these, so that what is made by name stays small: 4 GiB of
 * pages, more than the memory of a machine that consoles are used on.
 */
const NUMBER_MAX = 2 ** 20;

/** A console line in parts: `pin process=vm size=1024`. Each reader throws BallastError BAD_INPUT. */
export class CommandLine {
  readonly name: string;
  readonly #words = new Map<string, string>();

  constructor(line: string) {
    const [name = '', ...words] = line.trim().split(/\s+/);
    this.name = name;
    for (const word of words) {
      const equals = word.indexOf('=');
      if (equals > 0) this.#words.set(word.slice(0, equals), word.slice(equals + 1));
    }
  }

  /** The vCPU that it runs on: `cpu=1`; 0 by default, NaN if it is no number. */
  get cpu(): number {
    return Number(this.#words.get('cpu') ?? 0);
  }

  has(key: string): boolean {
    return this.#words.has(key);
  }

  text(key: string, otherwise?: string): string {
    const text = this.#words.get(key) ?? otherwise;
    if (text === undefined) throw expected(`${key}=…`, 'nothing');
    return text;
  }

  /** A whole number in 0 … `max`. */
  number(key: string, otherwise?: number, max: number = NUMBER_MAX): number {
    const text = this.#words.get(key);
    if (text === undefined && otherwise !== undefined) return otherwise;
    const value = /^\d+$/.test(text ?? '') ? Number(text) : Number.NaN;
    if (Number.isNaN(value)) {
      throw expected(`${key}=NUMBER`, text === undefined ? 'nothing' : `${key}=${text}`);
    }
    if (value > max) throw expected(`${key}=NUMBER of at most ${max}`, `${key}=${text}`);
    return value;
  }

  /** The order of a block of the page allocator. */
  order(otherwise?: number): number {
    return this.number('order', otherwise, MAX_PAGE_ORDER);
  }

  /** How many pages something has: at least one. */
  pages(key: string): number {
    const pageCount = this.number(key);
    if (pageCount === 0) throw expected(`${key}=NUMBER of at least 1`, `${key}=0`);
    return pageCount;
  }

  flag(key: string): boolean {
    return this.text(key, 'false') === 'true';
  }

  oneOf<T extends string>(key: string, choices: readonly T[]): T {
    const text = this.text(key);
    const choice = choices.find((candidate) => candidate === text);
    if (choice === undefined) throw expected(`${key}=${choices.join('|')}`, `${key}=${text}`);
    return choice;
  }
}

function expected(what: string, found: string): BallastError {
  return new BallastError('BAD_INPUT', `expected ${what}, found ${found}`);
}
