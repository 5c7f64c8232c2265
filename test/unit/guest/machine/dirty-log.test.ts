import { describe, expect, test } from 'vitest';
import { DirtyLog } from '../../../../guest/machine/dirty-log.ts';

const PAGES = 64;

function setBits({ bits }: DirtyLog): number[] {
  const found: number[] = [];
  for (let pfn = bits.nextSet(0); pfn >= 0; pfn = bits.nextSet(pfn + 1)) found.push(pfn);
  return found;
}

function newLog(ringEntries: number, initiallySet = false): DirtyLog {
  const log = new DirtyLog(PAGES);
  log.enable(true, { initiallySet, ringEntries });
  return log;
}

describe('the dirty log', () => {
  test('begins with all ones if it is told so, and sees no write to a page whose bit is set', () => {
    const log = newLog(0, true);
    expect(log.take(false).count()).toBe(PAGES);
    log.mark(5);
    log.clear(0, Uint8Array.of(1 << 5, 0, 0, 0));
    expect(log.bits.get(5)).toBe(false);
    log.mark(5);
    expect(log.bits.get(5)).toBe(true);
  });

  test('with a ring loses no write when the ring is full, and counts how often it was', () => {
    const log = newLog(4);
    for (const pfn of [1, 2, 3]) log.mark(pfn);
    // A page is in the ring once.
    log.mark(3);
    expect(log.ringFullCount).toBe(0);
    log.mark(4);
    expect([log.ringFullCount, setBits(log)]).toEqual([1, [1, 2, 3, 4]]);
    log.markRange(10, 9);
    expect(log.ringFullCount).toBe(3);
    expect(setBits(log)).toEqual([1, 2, 3, 4, 10, 11, 12, 13, 14, 15, 16, 17, 18]);
  });

  test('with a ring that was read begins to fill it anew', () => {
    const log = newLog(4);
    for (const pfn of [1, 2, 3]) log.mark(pfn);
    expect(log.take(true).count()).toBe(3);
    // What was in it is write-protected again, and is pushed again.
    for (const pfn of [1, 2, 3]) log.mark(pfn);
    expect([log.ringFullCount, setBits(log)]).toEqual([0, [1, 2, 3]]);
    log.mark(9);
    expect(log.ringFullCount).toBe(1);
  });
});
