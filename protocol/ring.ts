import { le16, le32, le64, type StructValue, struct } from './struct.ts';

/**
 * The split virtqueue in guest memory, virtio 1.4 §2.7: descriptor table, available ring, used
 * ring. Ring code reads and writes through a DataView at the offsets of these tables.
 */

/** virtio 1.4 §2.7.5 struct virtq_desc */
export const Desc = struct({ addr: le64, len: le32, flags: le16, next: le16 });
export type Desc = StructValue<typeof Desc>;

/** Flags of a descriptor, as masks: they are only ever tested together. */
export const DescFlag = {
  /** `next` continues the chain. */
  NEXT: 1,
  /** Device-writable; otherwise device-readable. */
  WRITE: 2,
  /** The buffer holds a table of descriptors. */
  INDIRECT: 4,
} as const;

/** virtio 1.4 §2.7.6 struct virtq_avail without its ring of le16 heads and the final used_event. */
export const AvailHeader = struct({ flags: le16, idx: le16 });

/** Flags of the available ring, as masks. */
export const AvailFlag = {
  /** The driver asks for no used buffer notifications; without EVENT_IDX. */
  NO_INTERRUPT: 1,
} as const;

/** Flags of the used ring, as masks. */
export const UsedFlag = {
  /** The device asks for no available buffer notifications; without EVENT_IDX. */
  NO_NOTIFY: 1,
} as const;

/** virtio 1.4 §2.7.8 struct virtq_used without its ring of elements and the final avail_event. */
export const UsedHeader = struct({ flags: le16, idx: le16 });

/** virtio 1.4 §2.7.8 struct virtq_used_elem */
export const UsedElem = struct({ id: le32, len: le32 });
export type UsedElem = StructValue<typeof UsedElem>;

/** virtio 1.4 §2.7: a queue size is a power of two of at most 32768. */
export const MAX_QUEUE_SIZE = 32768;

/**
 * What one `avail` message carries at most: as many writable segments as the largest queue has
 * descriptors, and far more readable bytes than any balloon buffer. Chains beyond it wait in the ring.
 */
export const MAX_BATCH_SEGMENTS = 1 << 15;
export const MAX_BATCH_OUT_BYTES = 1 << 20;

/** Alignment of each part, bytes, virtio 1.4 §2.7. */
export const RingAlignment = { DESC: 16, AVAIL: 2, USED: 4 } as const;

export interface SplitRingLayout {
  /** Byte offsets of the three parts from the start, which is 16-byte aligned. */
  readonly descOffset: number;
  readonly availOffset: number;
  readonly usedOffset: number;
  /** The le16 behind the available ring, used_event, and behind the used ring, avail_event. */
  readonly usedEventOffset: number;
  readonly availEventOffset: number;
  /** Bytes of all three parts and the gaps between them. */
  readonly sizeBytes: number;
}

/** Whether the specification allows a split queue of this many descriptors. */
export function isQueueSize(size: number): boolean {
  return Number.isInteger(size) && size >= 1 && size <= MAX_QUEUE_SIZE && (size & (size - 1)) === 0;
}

export function descTableBytes(size: number): number {
  return Desc.sizeBytes * size;
}

/** The final le16 is used_event; it is there whether or not EVENT_IDX is negotiated. */
export function availRingBytes(size: number): number {
  return AvailHeader.sizeBytes + le16.sizeBytes * size + le16.sizeBytes;
}

/** The final le16 is avail_event. */
export function usedRingBytes(size: number): number {
  return UsedHeader.sizeBytes + UsedElem.sizeBytes * size + le16.sizeBytes;
}

/** One contiguous block that holds a queue of `size` descriptors, each part rightly aligned. */
export function splitRingLayout(size: number): SplitRingLayout {
  const availOffset = alignUp(descTableBytes(size), RingAlignment.AVAIL);
  const usedOffset = alignUp(availOffset + availRingBytes(size), RingAlignment.USED);
  const sizeBytes = usedOffset + usedRingBytes(size);
  return {
    descOffset: 0,
    availOffset,
    usedOffset,
    usedEventOffset: availOffset + availRingBytes(size) - le16.sizeBytes,
    availEventOffset: sizeBytes - le16.sizeBytes,
    sizeBytes,
  };
}

/** Whether a 16-bit index that moved from `before` to `now` passed the entry `event` (§2.7.7.2). */
export function needsEvent(event: number, now: number, before: number): boolean {
  return ((now - event - 1) & 0xffff) < ((now - before) & 0xffff);
}

function alignUp(value: number, alignment: number): number {
  return Math.ceil(value / alignment) * alignment;
}
