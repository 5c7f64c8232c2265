/**
 * Six orders of a write and a hint on a real QEMU, whose vCPU writes and whose destination is a second
 * QEMU: what our own migration says of them (test/e2e/hint-orders.test.ts) is what
 * happens, with the log of TCG and with both of KVM.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { afterAll, describe, expect, test } from 'vitest';
import { ACCELERATORS, troubleWith } from '../../peers/qemu/accelerator.ts';
import { QemuMachine } from '../../peers/qemu/machine.ts';
import {
  type QemuAccelerator,
  QemuProcess,
  type QemuRunOptions,
} from '../../peers/qemu/process.ts';
import { qemuProgram } from '../../peers/qemu/program.ts';
import type { QmpObject } from '../../peers/qemu/qmp.ts';
import { WritingVcpu, writerFirmware } from '../../peers/qemu/writer.ts';
import type { DirtyLogPolicy } from '../../protocol/index.ts';
import { MIB, PAGE_SIZE_BYTES, type Pfn, pfnToGpa } from '../../shared/index.ts';
import { hint, sendId } from '../conformance/migration.ts';
import { Puppet } from '../conformance/puppet.ts';
import { HINT_ORDERS, type HintOrder, ORDER_PAGES } from '../support/hint-orders.ts';

const GIB = 1024 * MIB;
const RAM_PAGES = (2 * GIB) / PAGE_SIZE_BYTES;
const PFN: Readonly<Record<'P' | 'Q', Pfn>> = {
  P: (GIB + 16 * MIB) / PAGE_SIZE_BYTES,
  Q: (GIB + 64 * MIB) / PAGE_SIZE_BYTES,
};
const OLD = 0x1111_1111;
const NEW = 0xabcd_0001;
/** Sent first, and slowly: the round of hinting is over before the migration comes to P. */
const FILLER = { gpa: 2 * MIB, lengthBytes: 2 * MIB, byte: 0x5a } as const;
const SLOW = { bandwidthBytesPerS: 4096, downtimeLimitMs: 300 };
const FAST = { bandwidthBytesPerS: 16 * GIB, downtimeLimitMs: 300 };

const folder = mkdtempSync(`${tmpdir()}/hint-orders-`);
afterAll(() => rmSync(folder, { recursive: true }));
let migrations = 0;

/** What the destination has in the pages of P. */
async function arrived(order: HintOrder, accelerator: QemuAccelerator): Promise<number[]> {
  const path = `${folder}/${++migrations}.sock`;
  const balloon = { freePageHint: true };
  const { clearBitmapShift } = order;
  const run: QemuRunOptions = {
    accelerator,
    firmware: writerFirmware(),
    ...(clearBitmapShift === undefined ? {} : { clearBitmapShift }),
  };
  const [machine, destination] = await Promise.all([
    QemuMachine.start(qemuProgram(), 'mmio', { ramPages: RAM_PAGES, offers: balloon }, run),
    QemuProcess.start(qemuProgram(), {
      ...run,
      transport: 'mmio',
      ramPages: RAM_PAGES,
      balloon,
      incomingPath: path,
    }),
  ]);
  try {
    await migrateInOrder(machine, order, path);
    await hasArrived(destination);
    const words = Array.from({ length: ORDER_PAGES }, (_, i) =>
      destination.qtest.read32(pfnToGpa(PFN.P + i)),
    );
    return await Promise.all(words);
  } finally {
    await Promise.all([machine[Symbol.asyncDispose](), destination[Symbol.asyncDispose]()]);
  }
}

/** The source is done when it has written everything; the destination may still be reading. */
async function hasArrived({ qmp }: QemuProcess): Promise<void> {
  for (let tries = 0; tries < 2000; tries++) {
    const { status } = await qmp.execute<QmpObject>('query-status');
    if (status !== 'inmigrate') return;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  throw new Error('the destination did not end in 10 s');
}

async function migrateInOrder(machine: QemuMachine, order: HintOrder, path: string): Promise<void> {
  const { qtest } = machine.registers;
  const vcpu = new WritingVcpu(qtest);
  const puppet = new Puppet(machine);
  const bench = { machine, puppet, run: machine.run.bind(machine) };
  await bench.run(() => puppet.boot());
  for (const pfn of Object.values(PFN)) {
    // The rings of the driver lie elsewhere.
    expect(machine.system.mm.isFree(pfn)).toBe(true);
    await vcpu.write(pfnToGpa(pfn), ORDER_PAGES, OLD);
  }
  qtest.memset(FILLER.gpa, FILLER.lengthBytes, FILLER.byte);
  await machine.control.migrateTo(path, SLOW);
  await sendId(bench, await bench.run(() => puppet.change('free_page_hint_cmd_id', 0)));
  for (const step of order.steps) {
    if ('hint' in step) await hint(bench, PFN[step.hint], ORDER_PAGES);
    else await vcpu.write(pfnToGpa(PFN[step.write]), ORDER_PAGES, NEW);
  }
  // The first round has not come to P: all behind it is still to be sent.
  const { status, remainingBytes } = await machine.control.queryMigration();
  expect(status).toBe('active');
  expect(remainingBytes).toBeGreaterThan((RAM_PAGES - PFN.P) * PAGE_SIZE_BYTES);
  await machine.control.setMigrationLimits(FAST);
  const isOver = async (): Promise<boolean> =>
    (await machine.control.queryMigration()).status === 'completed';
  await machine.until(isOver, 'the migration');
}

const accelerators = await Promise.all(
  Object.entries(ACCELERATORS).map(async ([policy, accelerator]) => {
    const trouble = await troubleWith(qemuProgram(), accelerator);
    const title = `-accel ${accelerator}${trouble === null ? '' : ` (not here: ${trouble})`}`;
    return { policy: policy as DirtyLogPolicy, accelerator, trouble, title };
  }),
);

test('TCG runs everywhere', () => {
  expect(accelerators.find(({ policy }) => policy === 'tcg')?.trouble).toBeNull();
});

for (const { policy, accelerator, trouble, title } of accelerators) {
  describe.skipIf(trouble !== null)(`QEMU with ${title}`, () => {
    test.each(HINT_ORDERS.map((order) => [order.name, order] as const))('%s', async (_, order) => {
      const words = await arrived(order, accelerator);
      // Of pages that nobody wrote after the id, the destination may have anything; it has nothing.
      const isWritten = order.steps.some((step) => 'write' in step);
      const correct = words.filter((word) => word === (isWritten ? NEW : 0));
      expect(correct.length).toBe(order.correctPages[policy]);
    });
  });
}
