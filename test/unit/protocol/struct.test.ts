import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  bytes,
  le16,
  le32,
  le64,
  readLe64,
  struct,
  u8,
  writeLe64,
} from '../../../protocol/index.ts';

const Sample = struct({ tag: u8, low: le16, mid: le32, wide: le64, mac: bytes(3) });

describe('struct', () => {
  test('packs its fields without padding', () => {
    expect(Sample.offsets).toEqual({ tag: 0, low: 1, mid: 3, wide: 7, mac: 15 });
    expect(Sample.sizeBytes).toBe(18);
  });

  test('writes little-endian at the given offset', () => {
    const view = new DataView(new ArrayBuffer(20));
    const mac = Uint8Array.of(7, 8, 9);
    Sample.write(view, 1, { tag: 1, low: 0x0203, mid: 0x04050607, wide: 0x0102030405060708n, mac });
    expect([...new Uint8Array(view.buffer)]).toEqual([
      0, 1, 3, 2, 7, 6, 5, 4, 8, 7, 6, 5, 4, 3, 2, 1, 7, 8, 9, 0,
    ]);
  });

  test('reads what it wrote', () => {
    const value = fc.record({
      tag: fc.nat(0xff),
      low: fc.nat(0xffff),
      mid: fc.nat(0xffff_ffff),
      wide: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      mac: fc.uint8Array({ minLength: 3, maxLength: 3 }),
    });
    fc.assert(
      fc.property(value, fc.nat(8), (written, offset) => {
        const view = new DataView(new ArrayBuffer(32), 2);
        Sample.write(view, offset, written);
        expect(Sample.read(view, offset)).toEqual(written);
      }),
    );
  });

  test.each([
    { id: 'above its width', low: 65536 },
    { id: 'negative', low: -1 },
    { id: 'a fraction', low: 0.5 },
  ])('asserts that a value is not $id', ({ low }) => {
    const view = new DataView(new ArrayBuffer(18));
    const value = { tag: 0, low, mid: 0, wide: 0n, mac: new Uint8Array(3) };
    expect(() => Sample.write(view, 0, value)).toThrow('must hold: a field is in 0 … 65535');
  });
});

describe('addresses as numbers', () => {
  const view = new DataView(new ArrayBuffer(8));

  test('agree with le64 up to 2^53−1', () => {
    fc.assert(
      fc.property(fc.maxSafeNat(), (value) => {
        writeLe64(view, 0, value);
        expect(le64.read(view, 0)).toBe(BigInt(value));
        expect(readLe64(view, 0)).toBe(value);
      }),
    );
  });

  test.each([2n ** 53n, 2n ** 64n - 1n])('are −1 where %s does not fit', (value) => {
    le64.write(view, 0, value);
    expect(readLe64(view, 0)).toBe(-1);
  });
});
