/**
 * The work of a ring as lines of qtest that are ready before the clock starts: descriptors,
 * available ring and kick of each batch, sent all at once. What is measured is QEMU alone.
 */
import type { DriverQueue } from '../guest/virtio/queue.ts';
import type { QemuMachine } from '../peers/qemu/machine.ts';
import { availRingBytes, descTableBytes } from '../protocol/index.ts';
import { gpaToPfn, PAGE_SIZE_BYTES } from '../shared/index.ts';
import type { PeerDriver, Work } from './peer-driver.ts';

const U16_MASK = 0xffff;
const POLL_LIMIT = 100_000;

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
  let expected = startIndex;
  for (const { writes, size } of batches) {
    for (const { gpa, data } of writes) qtest.writeBytes(gpa, data);
    machine.registers.notify(queue.index);
    expected = (expected + size) & U16_MASK;
    // The ring is written again only when the device is through with it.
    for (let i = 0; (await qtest.read16(usedAt)) !== expected; i++) {
      if (i > POLL_LIMIT) throw new Error('QEMU does not use what it was given');
    }
  }
  return (performance.now() - startMs) / 1e3;
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
  const perBatch = work.queue === 'reporting_vq' ? 1 : queue.size;
  const view = viewOf(driver, queue.areas.deviceGpa);
  let used = view.getUint16(2, true);
  for (let done = 0; done < chains; done += perBatch) {
    const size = Math.min(perBatch, chains - done);
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
    used = takeBack(queue, view, avail, used, size);
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
