/** Feature bits that decide how a ring is laid out and worked on (virtio 1.4 §6). */
import { Feature, type FeatureSet, featureMask, hasFeature } from '../../protocol/index.ts';

/**
 * What the queues here can do with a device that offers it; a driver accepts no other bit of the
 * ring's. RING_RESET is the transport's, but negotiated with them.
 */
export const RING_FEATURES: FeatureSet = featureMask(
  Feature.RING_INDIRECT_DESC,
  Feature.RING_EVENT_IDX,
  Feature.RING_PACKED,
  Feature.IN_ORDER,
  Feature.RING_RESET,
);

export interface RingOptions {
  /** RING_INDIRECT_DESC: a descriptor may refer to a table of descriptors. */
  readonly indirect: boolean;
  /** RING_EVENT_IDX: each side names the entry that it wants to be notified of. */
  readonly eventIdx: boolean;
  /** IN_ORDER: buffers are used in the order in which they were made available. */
  readonly inOrder: boolean;
}

export const NO_RING_OPTIONS: RingOptions = { indirect: false, eventIdx: false, inOrder: false };

/** What was negotiated, as far as the rings are concerned. */
export function ringOptions(negotiated: FeatureSet): RingOptions {
  return {
    indirect: hasFeature(negotiated, Feature.RING_INDIRECT_DESC),
    eventIdx: hasFeature(negotiated, Feature.RING_EVENT_IDX),
    inOrder: hasFeature(negotiated, Feature.IN_ORDER),
  };
}
