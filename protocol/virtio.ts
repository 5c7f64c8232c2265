/**
 * Constants and feature arithmetic that every virtio device shares (virtio 1.4 §2.1, §2.2, §5, §6).
 * Objects hold bit numbers; masks come from `bit()` and `featureMask()`.
 */

/** Device IDs, virtio 1.4 §5. */
export const DeviceId = {
  /** Traditional memory balloon. */
  BALLOON: 5,
} as const;
export type DeviceId = (typeof DeviceId)[keyof typeof DeviceId];

/** Bits of the device status field, virtio 1.4 §2.1. */
export const DeviceStatus = {
  ACKNOWLEDGE: 0,
  DRIVER: 1,
  DRIVER_OK: 2,
  FEATURES_OK: 3,
  SUSPEND: 4,
  DEVICE_NEEDS_RESET: 6,
  FAILED: 7,
} as const;
export type DeviceStatus = (typeof DeviceStatus)[keyof typeof DeviceStatus];

/** Device-independent feature bits, virtio 1.4 §6. */
export const Feature = {
  RING_INDIRECT_DESC: 28,
  RING_EVENT_IDX: 29,
  VERSION_1: 32,
  ACCESS_PLATFORM: 33,
  RING_PACKED: 34,
  IN_ORDER: 35,
  ORDER_PLATFORM: 36,
  NOTIFICATION_DATA: 38,
  RING_RESET: 40,
  SUSPEND: 41,
} as const;
export type Feature = (typeof Feature)[keyof typeof Feature];

/** Mask of one bit of a field of at most 32 bits. */
export function bit(number: number): number {
  return (1 << number) >>> 0;
}

/** The 64 feature bits; negotiation is a cold path, so exactness decides. */
export type FeatureSet = bigint;

/** The set of these feature bit numbers. */
export function featureMask(...numbers: readonly number[]): FeatureSet {
  return numbers.reduce((set, number) => set | (1n << BigInt(number)), 0n);
}

export function hasFeature(set: FeatureSet, number: number): boolean {
  return ((set >> BigInt(number)) & 1n) === 1n;
}

/** As the features travel: bits 0–31 and 32–63. */
export function featureWords(set: FeatureSet): { readonly low: number; readonly high: number } {
  return { low: Number(set & 0xffff_ffffn), high: Number((set >> 32n) & 0xffff_ffffn) };
}

export function featuresOf(words: { readonly low: number; readonly high: number }): FeatureSet {
  return BigInt(words.low) | (BigInt(words.high) << 32n);
}
