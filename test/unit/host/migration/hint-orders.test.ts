/** The verdicts that real QEMUs gave, on our migration thread, our log and our device's hints. */
import { describe, expect, test } from 'vitest';
import { DirtyLog } from '../../../../guest/machine/dirty-log.ts';
import { Precopy } from '../../../../host/migration/precopy.ts';
import type { MigrationMachine, MigrationReply } from '../../../../host/migration/thread.ts';
import {
  DEFAULT_DIRTY_LOG,
  DIRTY_LOG_POLICIES,
  type DirtyLogParams,
  HINT_REMEDIES,
  type Message,
} from '../../../../protocol/index.ts';
import { Bitmap, DEFAULT_COSTS, MIB } from '../../../../shared/index.ts';
import { HINT_ORDERS, type HintOrder, ORDER_PAGES } from '../../../support/hint-orders.ts';

const RAM_PAGES = (2048 * MIB) / 4096;
const P = (1024 * MIB + 16 * MIB) / 4096;
const Q = (1024 * MIB + 64 * MIB) / 4096;
const OLD = 1;
const NEW = 2;

/** Pages of P that arrive as they are at the source. */
function correctPages({ steps }: HintOrder, log: DirtyLogParams): number {
  const tags = new Uint32Array(RAM_PAGES);
  tags.fill(OLD, P, P + ORDER_PAGES).fill(OLD, Q, Q + ORDER_PAGES);
  const destination = new Uint32Array(RAM_PAGES);
  const dirtyLog = new DirtyLog(RAM_PAGES);
  const ram = Bitmap.allSet(RAM_PAGES);
  const machine: MigrationMachine = {
    now: 0,
    options: { ramPages: RAM_PAGES, ram, costs: DEFAULT_COSTS },
    log: { add: () => {} },
    device: { canHint: true, hintCmdId: 1, hintStart: () => true, hintStop() {}, hintDone() {} },
    running: true,
    post: (message: Message) => {
      if (message.name === 'clearDirtyLog') dirtyLog.clear(message.first_pfn, message.bits);
      if (message.name !== 'dirtyLogEnable') return;
      const { enabled, initially_set, ring_entries } = message;
      dirtyLog.enable(enabled, { initiallySet: initially_set, ringEntries: ring_entries });
    },
    emit: () => {},
  };
  const precopy = new Precopy(
    machine,
    { bandwidthBytesPerS: 4096 * MIB, downtimeLimitMs: 300, ...log },
    {
      page: (pfn, tag) => {
        destination[pfn] = tag;
      },
      mark: () => {},
    },
    { hinted: () => {}, progress: () => {} },
  );
  const play = (): void => {
    for (const step of steps) {
      if ('hint' in step) {
        precopy.applyHint(step.hint === 'P' ? P : Q, ORDER_PAGES, { cmdId: 1, queuedAtNs: 0 });
        continue;
      }
      for (let pfn = P; pfn < P + ORDER_PAGES; pfn++) {
        tags[pfn] = NEW;
        dirtyLog.mark(pfn);
      }
    }
  };
  let isFirst = true;
  const thread = precopy.run();
  for (let step = thread.next(); !step.done; ) {
    let reply: MigrationReply;
    if (step.value.kind === 'dirtyLog') reply = dirtyLog.take(step.value.clear);
    if (step.value.kind === 'records') reply = recordsOf(tags, step.value.ranges);
    if (step.value.kind === 'passStarted' && isFirst) {
      isFirst = false;
      play();
    }
    step = thread.next(reply);
  }
  return countWhere(P, (pfn) => tags[pfn] === destination[pfn]);
}

function recordsOf(tags: Uint32Array, ranges: Uint32Array): Uint32Array {
  const records: number[] = [];
  for (let i = 0; i < ranges.length; i += 2) {
    for (let j = 0; j < ranges[i + 1]!; j++) records.push(tags[ranges[i]! + j]!);
  }
  return Uint32Array.from(records);
}

function countWhere(first: number, holds: (pfn: number) => boolean): number {
  let count = 0;
  for (let pfn = first; pfn < first + ORDER_PAGES; pfn++) if (holds(pfn)) count++;
  return count;
}

const written = HINT_ORDERS.filter(({ steps }) => steps.some((step) => 'write' in step));

describe.each(DIRTY_LOG_POLICIES)('with the log of %s', (dirtyLog) => {
  test.each(written.map((order) => [order.name, order] as const))('%s', (_name, order) => {
    const { clearBitmapShift = DEFAULT_DIRTY_LOG.clearBitmapShift } = order;
    const log = { ...DEFAULT_DIRTY_LOG, dirtyLog, clearBitmapShift };
    expect(correctPages(order, log)).toBe(order.correctPages[dirtyLog]);
  });

  test('a page that is hinted and not written is not sent', () => {
    const order = HINT_ORDERS.find(({ name }) => name === 'hint only')!;
    expect(correctPages(order, { ...DEFAULT_DIRTY_LOG, dirtyLog })).toBe(0);
  });
});

describe.each(HINT_REMEDIES.filter((remedy) => remedy !== 'none'))('with remedy %s', (remedy) => {
  test.each(written.map((order) => [order.name, order] as const))('%s', (_name, order) => {
    const { clearBitmapShift = DEFAULT_DIRTY_LOG.clearBitmapShift } = order;
    const log = { dirtyLog: 'kvm-bitmap', hintRemedy: remedy, clearBitmapShift } as const;
    expect(correctPages(order, log)).toBe(ORDER_PAGES);
  });
});
