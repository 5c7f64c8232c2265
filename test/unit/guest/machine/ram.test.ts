import { describe, expect, test } from 'vitest';
import { POISON_TAG, Ram, ZERO_TAG } from '../../../../guest/machine/ram.ts';

const dirtyPages = (ram: Ram) =>
  Array.from({ length: ram.pageCount }, (_, pfn) => pfn).filter((pfn) =>
    ram.dirtyLog.bits.get(pfn),
  );

describe('guest memory', () => {
  test('gives every write content of its own, and never the zero page', () => {
    const ram = new Ram(8);
    const tags = new Set<number>([ZERO_TAG]);
    for (let i = 0; i < 100; i++) {
      ram.write(i % 8);
      tags.add(ram.tags[i % 8]!);
    }
    expect(tags.size).toBe(101);
  });

  test('logs writes and fills only while logging is on, and starts clean', () => {
    const ram = new Ram(16);
    ram.write(1);
    ram.dirtyLog.enable(true);
    expect(dirtyPages(ram)).toEqual([]);
    ram.write(2);
    ram.fill(4, 2, POISON_TAG);
    ram.setRecord(9, 77);
    ram.discard(12, 1);
    expect(dirtyPages(ram)).toEqual([2, 4, 5, 9]);
    ram.dirtyLog.enable(false);
    ram.write(10);
    expect(dirtyPages(ram)).toEqual([2, 4, 5, 9]);
    ram.dirtyLog.enable(true);
    expect(dirtyPages(ram)).toEqual([]);
  });

  test('costs a host fault on the first touch of each page, and again after a discard', () => {
    const ram = new Ram(8);
    ram.setInitial(0, false, false);
    ram.setInitial(1, true, true);
    ram.write(0);
    expect(ram.hostFaultCount).toBe(0);
    ram.fill(0, 4, ZERO_TAG);
    expect([ram.hostFaultCount, ram.filledPageCount]).toEqual([3, 4]);
    ram.write(3);
    expect(ram.hostFaultCount).toBe(3);
    ram.discard(2, 2);
    expect([...ram.tags.subarray(2, 4)]).toEqual([ZERO_TAG, ZERO_TAG]);
    ram.write(3);
    expect(ram.hostFaultCount).toBe(4);
  });

  test('reads and writes bytes across the frames of regions, and only there', () => {
    const ram = new Ram(8);
    const region = ram.bytesOf(2, 2);
    const before = [...ram.tags];
    const data = Uint8Array.from({ length: 8 }, (_, i) => i + 1);
    expect(ram.writeBytes(3 * 4096 - 4, data)).toBe(true);
    expect([...region.subarray(4092, 4100)]).toEqual([...data]);
    expect(ram.readBytes(3 * 4096 - 4, 8)).toEqual(data);
    expect([ram.tags[2] !== before[2], ram.tags[3] !== before[3]]).toEqual([true, true]);
    const unbacked = 4 * 4096 - 4;
    expect(ram.readBytes(unbacked, 8)).toBeNull();
    expect(ram.writeBytes(unbacked, data)).toBe(false);
    expect(ram.readBytes(unbacked, 4)).toEqual(new Uint8Array(4));
    expect(() => ram.bytesOf(3, 1)).toThrow('one byte-backed region');
    ram.dropBytes(2, 2);
    expect(ram.readBytes(2 * 4096, 1)).toBeNull();
  });

  test('loses the bytes of a region with a discard', () => {
    const ram = new Ram(4);
    ram.bytesOf(1, 1).fill(9);
    ram.discard(1, 1);
    expect(ram.readBytes(4096, 2)).toEqual(new Uint8Array(2));
  });
});

describe('clearing the dirty log', () => {
  test('clears the bits that are named and keeps what was written since', () => {
    const ram = new Ram(96);
    ram.dirtyLog.enable(true);
    for (const pfn of [1, 33, 40]) ram.write(pfn);
    const seen = ram.dirtyLog.bits.bytes.slice();
    ram.write(41);
    expect(ram.dirtyLog.clear(32, seen.subarray(4, 8))).toBe(true);
    expect(dirtyPages(ram)).toEqual([1, 41]);
  });

  test.each([
    ['an unaligned piece', 8, 4],
    ['more than the log has', 64, 8],
  ])('refuses %s', (_what, firstPfn, bytes) => {
    const ram = new Ram(96);
    expect(ram.dirtyLog.clear(firstPfn, new Uint8Array(bytes))).toBe(false);
  });
});
