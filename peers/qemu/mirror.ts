/**
 * The guest's byte-backed memory (rings, buffers) and QEMU's copy of it at the same addresses. What
 * the driver changed is sent before a kick, found by comparing with what we last knew of QEMU's
 * memory; what the device wrote is read back. Order is that of a driver with barriers: buffers and
 * descriptors first, what makes them available last.
 */
import type { Ram } from '../../guest/machine/ram.ts';
import type { DriverQueue } from '../../guest/virtio/queue.ts';
import { AvailHeader, Desc, UsedElem, UsedHeader, usedRingBytes } from '../../protocol/index.ts';
import { type Gpa, gpaToPfn, PAGE_SIZE_BYTES, type Pfn, pfnToGpa } from '../../shared/index.ts';
import type { QtestClient } from './qtest.ts';

/** Flags of a packed descriptor are its last two bytes. */
const PACKED_FLAGS_OFFSET = 14;
const U16_MASK = 0xffff;
/** Two changed runs with less than this between them go out as one. */
const MERGE_GAP_BYTES = 16;

interface MirroredPage {
  /** The live bytes, as the guest has them. */
  readonly bytes: Uint8Array;
  /** As QEMU has them. */
  readonly shadow: Uint8Array;
  tag: number;
}

/** A queue that the device has, and how far it is known. */
export class MirroredQueue {
  readonly queue: DriverQueue;
  readonly isPacked: boolean;
  /** Split: used.idx as read last. */
  usedIndex = 0;
  /** Packed: the slot at which the device looks next. */
  nextSlot = 0;
  /** The device used something since its callback ran last. */
  hasNews = false;

  constructor(queue: DriverQueue, isPacked: boolean) {
    this.queue = queue;
    this.isPacked = isPacked;
  }
}

/** Bytes from `start` to `end` of one page. */
interface Run {
  readonly gpa: Gpa;
  readonly start: number;
  end: number;
}

export class MemoryMirror {
  readonly #ram: Ram;
  readonly #qtest: QtestClient;
  readonly #pages = new Map<Pfn, MirroredPage>();

  constructor(ram: Ram, qtest: QtestClient) {
    this.#ram = ram;
    this.#qtest = qtest;
  }

  /** Send everything that changed; what makes chains of `queues` available goes last. */
  flush(queues: Iterable<MirroredQueue>): void {
    const runs = this.#changedRuns();
    if (runs.length === 0) return;
    const held: (() => void)[] = [];
    for (const queue of queues) {
      if (queue.isPacked) this.#holdPacked(queue, runs, held);
      else this.#holdSplit(queue, runs, held);
    }
    for (const { gpa, start, end } of runs) this.#send(gpa + start, end - start);
    for (const send of held) send();
  }

  /** Read what the device used since the last time into the guest's memory. */
  async readUsed(mirrored: MirroredQueue): Promise<void> {
    if (mirrored.isPacked) await this.#readPacked(mirrored);
    else await this.#readSplit(mirrored);
  }

  /** Read what the device says about kicks. */
  async readSuppression({ queue, isPacked }: MirroredQueue): Promise<void> {
    const { deviceGpa } = queue.areas;
    if (isPacked) return this.#fetch(deviceGpa, 4);
    const eventOffset = usedRingBytes(queue.size) - 2;
    await Promise.all([this.#fetch(deviceGpa, 2), this.#fetch(deviceGpa + eventOffset, 2)]);
  }

  /** Pages whose live bytes differ from QEMU's, run by run, ascending in each page. */
  #changedRuns(): Run[] {
    const runs: Run[] = [];
    for (const [pfn, bytes] of this.#ram.backed) {
      const page = this.#pageOf(pfn, bytes);
      const tag = this.#ram.tags[pfn]!;
      if (page.tag === tag) continue;
      page.tag = tag;
      appendRuns(runs, pfnToGpa(pfn), page);
    }
    return runs;
  }

  /** A frame seen for the first time goes out whole: nobody knows what QEMU has there. */
  #pageOf(pfn: Pfn, bytes: Uint8Array): MirroredPage {
    const known = this.#pages.get(pfn);
    if (known?.bytes === bytes) return known;
    this.#qtest.writeBytes(pfnToGpa(pfn), bytes);
    const page = { bytes, shadow: bytes.slice(), tag: this.#ram.tags[pfn]! };
    this.#pages.set(pfn, page);
    return page;
  }

  /** avail.idx goes out after the ring. */
  #holdSplit({ queue }: MirroredQueue, runs: Run[], held: (() => void)[]): void {
    const at = queue.areas.driverGpa + AvailHeader.offsets.idx;
    if (cutOut(runs, at, 2)) held.push(() => this.#send(at, 2));
  }

  /** The flags of the slot that the device looks at go out after all other descriptors. */
  #holdPacked(mirrored: MirroredQueue, runs: Run[], held: (() => void)[]): void {
    const { queue, nextSlot } = mirrored;
    const at = queue.areas.descGpa + nextSlot * Desc.sizeBytes;
    const changed = countSlots(runs, queue);
    if (changed === 0) return;
    mirrored.nextSlot = (nextSlot + changed) % queue.size;
    const flagsAt = at + PACKED_FLAGS_OFFSET;
    if (cutOut(runs, flagsAt, 2)) held.push(() => this.#send(flagsAt, 2));
  }

  async #readSplit(mirrored: MirroredQueue): Promise<void> {
    const { deviceGpa } = mirrored.queue.areas;
    const { size } = mirrored.queue;
    const header = await this.#qtest.readBytes(deviceGpa, UsedHeader.sizeBytes);
    const view = new DataView(header.buffer, header.byteOffset, header.byteLength);
    const usedIndex = view.getUint16(UsedHeader.offsets.idx, true);
    const count = Math.min((usedIndex - mirrored.usedIndex) & U16_MASK, size);
    if (count > 0) {
      const first = mirrored.usedIndex % size;
      const ringGpa = deviceGpa + UsedHeader.sizeBytes;
      const upper = Math.min(count, size - first);
      await Promise.all([
        this.#fetch(ringGpa + first * UsedElem.sizeBytes, upper * UsedElem.sizeBytes),
        this.#fetch(ringGpa, (count - upper) * UsedElem.sizeBytes),
      ]);
      mirrored.usedIndex = usedIndex;
      mirrored.hasNews = true;
    }
    this.#store(deviceGpa, header);
  }

  /** Slots that differ from what we knew were written by the device: the driver's own are known. */
  async #readPacked(mirrored: MirroredQueue): Promise<void> {
    const { queue } = mirrored;
    const { descGpa } = queue.areas;
    const ring = await this.#qtest.readBytes(descGpa, queue.size * Desc.sizeBytes);
    for (let slot = 0; slot < queue.size; slot++) {
      const at = slot * Desc.sizeBytes;
      if (!this.#differs(descGpa + at, ring, at)) continue;
      this.#store(descGpa + at, ring.subarray(at, at + Desc.sizeBytes));
      mirrored.hasNews = true;
    }
  }

  #differs(gpa: Gpa, bytes: Uint8Array, from: number): boolean {
    const page = this.#pages.get(gpaToPfn(gpa));
    if (!page) return false;
    const offset = gpa % PAGE_SIZE_BYTES;
    for (let i = 0; i < Desc.sizeBytes; i++) {
      if (page.shadow[offset + i] !== bytes[from + i]) return true;
    }
    return false;
  }

  async #fetch(gpa: Gpa, lengthBytes: number): Promise<void> {
    if (lengthBytes > 0) this.#store(gpa, await this.#qtest.readBytes(gpa, lengthBytes));
  }

  /** The device wrote this: into the guest's memory, and remembered as known. */
  #store(gpa: Gpa, data: Uint8Array): void {
    for (let at = 0; at < data.length; ) {
      const offset = (gpa + at) % PAGE_SIZE_BYTES;
      const length = Math.min(PAGE_SIZE_BYTES - offset, data.length - at);
      const page = this.#pages.get(gpaToPfn(gpa + at));
      const piece = data.subarray(at, at + length);
      page?.bytes.set(piece, offset);
      page?.shadow.set(piece, offset);
      at += length;
    }
  }

  #send(gpa: Gpa, lengthBytes: number): void {
    const page = this.#pages.get(gpaToPfn(gpa));
    if (!page || lengthBytes === 0) return;
    const offset = gpa % PAGE_SIZE_BYTES;
    const data = page.bytes.subarray(offset, offset + lengthBytes);
    page.shadow.set(data, offset);
    this.#qtest.writeBytes(gpa, data);
  }
}

function appendRuns(runs: Run[], gpa: Gpa, { bytes, shadow }: MirroredPage): void {
  let run: Run | null = null;
  for (let i = 0; i < PAGE_SIZE_BYTES; i++) {
    if (bytes[i] === shadow[i]) continue;
    if (run && i - run.end < MERGE_GAP_BYTES) {
      run.end = i + 1;
    } else {
      run = { gpa, start: i, end: i + 1 };
      runs.push(run);
    }
  }
}

/** Takes the bytes [at, at + length) out of the runs; false if none of them is in one. */
function cutOut(runs: Run[], at: Gpa, length: number): boolean {
  let found = false;
  for (let i = runs.length - 1; i >= 0; i--) {
    const run = runs[i]!;
    const [start, end] = [at - run.gpa, at - run.gpa + length];
    if (end <= run.start || start >= run.end) continue;
    found = true;
    const rest: Run[] = [];
    if (start > run.start) rest.push({ gpa: run.gpa, start: run.start, end: start });
    if (end < run.end) rest.push({ gpa: run.gpa, start: end, end: run.end });
    runs.splice(i, 1, ...rest);
  }
  return found;
}

/** How many descriptors of a packed ring lie in the runs, whole or in part. */
function countSlots(runs: readonly Run[], { areas, size }: DriverQueue): number {
  const slots = new Set<number>();
  for (const { gpa, start, end } of runs) {
    const first = Math.floor((gpa + start - areas.descGpa) / Desc.sizeBytes);
    const last = Math.floor((gpa + end - 1 - areas.descGpa) / Desc.sizeBytes);
    for (let slot = Math.max(0, first); slot <= Math.min(last, size - 1); slot++) slots.add(slot);
  }
  return slots.size;
}
