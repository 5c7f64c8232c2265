/**
 * The only source of randomness in the core: xoshiro128** over 32-bit integers, so that every
 * engine draws the same numbers. `split(name)` gives each subsystem a stream of its own: one more
 * draw in one place does not move the others.
 */
export class Prng {
  readonly #s = new Uint32Array(4);

  constructor(seed: number) {
    let x = seed >>> 0 || 0x9e3779b9;
    for (let i = 0; i < 4; i++) {
      x = (x + 0x9e3779b9) >>> 0;
      this.#s[i] = mix32(x);
    }
  }

  /** Uniform in 0 … 2^32−1. */
  nextU32(): number {
    const s = this.#s;
    const s1 = s[1]!;
    const result = Math.imul(rotl(Math.imul(s1, 5), 7), 9) >>> 0;
    const t = s1 << 9;
    s[2] = s[2]! ^ s[0]!;
    s[3] = s[3]! ^ s1;
    s[1] = s1 ^ s[2]!;
    s[0] = s[0]! ^ s[3]!;
    s[2] = s[2]! ^ t;
    s[3] = rotl(s[3]!, 11);
    return result;
  }

  /** Uniform in 0 … count−1, without modulo bias; count in 1 … 2^32. */
  below(count: number): number {
    const limit = 0x1_0000_0000 - (0x1_0000_0000 % count);
    for (;;) {
      const x = this.nextU32();
      if (x < limit) return x % count;
    }
  }

  /** True with probability numerator/denominator. */
  chance(numerator: number, denominator: number): boolean {
    return this.below(denominator) < numerator;
  }

  /** An independent stream, named: the same parent seed and name give the same stream. */
  split(name: string): Prng {
    let h = 0x811c9dc5;
    for (let i = 0; i < name.length; i++) h = Math.imul(h ^ name.charCodeAt(i), 0x01000193);
    return new Prng((mix32(h >>> 0) ^ this.#s[0]!) >>> 0);
  }
}

function rotl(x: number, k: number): number {
  return ((x << k) | (x >>> (32 - k))) >>> 0;
}

function mix32(value: number): number {
  let x = value;
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return (x ^ (x >>> 16)) >>> 0;
}
