import { MAX_QUEUE_SIZE } from './ring.ts';
import { le16, le32, le64, type StructValue, struct } from './struct.ts';

/**
 * The packed virtqueue in guest memory, virtio 1.4 §2.8: one ring of descriptors that both sides
 * write, and an event suppression structure of each side.
 */

/** virtio 1.4 §2.8.13 struct pvirtq_desc */
export const PackedDesc = struct({ addr: le64, len: le32, id: le16, flags: le16 });
export type PackedDesc = StructValue<typeof PackedDesc>;

/** Flags of a packed descriptor besides those of `DescFlag`, as masks (§2.8.1). */
export const PackedDescFlag = {
  /** Available: equals the driver's wrap counter while USED does not. */
  AVAIL: 1 << 7,
  /** Used: both equal the device's wrap counter. */
  USED: 1 << 15,
} as const;

/** virtio 1.4 §2.8.14 struct pvirtq_event_suppress: `desc` is 15 bits of offset and the wrap counter. */
export const EventSuppress = struct({ desc: le16, flags: le16 });
export type EventSuppress = StructValue<typeof EventSuppress>;

/** virtio 1.4 §2.8.10: the low two bits of `flags`. */
export const RingEventFlags = {
  ENABLE: 0,
  DISABLE: 1,
  /** Only the descriptor that `desc` names; with EVENT_IDX. */
  DESC: 2,
} as const;

/** The bits of `flags` that mean something. */
export const RING_EVENT_FLAGS_MASK = 3;
/** The wrap counter in `desc`; the offset is below it. */
export const DESC_EVENT_WRAP = 1 << 15;

/** Alignment of each part, bytes, virtio 1.4 §2.8.10.1. */
export const PackedRingAlignment = { DESC: 16, DRIVER: 4, DEVICE: 4 } as const;

export interface PackedRingLayout {
  /** Byte offsets of the three parts from the start, which is 16-byte aligned. */
  readonly descOffset: number;
  readonly driverOffset: number;
  readonly deviceOffset: number;
  readonly sizeBytes: number;
}

/** Whether the specification allows a packed queue of this many descriptors: no power of two. */
export function isPackedQueueSize(size: number): boolean {
  return Number.isInteger(size) && size >= 1 && size <= MAX_QUEUE_SIZE;
}

/** One contiguous block that holds a queue of `size` descriptors, each part rightly aligned. */
export function packedRingLayout(size: number): PackedRingLayout {
  const driverOffset = PackedDesc.sizeBytes * size;
  const deviceOffset = driverOffset + EventSuppress.sizeBytes;
  const sizeBytes = deviceOffset + EventSuppress.sizeBytes;
  return { descOffset: 0, driverOffset, deviceOffset, sizeBytes };
}

/**
 * Whether a position that moved on by `passed` descriptors to `position` (of the lap in which the
 * wrap counter is `wrap`) passed the one that `desc` of an event suppression structure names.
 */
export function passesEvent(
  desc: number,
  position: number,
  wrap: boolean,
  passed: number,
  size: number,
): boolean {
  // Two laps, the one with wrap counter 1 first: no position in them has a double.
  const event = (desc & ~DESC_EVENT_WRAP) + ((desc & DESC_EVENT_WRAP) !== 0 ? 0 : size);
  const now = position + (wrap ? 0 : size);
  const back = (now - 1 - event) % (2 * size);
  return (back < 0 ? back + 2 * size : back) < passed;
}
