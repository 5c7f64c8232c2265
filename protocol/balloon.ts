import { le16, le32, le64, type StructValue, struct } from './struct.ts';
import { type FeatureSet, hasFeature } from './virtio.ts';

/**
 * The traditional memory balloon device, virtio 1.4 §5.5: features, queues, configuration space,
 * command ids of free page hinting. Every page count and PFN here is in units of 4 KiB.
 */

/** Feature bits, virtio 1.4 §5.5.3. */
export const BalloonFeature = {
  /** Deflated pages are reused only after the device has acknowledged them. */
  MUST_TELL_HOST: 0,
  STATS_VQ: 1,
  DEFLATE_ON_OOM: 2,
  FREE_PAGE_HINT: 3,
  PAGE_POISON: 4,
  PAGE_REPORTING: 5,
  /** Proposed in 2026, not in the specification: hinted pages are reused only after their buffer was used. */
  HINT_WAIT_ON_ACK: 6,
} as const;
export type BalloonFeature = (typeof BalloonFeature)[keyof typeof BalloonFeature];

export type BalloonQueueName = 'inflateq' | 'deflateq' | 'statsq' | 'free_page_vq' | 'reporting_vq';

interface BalloonQueue {
  readonly name: BalloonQueueName;
  /** Queue number in the specification. */
  readonly spec: number;
  /** The queue exists only with this feature. */
  readonly feature?: BalloonFeature;
}

/** virtio 1.4 §5.5.2, in the order of the specification's numbers. */
export const BALLOON_QUEUES: readonly BalloonQueue[] = [
  { name: 'inflateq', spec: 0 },
  { name: 'deflateq', spec: 1 },
  { name: 'statsq', spec: 2, feature: BalloonFeature.STATS_VQ },
  { name: 'free_page_vq', spec: 3, feature: BalloonFeature.FREE_PAGE_HINT },
  { name: 'reporting_vq', spec: 4, feature: BalloonFeature.PAGE_REPORTING },
];

/**
 * How queues are numbered. The specification fixes the numbers; QEMU, Firecracker and crosvm count
 * the queues of the features they offer; Linux counts the queues of the features it accepted.
 */
export type QueueNumbering = 'spec-fixed' | 'dense-by-offered' | 'dense-by-negotiated';

/** Queue number of each queue, or null where the queue does not exist. */
export type QueueIndices = Readonly<Record<BalloonQueueName, number | null>>;

/** A queue exists if its feature is offered, or, dense by negotiated, if it was accepted. */
export function queueIndices(
  policy: QueueNumbering,
  offered: FeatureSet,
  negotiated: FeatureSet,
): QueueIndices {
  const features = policy === 'dense-by-negotiated' ? negotiated : offered;
  const indices: Record<BalloonQueueName, number | null> = {
    inflateq: null,
    deflateq: null,
    statsq: null,
    free_page_vq: null,
    reporting_vq: null,
  };
  let next = 0;
  for (const { name, spec, feature } of BALLOON_QUEUES) {
    if (feature !== undefined && !hasFeature(features, feature)) continue;
    indices[name] = policy === 'spec-fixed' ? spec : next++;
  }
  return indices;
}

/** virtio 1.4 §5.5.4 struct virtio_balloon_config; little-endian on legacy transports too. */
export const BalloonConfig = struct({
  /** Target, set by the device, pages. */
  num_pages: le32,
  /** What the driver has put into the balloon, pages. */
  actual: le32,
  /** Valid with FREE_PAGE_HINT; read-only to the driver. */
  free_page_hint_cmd_id: le32,
  /** Valid with PAGE_POISON; written by the driver before DRIVER_OK. */
  poison_val: le32,
});
export type BalloonConfig = StructValue<typeof BalloonConfig>;

/** Bytes of configuration space that a device offering these features exposes, as QEMU: 8, 12, 16. */
export function balloonConfigBytes(offered: FeatureSet): number {
  if (hasFeature(offered, BalloonFeature.PAGE_POISON)) return BalloonConfig.sizeBytes;
  if (hasFeature(offered, BalloonFeature.FREE_PAGE_HINT)) return BalloonConfig.offsets.poison_val;
  return BalloonConfig.offsets.free_page_hint_cmd_id;
}

/** Reserved command ids of free page hinting, virtio 1.4 §5.5.6.5; all others name a round. */
export const HintCommand = {
  /** The driver stops hinting and keeps what it has hinted. */
  STOP: 0,
  /** The driver may use the hinted pages again. */
  DONE: 1,
} as const;

/** Tags of memory statistics, virtio 1.4 §5.5.6.4; from OOM_KILL on as Linux ≥ 6.12 numbers them. */
export const BalloonStatTag = {
  /** Swapped in and out since boot, bytes. */
  SWAP_IN: 0,
  SWAP_OUT: 1,
  /** Page faults that waited for storage, and all faults (Linux) or the others. */
  MAJFLT: 2,
  MINFLT: 3,
  /** Bytes. */
  MEMFREE: 4,
  MEMTOT: 5,
  AVAIL: 6,
  CACHES: 7,
  /** Huge pages that were allocated, and that could not be. */
  HTLB_PGALLOC: 8,
  HTLB_PGFAIL: 9,
  OOM_KILL: 10,
  ALLOC_STALL: 11,
  /** Looked at and freed by reclaim, in the background and by who waits for memory; bytes. */
  ASYNC_SCAN: 12,
  DIRECT_SCAN: 13,
  ASYNC_RECLAIM: 14,
  DIRECT_RECLAIM: 15,
} as const;
export type BalloonStatTag = (typeof BalloonStatTag)[keyof typeof BalloonStatTag];

/** struct virtio_balloon_stat: 10 bytes, although the specification asks for multiples of 6. */
export const BalloonStat = struct({ tag: le16, val: le64 });

/** The most PFNs that Linux puts into one inflate or deflate buffer. */
export const VIRTIO_BALLOON_PFNS_MAX = 256;
/** A PFN on the inflate and deflate queues is a le32. */
export const BALLOON_PFN_BYTES = 4;
