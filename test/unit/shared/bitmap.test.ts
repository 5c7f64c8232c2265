import { describe, expect, test } from 'vitest';
import { Bitmap, ctz32, popcount32 } from '../../../shared/index.ts';

describe('a bitmap', () => {
  test.each([1, 31, 32, 33, 64, 100])('of %i bits has no bits beyond its end', (bitCount) => {
    const bitmap = new Bitmap(bitCount);
    bitmap.setAll();
    expect(bitmap.count()).toBe(bitCount);
    expect(bitmap.nextClear(0)).toBe(bitCount);
    expect(bitmap.nextSet(bitCount - 1)).toBe(bitCount - 1);
    expect(bitmap.nextSet(bitCount)).toBe(-1);
    bitmap.clearAll();
    expect(bitmap.nextSet(0)).toBe(-1);
  });

  test('travels as bytes, least significant bit first, and arrives as a copy', () => {
    const bitmap = new Bitmap(40);
    bitmap.set(0);
    bitmap.set(9);
    bitmap.set(39);
    expect([...bitmap.bytes]).toEqual([1, 2, 0, 0, 128, 0, 0, 0]);
    const wire = bitmap.bytes.slice();
    const arrived = Bitmap.fromBytes(wire, 40);
    wire.fill(0);
    expect([arrived.get(0), arrived.get(9), arrived.get(39), arrived.count()]).toEqual([
      true,
      true,
      true,
      3,
    ]);
  });

  test('refuses bytes of another length', () => {
    expect(() => Bitmap.fromBytes(new Uint8Array(7), 40)).toThrow('exactly the bits');
  });

  test('does not share its words with a clone', () => {
    const bitmap = new Bitmap(32);
    const clone = bitmap.clone();
    clone.set(3);
    expect(bitmap.get(3)).toBe(false);
  });
});

test.each([
  [0, 0],
  [1, 1],
  [-1, 32],
  [0x8000_0000 | 0, 1],
  [0x5555_5555, 16],
])('popcount32(%i) is %i', (value, count) => {
  expect(popcount32(value)).toBe(count);
});

test.each([
  [1, 0],
  [-1, 0],
  [0x8000_0000 | 0, 31],
  [24, 3],
])('ctz32(%i) is %i', (value, index) => {
  expect(ctz32(value)).toBe(index);
});

test('nextSet looks no further than its end', () => {
  const bitmap = new Bitmap(200);
  bitmap.set(70);
  bitmap.set(130);
  for (let end = 0; end <= 200; end++) {
    expect(bitmap.nextSet(0, end)).toBe(end > 70 ? 70 : -1);
    expect(bitmap.nextSet(71, end)).toBe(end > 130 ? 130 : -1);
  }
});
