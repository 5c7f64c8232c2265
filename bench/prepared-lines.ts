/**
 * The work of a ring in QEMU's memory before the clock starts: what is left to send is the index
 * and the kick of each batch, and for a report its descriptors. What is measured is QEMU alone.
 */

import type { Segment } from '../guest/virtio/queue.ts';
import type { QemuMachine } from '../peers/qemu/machine.ts';
import type { QtestClient } from '../peers/qemu/qtest.ts';
import { AvailFlag, AvailHeader, Desc, DescFlag, UsedHeader, writeLe64 } from '../protocol/index.ts';
import { type PeerDriver, ringOf, type Work } from './peer-driver.ts';

const U16_MASK = 0xffff;
const POLL_LIMIT = 100_000;

/** Seconds of wall time. */
export async function measurePreparedLines(
  driver: PeerDriver<QemuMachine>,
  work: Work,
): Promise<number> {
  const { qtest } = driver.machine.registers;
  const { areas, size } = driver.queue(work.queue);
  const ring = ringOf(work, size);
  const usedAt = areas.deviceGpa + UsedHeader.offsets.idx;
  let index = await qtest.read16(usedAt);
  // Slot i names chain i: whatever the index is, chains of two batches are different ones.
  const heads = Uint16Array.from({ length: size }, (_, i) => (i % ring.chains) * ring.descriptors);
  qtest.writeBytes(areas.driverGpa + AvailHeader.sizeBytes, new Uint8Array(heads.buffer));
  // Nobody listens to interrupts: the used index is read.
  qtest.write16(areas.driverGpa + AvailHeader.offsets.flags, AvailFlag.NO_INTERRUPT);
  let seconds = 0;
  for (let round = 0; round < work.rounds; round++) {
    if (round > 0) await driver.touch(work);
    const tables = descriptorTables(driver, work, ring.chains);
    await writeTable(qtest, areas.descGpa, tables[0]!);
    const startMs = performance.now();
    const underWay: number[] = [];
    for (let done = 0; done < work.chainsPerRound; done += ring.batch) {
      if (underWay.length * ring.batch >= ring.chains) await used(qtest, usedAt, underWay.shift()!);
      if (tables.length > 1) qtest.writeBytes(areas.descGpa, tables[done / ring.batch]!);
      index = (index + ring.batch) & U16_MASK;
      qtest.write16(areas.driverGpa + AvailHeader.offsets.idx, index);
      driver.machine.registers.notify(driver.queue(work.queue).index);
      underWay.push(index);
    }
    await used(qtest, usedAt, index);
    seconds += (performance.now() - startMs) / 1e3;
  }
  return seconds;
}

async function writeTable(qtest: QtestClient, gpa: number, table: Uint8Array): Promise<void> {
  qtest.writeBytes(gpa, table);
  await qtest.read16(gpa);
}

/** The used index has come so far. */
async function used(qtest: QtestClient, usedAt: number, index: number): Promise<void> {
  for (let i = 0; i < POLL_LIMIT; i++) {
    const ahead = ((await qtest.read16(usedAt)) - index) & U16_MASK;
    if (ahead < 0x8000) return;
  }
  throw new Error('QEMU does not use what it was given');
}

/** One table for as many chains as the ring has; several where each chain fills it. */
function descriptorTables(driver: PeerDriver, work: Work, chains: number): Uint8Array[] {
  const tables: Uint8Array[] = [];
  const last = chains === 1 ? work.chainsPerRound : 1;
  for (let first = 0; first < last; first++) {
    const segments: (Segment & { writable: boolean; next: boolean })[] = [];
    for (let i = first; i < first + chains; i++) {
      const { out = [], in: writable = [] } = driver.chain(work, i);
      for (const one of out) segments.push({ ...one, writable: false, next: false });
      writable.forEach((one, at) => {
        segments.push({ ...one, writable: true, next: at + 1 < writable.length });
      });
    }
    tables.push(tableOf(segments));
  }
  return tables;
}

function tableOf(
  segments: readonly (Segment & { writable: boolean; next: boolean })[],
): Uint8Array {
  const bytes = new Uint8Array(segments.length * Desc.sizeBytes);
  const view = new DataView(bytes.buffer);
  segments.forEach(({ gpa, lengthBytes, writable, next }, i) => {
    const at = i * Desc.sizeBytes;
    writeLe64(view, at + Desc.offsets.addr, gpa);
    view.setUint32(at + Desc.offsets.len, lengthBytes, true);
    const flags = (writable ? DescFlag.WRITE : 0) | (next ? DescFlag.NEXT : 0);
    view.setUint16(at + Desc.offsets.flags, flags, true);
    view.setUint16(at + Desc.offsets.next, next ? i + 1 : 0, true);
  });
  return bytes;
}
