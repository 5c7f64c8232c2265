import { describe, expect, test } from 'vitest';
import { HintLedger } from '../../../../host/migration/hint-ledger.ts';

const ORIGIN = { cmdId: 0x80000001, queuedAtNs: 10 };

describe('the hint ledger', () => {
  test('tells what was skipped to the end from what was sent after all', () => {
    const ledger = new HintLedger(64);
    for (const pfn of [8, 9, 10]) ledger.skip(pfn);
    ledger.sent(9);
    ledger.sent(9);
    ledger.sent(30);
    expect([8, 9, 10].map((pfn) => ledger.skipped.get(pfn))).toEqual([true, false, true]);
    expect([ledger.everSkipped.count(), ledger.resentPages]).toEqual([3, 1]);
  });

  test('counts a page that is skipped and sent again each time', () => {
    const ledger = new HintLedger(64);
    for (let i = 0; i < 2; i++) {
      ledger.skip(5);
      ledger.sent(5);
    }
    expect([ledger.everSkipped.count(), ledger.resentPages]).toEqual([1, 2]);
  });

  test('tells the history of exactly the pages of a range', () => {
    const ledger = new HintLedger(64);
    ledger.add(8, 4, ORIGIN, 20, { skippedPages: 3, alreadySentPages: 0 });
    ledger.add(0, 64, ORIGIN, 30, { skippedPages: 3, alreadySentPages: 0 });
    expect([ledger.blocks, ledger.pages]).toEqual([2, 68]);
    expect(ledger.historyOf(7)).toHaveLength(1);
    expect(ledger.historyOf(12)).toHaveLength(1);
    expect(ledger.historyOf(11)).toEqual([
      'hint consumed at 20 ns under id 2147483649 (queued at 10 ns), 3 of 4 pages skipped',
      expect.stringContaining('consumed at 30 ns'),
    ]);
  });

  test('keeps the history of hints by the thousand, and no more than so many', () => {
    const ledger = new HintLedger(64);
    for (let i = 0; i < 300_000; i++)
      ledger.add(i % 64, 1, ORIGIN, i, { skippedPages: 0, alreadySentPages: 0 });
    expect([ledger.blocks, ledger.pages]).toEqual([300_000, 300_000]);
    const history = ledger.historyOf(63);
    expect(history).toHaveLength(2 ** 18 / 64);
    expect(history[0]).toContain('consumed at 63 ns');
    expect(history.at(-1)).toContain(`consumed at ${2 ** 18 - 1} ns`);
  });
});
