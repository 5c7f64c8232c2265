import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  f64Bytes,
  toFloat64,
  toUint16,
  toUint32,
  u16Bytes,
  u32Bytes,
} from '../../../protocol/index.ts';

/** The same bytes at an odd address. */
function unaligned(bytes: Uint8Array): Uint8Array {
  const shifted = new Uint8Array(bytes.length + 1).subarray(1);
  shifted.set(bytes);
  return shifted;
}

describe('bulk fields', () => {
  test('come back as they were sent, from any alignment', () => {
    fc.assert(
      fc.property(fc.uint16Array(), fc.uint32Array(), fc.float64Array(), (u16, u32, f64) => {
        expect(toUint16(unaligned(u16Bytes(u16)))).toEqual(u16);
        expect(toUint32(unaligned(u32Bytes(u32)))).toEqual(u32);
        expect(toFloat64(unaligned(f64Bytes(f64)))).toEqual(f64);
      }),
    );
  });

  test('view only their part of a shared buffer', () => {
    const whole = Uint32Array.of(1, 2, 3, 4);
    expect([...u32Bytes(whole.subarray(1, 2))]).toEqual([2, 0, 0, 0]);
  });

  test('are little-endian', () => {
    expect([...u16Bytes(Uint16Array.of(0x0102))]).toEqual([2, 1]);
  });

  test('are copies on arrival', () => {
    const bytes = Uint8Array.of(1, 0);
    const values = toUint16(bytes);
    bytes.fill(9);
    expect(values).toEqual(Uint16Array.of(1));
  });

  test.each([
    { read: toUint16, width: 2 },
    { read: toUint32, width: 4 },
    { read: toFloat64, width: 8 },
  ])('of $width bytes each are null when the length is no multiple', ({ read, width }) => {
    for (let length = 0; length < 2 * width; length++) {
      expect(read(new Uint8Array(length)) === null).toBe(length % width !== 0);
    }
  });
});
