/** Flat guest memory for rings, and the hand of a driver that writes into it whatever it likes. */
import type { GuestBytes, QueueAreas } from '../guest/virtio/queue.ts';
import { Desc, DescFlag, PackedDesc, PackedDescFlag } from '../protocol/index.ts';

export const MEMORY_BYTES = 1 << 17;
/** Where things are: tables, buffers, and a ring with its areas apart. */
export const AREAS: QueueAreas = { descGpa: 0x1000, driverGpa: 0x4000, deviceGpa: 0x6000 };
export const TABLE_GPA = 0x8000;
export const DATA_GPA = 0x10000;

export interface Element {
  gpa: number;
  lengthBytes: number;
  flags: number;
  next: number;
}

export class RingMemory implements GuestBytes {
  readonly bytes = new Uint8Array(MEMORY_BYTES);
  readonly view = new DataView(this.bytes.buffer);

  map(gpa: number, lengthBytes: number): Uint8Array | null {
    if (gpa < 0 || gpa + lengthBytes > MEMORY_BYTES) return null;
    return this.bytes.subarray(gpa, gpa + lengthBytes);
  }

  touched(): void {}

  clear(): void {
    this.bytes.fill(0, 0, TABLE_GPA + 0x4000);
  }

  /** A descriptor of a split ring or of an indirect table. */
  putDesc(tableGpa: number, id: number, { gpa, lengthBytes, flags, next }: Element): void {
    const at = tableGpa + id * Desc.sizeBytes;
    this.#putAddress(at + Desc.offsets.addr, gpa);
    this.view.setUint32(at + Desc.offsets.len, lengthBytes, true);
    this.view.setUint16(at + Desc.offsets.flags, flags, true);
    this.view.setUint16(at + Desc.offsets.next, next, true);
  }

  /** A descriptor of a packed ring; `next` is its buffer id. */
  putPacked(tableGpa: number, position: number, element: Element): void {
    const at = tableGpa + position * PackedDesc.sizeBytes;
    this.#putAddress(at + PackedDesc.offsets.addr, element.gpa);
    this.view.setUint32(at + PackedDesc.offsets.len, element.lengthBytes, true);
    this.view.setUint16(at + PackedDesc.offsets.id, element.next, true);
    this.view.setUint16(at + PackedDesc.offsets.flags, element.flags, true);
  }

  #putAddress(at: number, gpa: number): void {
    this.view.setBigUint64(at, BigInt.asUintN(64, BigInt(gpa)), true);
  }
}

/** A chain of right elements, readable ones first, linked in order. */
export function elements(readable: number, writable: number): Element[] {
  const count = readable + writable;
  return Array.from({ length: count }, (_, i) => ({
    gpa: DATA_GPA + i * 0x1000,
    lengthBytes: 4 + 4 * i,
    flags: (i < readable ? 0 : DescFlag.WRITE) | (i + 1 < count ? DescFlag.NEXT : 0),
    next: i + 1,
  }));
}

/** Available in the first lap of a packed ring. */
export const AVAILABLE = PackedDescFlag.AVAIL;
