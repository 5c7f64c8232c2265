/**
 * Six orders of a write and a hint: the verdicts that real QEMUs gave, on our guest and our host in two
 * processes, with the queue, the ids and the stream between them. test/peers/qemu-hint-orders.test.ts
 * asks QEMU the same.
 */
import { describe, expect, test } from 'vitest';
import { BallastMachine } from '../../peers/ballast/machine.ts';
import {
  DEFAULT_DIRTY_LOG,
  DIRTY_LOG_POLICIES,
  type DirtyLogParams,
  HINT_REMEDIES,
} from '../../protocol/index.ts';
import { MIB, PAGE_SIZE_BYTES, type Pfn } from '../../shared/index.ts';
import { hint, Migration, sendId } from '../conformance/migration.ts';
import { Puppet } from '../conformance/puppet.ts';
import { HINT_ORDERS, type HintOrder, ORDER_PAGES } from '../support/hint-orders.ts';

const GIB = 1024 * MIB;
const RAM_PAGES = (GIB + 128 * MIB) / PAGE_SIZE_BYTES;
const PFN: Readonly<Record<'P' | 'Q', Pfn>> = {
  P: (GIB + 16 * MIB) / PAGE_SIZE_BYTES,
  Q: (GIB + 64 * MIB) / PAGE_SIZE_BYTES,
};
const OLD = 0x1111_1111;
const NEW = 0xabcd_0001;
/** The kernel's own pages come first, and hold the migration up until the round of hinting is over. */
const SLOW = { bandwidthBytesPerS: 4096, downtimeLimitMs: 1 };

/** What the destination has in the pages of P; null: nothing arrived there. */
async function arrived(order: HintOrder, dirtyLog: DirtyLogParams): Promise<(number | null)[]> {
  const offers = { freePageHint: true };
  await using machine = await BallastMachine.start({ ramPages: RAM_PAGES, offers });
  machine.control.dirtyLog = dirtyLog;
  const puppet = new Puppet(machine);
  const bench = { machine, puppet, run: machine.run.bind(machine) };
  await bench.run(() => puppet.boot());
  for (const pfn of Object.values(PFN)) {
    // The rings of the driver lie elsewhere.
    expect(machine.system.mm.isFree(pfn)).toBe(true);
    machine.fill(pfn, ORDER_PAGES, OLD);
  }
  const migration = await Migration.start(machine, SLOW);
  await sendId(bench, await bench.run(() => puppet.change('free_page_hint_cmd_id', 0)));
  for (const step of order.steps) {
    if ('hint' in step) await hint(bench, PFN[step.hint], ORDER_PAGES);
    else machine.fill(PFN[step.write], ORDER_PAGES, NEW);
  }
  expect((await machine.control.queryMigration()).status).toBe('active');
  await migration.finish();
  return Array.from({ length: ORDER_PAGES }, (_, i) => migration.received(PFN.P + i));
}

const isWritten = ({ steps }: HintOrder): boolean => steps.some((step) => 'write' in step);
const table = HINT_ORDERS.map((order) => [order.name, order] as const);

describe.each(DIRTY_LOG_POLICIES)('with the log of %s', (dirtyLog) => {
  test.each(table)('%s', async (_name, order) => {
    const { clearBitmapShift = DEFAULT_DIRTY_LOG.clearBitmapShift } = order;
    const words = await arrived(order, { ...DEFAULT_DIRTY_LOG, dirtyLog, clearBitmapShift });
    // Of pages that nobody wrote after the id, the destination may have anything; it has nothing.
    const correct = words.filter((word) => word === (isWritten(order) ? NEW : null));
    expect(correct.length).toBe(order.correctPages[dirtyLog]);
  });
});

describe.each(HINT_REMEDIES.filter((remedy) => remedy !== 'none'))(
  'with the bitmap of KVM and the remedy %s',
  (hintRemedy) => {
    test.each(table.filter(([, order]) => isWritten(order)))('%s', async (_name, order) => {
      const { clearBitmapShift = DEFAULT_DIRTY_LOG.clearBitmapShift } = order;
      const words = await arrived(order, { dirtyLog: 'kvm-bitmap', hintRemedy, clearBitmapShift });
      expect(words.filter((word) => word === NEW).length).toBe(ORDER_PAGES);
    });
  },
);
