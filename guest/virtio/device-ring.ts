/** The device's hand on a queue, of the layout that was negotiated. */
import { Feature, type FeatureSet, hasFeature } from '../../protocol/index.ts';
import { PackedRing } from './packed-ring.ts';
import type { DeviceRing, GuestBytes, QueueAreas } from './queue.ts';
import { ringOptions } from './ring-features.ts';
import { SplitRing } from './split-ring.ts';

/** A queue as the driver set it up. */
export interface QueueSetup {
  readonly index: number;
  readonly size: number;
  readonly areas: QueueAreas;
}

/** `size` is one that the specification allows for the layout. */
export function createDeviceRing(
  setup: QueueSetup,
  negotiated: FeatureSet,
  memory: GuestBytes,
): DeviceRing {
  const Ring = hasFeature(negotiated, Feature.RING_PACKED) ? PackedRing : SplitRing;
  return new Ring({ ...setup, options: ringOptions(negotiated) }, memory);
}
