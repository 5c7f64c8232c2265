import { describe, expect, test } from 'vitest';
import { HintRecord } from '../../../../guest/hinting/hint-record.ts';

const KEPT_RANGES = 65_536;

describe('the record of hints', () => {
  test('tells what was hinted of a page, oldest first', () => {
    const record = new HintRecord(() => true);
    record.onHint(1024, 512, 100, 200, 0x8000_0001);
    record.onHint(2048, 1, 300, 400, 0x8000_0001);
    record.onHint(1535, 1, 500, 600, 0x8000_0002);
    const first = 'hint recorded at 100 ns, queued at 200 ns under id 2147483649, pages 1024+512';
    const second = 'hint recorded at 500 ns, queued at 600 ns under id 2147483650, pages 1535+1';
    expect(record.historyOf(1024)).toEqual([first]);
    expect(record.historyOf(1535)).toEqual([first, second]);
    expect([record.historyOf(1023), record.historyOf(1536), record.historyOf(0)]).toEqual([
      [],
      [],
      [],
    ]);
  });

  test('counts pages, and those that nobody used when they were hinted', () => {
    let used = 10;
    const record = new HintRecord((pfn) => pfn !== used);
    record.onHint(8, 8, 0, 0, 1);
    used = 16;
    record.onHint(8, 8, 0, 0, 1);
    expect(record.counters).toEqual({ hint_recorded_pages: 16, hint_recorded_free_pages: 15 });
  });

  test('judges blocks by what they were when they were found, in the order of their hints', () => {
    const used = new Set([9]);
    const record = new HintRecord((pfn) => !used.has(pfn));
    record.onRecord(Uint32Array.of(8, 16), Uint8Array.of(2, 0), 2);
    // All are allocated before their hints are queued.
    for (let pfn = 8; pfn < 17; pfn++) used.add(pfn);
    record.onHint(8, 4, 0, 1, 1);
    record.onHint(16, 1, 0, 1, 1);
    expect(record.counters).toEqual({ hint_recorded_pages: 5, hint_recorded_free_pages: 4 });
  });

  test('forgets the oldest range when it is full', () => {
    const record = new HintRecord(() => true);
    for (let i = 0; i < KEPT_RANGES; i++) record.onHint(2 * i, 1, i, i, 1);
    expect(record.historyOf(0).length).toBe(1);
    record.onHint(4, 1, KEPT_RANGES, KEPT_RANGES, 2);
    expect(record.historyOf(0)).toEqual([]);
    expect(record.historyOf(2).length).toBe(1);
    expect(record.historyOf(4).map((line) => line.slice(0, 24))).toEqual([
      'hint recorded at 2 ns, q',
      'hint recorded at 65536 n',
    ]);
    expect(record.counters.hint_recorded_pages).toBe(KEPT_RANGES + 1);
  });
});
