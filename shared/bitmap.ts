import { assert } from './assert.ts';

/** A fixed-size bitmap, least significant bit first, as the dirty log and the free set travel. */
export class Bitmap {
  readonly words: Int32Array;
  readonly bitCount: number;

  constructor(bitCount: number, words?: Int32Array) {
    this.bitCount = bitCount;
    this.words = words ?? new Int32Array((bitCount + 31) >>> 5);
    assert(this.words.length === (bitCount + 31) >>> 5, 'the words hold exactly the bits');
  }

  /** A copy of `bytes` (a received frame is a view of a buffer that will be reused). */
  static fromBytes(bytes: Uint8Array, bitCount: number): Bitmap {
    const bitmap = new Bitmap(bitCount);
    assert(bytes.length === bitmap.words.byteLength, 'the bytes hold exactly the bits');
    new Uint8Array(bitmap.words.buffer).set(bytes);
    return bitmap;
  }

  /** A view, not a copy. */
  get bytes(): Uint8Array {
    return new Uint8Array(this.words.buffer, this.words.byteOffset, this.words.byteLength);
  }

  static allSet(bitCount: number): Bitmap {
    const all = new Bitmap(bitCount);
    all.setAll();
    return all;
  }

  clone(): Bitmap {
    return new Bitmap(this.bitCount, this.words.slice());
  }

  get(index: number): boolean {
    return ((this.words[index >>> 5]! >>> (index & 31)) & 1) === 1;
  }

  set(index: number): void {
    this.words[index >>> 5]! |= 1 << (index & 31);
  }

  clear(index: number): void {
    this.words[index >>> 5]! &= ~(1 << (index & 31));
  }

  setRange(start: number, count: number): void {
    const end = start + count;
    for (let bit = start; bit < end; bit = wordEnd(bit)) {
      this.words[bit >>> 5]! |= maskFrom(bit, end);
    }
  }

  clearRange(start: number, count: number): void {
    const end = start + count;
    for (let bit = start; bit < end; bit = wordEnd(bit)) {
      this.words[bit >>> 5]! &= ~maskFrom(bit, end);
    }
  }

  setAll(): void {
    this.words.fill(-1);
    const tail = this.bitCount & 31;
    if (tail) this.words[this.words.length - 1] = (1 << tail) - 1;
  }

  clearAll(): void {
    this.words.fill(0);
  }

  /** Number of set bits. */
  count(): number {
    let total = 0;
    for (let i = 0; i < this.words.length; i++) total += popcount32(this.words[i]!);
    return total;
  }

  countRange(start: number, count: number): number {
    const end = start + count;
    let total = 0;
    for (let bit = start; bit < end; bit = wordEnd(bit)) {
      total += popcount32(this.words[bit >>> 5]! & maskFrom(bit, end));
    }
    return total;
  }

  /** Index of the first set bit at or after `from` and below `end`, or −1. */
  nextSet(from: number, end: number = this.bitCount): number {
    if (from >= end) return -1;
    let w = from >>> 5;
    const words = (end + 31) >>> 5;
    let word = this.words[w]! & (-1 << (from & 31));
    while (word === 0) {
      if (++w >= words) return -1;
      word = this.words[w]!;
    }
    const index = (w << 5) + ctz32(word);
    return index < end ? index : -1;
  }

  /** Index of the first clear bit at or after `from`, or `bitCount`. */
  nextClear(from: number): number {
    let w = from >>> 5;
    if (w >= this.words.length) return this.bitCount;
    let word = ~this.words[w]! & (-1 << (from & 31));
    while (word === 0) {
      if (++w >= this.words.length) return this.bitCount;
      word = ~this.words[w]!;
    }
    return Math.min(this.bitCount, (w << 5) + ctz32(word));
  }

  /** this |= other; returns how many bits became set. */
  or(other: Bitmap): number {
    let added = 0;
    for (let i = 0; i < this.words.length; i++) {
      const before = this.words[i]!;
      const after = before | other.words[i]!;
      if (after !== before) {
        added += popcount32(after ^ before);
        this.words[i] = after;
      }
    }
    return added;
  }

  /** Keeps the bits that are set in `other`, too. */
  and(other: Bitmap): void {
    for (let i = 0; i < this.words.length; i++) this.words[i]! &= other.words[i]!;
  }

  /** Clears the bits that are set in `other`. */
  andNot(other: Bitmap): void {
    for (let i = 0; i < this.words.length; i++) this.words[i]! &= ~other.words[i]!;
  }

  /** Number of bits set in both. */
  countAnd(other: Bitmap): number {
    let total = 0;
    for (let i = 0; i < this.words.length; i++) {
      total += popcount32(this.words[i]! & other.words[i]!);
    }
    return total;
  }

  /** Number of bits set here and not in `other`. */
  countAndNot(other: Bitmap): number {
    let total = 0;
    for (let i = 0; i < this.words.length; i++) {
      total += popcount32(this.words[i]! & ~other.words[i]!);
    }
    return total;
  }
}

/** First bit of the word after the one that holds `bit`; numbers beyond 2^31 stay whole. */
function wordEnd(bit: number): number {
  return bit - (bit & 31) + 32;
}

/** In the word of `bit`: the bits from it on and before `end`. */
function maskFrom(bit: number, end: number): number {
  const low = bit & 31;
  const width = Math.min(32 - low, end - bit);
  return width === 32 ? -1 : ((1 << width) - 1) << low;
}

export function popcount32(value: number): number {
  let x = value - ((value >>> 1) & 0x55555555);
  x = (x & 0x33333333) + ((x >>> 2) & 0x33333333);
  return Math.imul((x + (x >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}

/** Index of the lowest set bit of a non-zero word. */
export function ctz32(value: number): number {
  return 31 - Math.clz32(value & -value);
}
