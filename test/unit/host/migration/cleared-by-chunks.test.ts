import { describe, expect, test } from 'vitest';
import { ClearedByChunks } from '../../../../host/migration/cleared-by-chunks.ts';
import type { MigrationMachine } from '../../../../host/migration/thread.ts';
import { DEFAULT_DIRTY_LOG, type HintRemedy, type Message } from '../../../../protocol/index.ts';
import { Bitmap, DEFAULT_COSTS } from '../../../../shared/index.ts';

const CHUNK = 64;
const PAGES = 2 * CHUNK + 32;

function logOf(hintRemedy: HintRemedy, found: readonly number[] = []) {
  const posted: Message[] = [];
  const ram = Bitmap.allSet(PAGES);
  const machine: MigrationMachine = {
    now: 0,
    options: { ramPages: PAGES, ram, costs: DEFAULT_COSTS },
    log: { add: () => {} },
    device: { canHint: true, hintCmdId: 1, hintStart: () => true, hintStop() {}, hintDone() {} },
    running: true,
    post: (message) => void posted.push(message),
    throttle: () => {},
    emit: () => {},
  };
  const log = new ClearedByChunks(machine, ram, {
    ...DEFAULT_DIRTY_LOG,
    clearBitmapShift: 6,
    hintRemedy,
  });
  const sync = (): void => {
    const bits = new Bitmap(PAGES);
    for (const pfn of found) bits.set(pfn);
    const thread = log.sync();
    expect(thread.next().value).toEqual({ kind: 'dirtyLog', clear: false });
    thread.next(bits);
    const round = log.beforeRound();
    while (!round.next().done);
  };
  const clears = (): (readonly [number, number])[] =>
    posted
      .splice(0)
      .flatMap((message) =>
        message.name === 'clearDirtyLog' ? [[message.first_pfn, message.bits.length] as const] : [],
      );
  return { log, sync, clears, posted };
}

describe('a log that is cleared by chunks', () => {
  test('starts with all ones', () => {
    const { log, posted } = logOf('none');
    log.start();
    expect(posted).toEqual([
      { name: 'dirtyLogEnable', enabled: true, initially_set: true, ring_entries: 0 },
    ]);
  });

  test('clears each chunk once after a sync, before its first page is sent or hinted', () => {
    const { log, sync, clears } = logOf('none');
    log.beforeSend(0, 10);
    expect(clears()).toEqual([]);
    sync();
    log.beforeSend(7, 1);
    expect(clears()).toEqual([[0, CHUNK / 8]]);
    log.beforeHint(CHUNK - 1, 1);
    expect(clears()).toEqual([]);
    log.beforeHint(CHUNK - 1, PAGES - CHUNK + 1);
    expect(clears()).toEqual([[CHUNK, CHUNK / 8 + 4]]);
    log.beforeSend(0, PAGES);
    expect(clears()).toEqual([]);
    sync();
    log.beforeSend(0, 0);
    expect(clears()).toEqual([]);
    log.beforeSend(0, 1);
    expect(clears()).toHaveLength(1);
  });

  test('clears all of it when the id is issued, if that is the remedy', () => {
    const { log, sync, clears } = logOf('clear-at-id');
    sync();
    expect(clears()).toEqual([[0, PAGES / 8]]);
    log.beforeHint(0, PAGES);
    expect(clears()).toEqual([]);
  });

  test.each([
    ['none', true, true],
    ['clear-at-id', true, true],
    // What the sync has found dirty is not write-protected, so a write since then leaves no trace.
    ['cleared-chunks-only', false, true],
  ] as const)(
    '%s takes hints of pages that the sync found dirty: %s, and clean: %s',
    (remedy, dirty, clean) => {
      const { log, sync } = logOf(remedy, [5]);
      sync();
      log.beforeSend(0, 1);
      expect([log.mayTakeHint(5), log.mayTakeHint(6)]).toEqual([dirty, clean]);
    },
  );
});
