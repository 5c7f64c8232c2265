/**
 * The work of a ring as it will be in QEMU's memory, before the clock starts: what is sent is the
 * descriptors of each batch, the index and the kick. What is measured is QEMU alone.
 */

import type { QemuMachine } from '../peers/qemu/machine.ts';
import type { QtestClient } from '../peers/qemu/qtest.ts';
import {
  AvailFlag,
  AvailHeader,
  Desc,
  DescFlag,
  UsedHeader,
  writeLe64,
} from '../protocol/index.ts';
import { type PeerDriver, ringOf, type Work } from './peer-driver.ts';

const U16_MASK = 0xffff;
const POLL_LIMIT = 100_000;

/** Seconds of wall time. */
export async function measurePreparedLines(
  driver: PeerDriver<QemuMachine>,
  work: Work,
): Promise<number> {
  const { registers } = driver.machine;
  const { qtest } = registers;
  const { areas, size, index: queue } = driver.queue(work.queue);
  const ring = ringOf(work, size);
  const usedAt = areas.deviceGpa + UsedHeader.offsets.idx;
  let index = await qtest.read16(usedAt);
  // Slot i names chain i, whatever the index is: chains of two batches are different ones.
  const heads = Uint16Array.from({ length: size }, (_, i) => (i % ring.chains) * ring.descriptors);
  qtest.writeBytes(areas.driverGpa + AvailHeader.sizeBytes, new Uint8Array(heads.buffer));
  // Nobody listens to interrupts: the used index is read.
  qtest.write16(areas.driverGpa + AvailHeader.offsets.flags, AvailFlag.NO_INTERRUPT);
  let seconds = 0;
  for (let round = 0; round < work.rounds; round++) {
    if (round > 0) await driver.touch(work);
    const batches = prepareBatches(driver, work, ring, areas.descGpa, index);
    // Readable buffers are as many as the ring has chains, and are there already.
    for (let i = 0; i < ring.chains; i++) {
      for (const { gpa } of driver.chain(work, i).out ?? []) {
        qtest.writeBytes(gpa, driver.bytesOf(driver.chain(work, i)));
      }
    }
    await qtest.read16(usedAt);
    const startMs = performance.now();
    const underWay: number[] = [];
    for (const writes of batches) {
      if (underWay.length * ring.batch >= ring.chains) await used(qtest, usedAt, underWay.shift()!);
      for (const { gpa, data } of writes) qtest.writeBytes(gpa, data);
      index = (index + ring.batch) & U16_MASK;
      qtest.write16(areas.driverGpa + AvailHeader.offsets.idx, index);
      registers.notify(queue);
      underWay.push(index);
    }
    await used(qtest, usedAt, index);
    seconds += (performance.now() - startMs) / 1e3;
  }
  return seconds;
}

/** The used index has come so far. */
async function used(qtest: QtestClient, usedAt: number, index: number): Promise<void> {
  for (let i = 0; i < POLL_LIMIT; i++) {
    const ahead = ((await qtest.read16(usedAt)) - index) & U16_MASK;
    if (ahead < 0x8000) return;
  }
  throw new Error('QEMU does not use what it was given');
}

interface Write {
  readonly gpa: number;
  readonly data: Uint8Array;
}

/** The descriptors of each batch, which begins where the index stands. */
function prepareBatches(
  driver: PeerDriver,
  work: Work,
  { batch, chains, descriptors }: ReturnType<typeof ringOf>,
  descGpa: number,
  startIndex: number,
): Write[][] {
  const batches: Write[][] = [];
  for (let first = 0; first < work.chainsPerRound; first += batch) {
    const start = (startIndex + first) % chains;
    // Up to the end of the ring, and on from its beginning.
    const upToEnd = Math.min(batch, chains - start);
    const pieces = [{ place: start, from: first, count: upToEnd }];
    if (upToEnd < batch) pieces.push({ place: 0, from: first + upToEnd, count: batch - upToEnd });
    batches.push(
      pieces.map(({ place, from, count }) => ({
        gpa: descGpa + place * descriptors * Desc.sizeBytes,
        data: tableOf(driver, work, from, count, place * descriptors),
      })),
    );
  }
  return batches;
}

/** Descriptors of `count` chains from the `from`-th on; the first of them has that number. */
function tableOf(
  driver: PeerDriver,
  work: Work,
  from: number,
  count: number,
  firstId: number,
): Uint8Array {
  const segments: { gpa: number; lengthBytes: number; flags: number }[] = [];
  for (let i = from; i < from + count; i++) {
    const { out = [], in: writable = [] } = driver.chain(work, i);
    for (const one of out) segments.push({ ...one, flags: 0 });
    writable.forEach((one, at) => {
      const next = at + 1 < writable.length ? DescFlag.NEXT : 0;
      segments.push({ ...one, flags: DescFlag.WRITE | next });
    });
  }
  const bytes = new Uint8Array(segments.length * Desc.sizeBytes);
  const view = new DataView(bytes.buffer);
  segments.forEach(({ gpa, lengthBytes, flags }, i) => {
    const at = i * Desc.sizeBytes;
    writeLe64(view, at + Desc.offsets.addr, gpa);
    view.setUint32(at + Desc.offsets.len, lengthBytes, true);
    view.setUint16(at + Desc.offsets.flags, flags, true);
    view.setUint16(at + Desc.offsets.next, flags & DescFlag.NEXT ? firstId + i + 1 : 0, true);
  });
  return bytes;
}
