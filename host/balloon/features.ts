/** Which features a balloon device offers, which must come together, and which queues that makes. */
import {
  BALLOON_QUEUES,
  BalloonFeature,
  type BalloonQueueName,
  DEVICE_FEATURE_NAMES,
  DEVICE_FEATURES,
  type DeviceFeatures,
  Feature,
  type FeatureSet,
  featureMask,
  hasFeature,
  queueIndices,
} from '../../protocol/index.ts';
import type { BalloonDeviceOptions } from './options.ts';

/** HINT_WAIT_ON_ACK says how hints are acknowledged: nothing without them. */
export function offeredFeatures(options: DeviceFeatures): FeatureSet {
  const names = DEVICE_FEATURE_NAMES.filter(
    (name) => options[name] && (name !== 'hintWaitOnAck' || options.freePageHint),
  );
  return featureMask(Feature.VERSION_1, ...names.map((name) => DEVICE_FEATURES[name]));
}

/** §2.2: no feature is accepted without those that it needs. */
export function featuresAgree(features: FeatureSet): boolean {
  const waits = hasFeature(features, BalloonFeature.HINT_WAIT_ON_ACK);
  return !waits || hasFeature(features, BalloonFeature.FREE_PAGE_HINT);
}

/** The queues of a device by index; one whose feature was declined may be there and is not served. */
export class QueueTable {
  names: readonly (BalloonQueueName | undefined)[] = [];
  readonly isServed: boolean[] = [];
  /** 0: there is no such queue. */
  readonly maxSizes: number[] = [];
  readonly #options: BalloonDeviceOptions;
  readonly #offered: FeatureSet;

  constructor(options: BalloonDeviceOptions, offered: FeatureSet) {
    this.#options = options;
    this.#offered = offered;
    this.number(offered);
  }

  /** Entries of all rings. */
  get entryCount(): number {
    return this.maxSizes.reduce((sum, size) => sum + size, 0);
  }

  /** Number the queues for these features: what is offered, later what is negotiated. */
  number(negotiated: FeatureSet): void {
    const { numbering, queueSizes } = this.#options;
    const indices = queueIndices(numbering, this.#offered, negotiated);
    const names: (BalloonQueueName | undefined)[] = [];
    this.isServed.length = 0;
    this.maxSizes.length = 0;
    for (const { name, feature } of BALLOON_QUEUES) {
      const index = indices[name];
      if (index === null) continue;
      // What lies between two fixed numbers does not exist.
      while (names.length < index) this.#append(names, undefined, false, 0);
      const isServed = feature === undefined || hasFeature(negotiated, feature);
      this.#append(names, name, isServed, queueSizes[name]);
    }
    this.names = names;
  }

  #append(
    names: (BalloonQueueName | undefined)[],
    name: BalloonQueueName | undefined,
    isServed: boolean,
    maxSize: number,
  ): void {
    names.push(name);
    this.isServed.push(isServed);
    this.maxSizes.push(maxSize);
  }
}
