/**
 * The work of a ring as lines of qtest that are ready before the clock starts: descriptors,
 * available ring and kick of each batch, sent all at once. What is measured is QEMU alone.
 */
import type { DriverQueue } from '../guest/virtio/queue.ts';
import type { QemuMachine } from '../peers/qemu/machine.ts';
import type { QtestClient } from '../peers/qemu/qtest.ts';
import { availRingBytes, descTableBytes } from '../protocol/index.ts';
import { gpaToPfn, PAGE_SIZE_BYTES } from '../shared/index.ts';
import type { PeerDriver, Work } from './peer-driver.ts';

const U16_MASK = 0xffff;
const POLL_LIMIT = 100_000;
/** Two halves of the ring in turn, so that QEMU is never out of work. */
const BATCHES_UNDER_WAY = 2;

interface Write {
  readonly gpa: number;
  readonly data: Uint8Array;
}

/** Seconds of wall time. */
export async function measurePrepared(
  driver: PeerDriver<QemuMachine>,
  work: Work,
): Promise<number> {
  const { machine } = driver;
  const { qtest } = machine.registers;
  const queue = driver.queue(work.queue);
  const usedAt = queue.areas.deviceGpa + 2;
  const chains = work.count / work.perChain;
  const startIndex = await qtest.read16(usedAt);
  const batches = prepare(driver, work, queue, chains);
  await qtest.read16(usedAt);
  const startMs = performance.now();
  let given = startIndex;
  const marks: number[] = [];
  const descriptors = work.queue === 'reporting_vq' ? work.perChain : 1;
  const underWay = Math.min(BATCHES_UNDER_WAY, Math.floor(queue.size / descriptors));
  for (const { writes, size } of batches) {
    // A batch takes the descriptors of the one before the last.
    if (marks.length >= underWay) await used(qtest, usedAt, marks.shift()!);
    for (const { gpa, data } of writes) qtest.writeBytes(gpa, data);
    machine.registers.notify(queue.index);
    given = (given + size) & U16_MASK;
    marks.push(given);
  }
  await used(qtest, usedAt, given);
  return (performance.now() - startMs) / 1e3;
}

/** The used index has come so far. */
async function used(qtest: QtestClient, usedAt: number, index: number): Promise<void> {
  for (let i = 0; i < POLL_LIMIT; i++) {
    const ahead = ((await qtest.read16(usedAt)) - index) & U16_MASK;
    if (ahead < 0x8000) return;
  }
  throw new Error('QEMU does not use what it was given');
}

/** Fills the driver's own ring and copies it, batch by batch, as if the device had used each. */
function prepare(
  driver: PeerDriver<QemuMachine>,
  work: Work,
  queue: DriverQueue,
  chains: number,
): { readonly writes: readonly Write[]; readonly size: number }[] {
  const batches: { writes: Write[]; size: number }[] = [];
  const { ram } = driver.machine.system;
  const descriptors = work.queue === 'reporting_vq' ? work.perChain : 1;
  const perBatch = Math.max(1, Math.floor(queue.size / descriptors / BATCHES_UNDER_WAY));
  const view = viewOf(driver, queue.areas.deviceGpa);
  let usedIndex = view.getUint16(2, true);
  const outstanding: number[] = [];
  for (let done = 0; done < chains; done += perBatch) {
    const size = Math.min(perBatch, chains - done);
    while (queue.freeCount < size * descriptors) {
      const avail = copy(driver, queue.areas.driverGpa, availRingBytes(queue.size));
      usedIndex = takeBack(queue, view, avail, usedIndex, outstanding.shift()!);
    }
    outstanding.push(size);
    for (let i = 0; i < size; i++) driver.add(work, done + i);
    const buffers: Write[] = [];
    if (work.queue === 'inflateq') {
      for (const [pfn, bytes] of ram.backed) {
        if (pfn >= driver.bufferPfn && pfn < driver.bufferPfn + driver.bufferPages) {
          buffers.push({ gpa: pfn * PAGE_SIZE_BYTES, data: bytes.slice() });
        }
      }
    }
    const avail = copy(driver, queue.areas.driverGpa, availRingBytes(queue.size));
    const index = { gpa: queue.areas.driverGpa + 2, data: avail.subarray(2, 4) };
    const ring = { gpa: queue.areas.driverGpa + 4, data: avail.subarray(4) };
    const desc = copy(driver, queue.areas.descGpa, descTableBytes(queue.size));
    batches.push({
      writes: [...buffers, { gpa: queue.areas.descGpa, data: desc }, ring, index],
      size,
    });
  }
  return batches;
}

/** As the device would: every chain of the batch is used, in order. */
function takeBack(
  queue: DriverQueue,
  used: DataView,
  avail: Uint8Array,
  usedIndex: number,
  count: number,
): number {
  const heads = new DataView(avail.buffer, avail.byteOffset, avail.byteLength);
  let index = usedIndex;
  for (let i = 0; i < count; i++) {
    const slot = index % queue.size;
    used.setUint32(4 + slot * 8, heads.getUint16(4 + slot * 2, true), true);
    index = (index + 1) & U16_MASK;
  }
  used.setUint16(2, index, true);
  for (let i = 0; i < count; i++) queue.getUsed();
  return index;
}

function viewOf({ machine }: PeerDriver<QemuMachine>, gpa: number): DataView {
  const page = machine.system.ram.backed.get(gpaToPfn(gpa))!;
  return new DataView(page.buffer, page.byteOffset + (gpa % PAGE_SIZE_BYTES));
}

function copy({ machine }: PeerDriver<QemuMachine>, gpa: number, lengthBytes: number): Uint8Array {
  const bytes = machine.system.ram.readBytes(gpa, lengthBytes);
  if (!bytes) throw new Error('rings are byte-backed');
  return bytes;
}
