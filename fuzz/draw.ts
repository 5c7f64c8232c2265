/**
 * Where a case gets its decisions from: a seeded generator while looking for trouble, a recorded
 * tape while a case is repeated or made smaller. Alternatives are ordered so that 0 is the plainest
 * one: a tape whose numbers shrink describes a simpler case, whatever the case is about.
 */
import { assert, Prng } from '../shared/index.ts';

/** Decisions of one case, in order. */
export type Tape = readonly number[];

export class Draw {
  readonly tape: number[] = [];
  readonly #prng: Prng | null;
  readonly #given: Tape;

  /** Decisions of a seed, or of a tape; a tape that is too short goes on with zeroes. */
  constructor(source: number | Tape) {
    this.#prng = typeof source === 'number' ? new Prng(source) : null;
    this.#given = typeof source === 'number' ? [] : source;
  }

  /** 0 … count−1; count in 1 … 2^32. */
  below(count: number): number {
    assert(count >= 1 && count <= 2 ** 32, 'a choice has alternatives, and at most 2^32');
    const value = this.#prng
      ? this.#prng.below(count)
      : Math.min(this.#given[this.tape.length] ?? 0, count - 1);
    this.tape.push(value);
    return value;
  }

  u32(): number {
    return this.below(0x1_0000_0000);
  }

  /** First … last, both included. */
  between(first: number, last: number): number {
    return first + this.below(last - first + 1);
  }

  /** False is the plainer answer. */
  chance(numerator: number, denominator: number): boolean {
    return this.below(denominator) >= denominator - numerator;
  }

  pick<T>(choices: readonly T[]): T {
    return choices[this.below(choices.length)]!;
  }

  bytes(count: number): Uint8Array {
    const bytes = new Uint8Array(count);
    for (let i = 0; i < count; i++) bytes[i] = this.below(256);
    return bytes;
  }
}

/** A seed for what the parts name: another one for each seed, part and order of parts. */
export function seedOf(seed: number, ...parts: readonly number[]): number {
  let hash = mix(seed);
  for (const part of parts) hash = mix((Math.imul(hash, 0x01000193) + part) >>> 0);
  return hash;
}

function mix(value: number): number {
  let x = (value + 0x9e3779b9) >>> 0;
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return (x ^ (x >>> 16)) >>> 0;
}
