import { BalloonFeature, type QueueNumbering } from './balloon.ts';
import { Feature, type FeatureSet, featureMask } from './virtio.ts';

/** The guest's balloon driver, as the laboratory asks for it. */

/** Whose driver: docs/drivers.md says what each does. */
export const DRIVER_BEHAVIOUR_NAMES = ['linux', 'windows', 'freebsd'] as const;
export type DriverBehaviourName = (typeof DRIVER_BEHAVIOUR_NAMES)[number];

/** Feature bits that a driver may decline, by their names in the specification in lower case. */
const DECLINABLE = {
  ...lowerCased(BalloonFeature),
  ...lowerCased(Feature),
} as Readonly<Record<string, number>>;
export const DRIVER_FEATURE_NAMES: readonly string[] = Object.keys(DECLINABLE).filter(
  (name) => name !== 'version_1',
);

export interface DriverConfig {
  readonly behaviour: DriverBehaviourName;
  /** The driver accepts at most these; null: all that it knows. */
  readonly features: readonly string[] | null;
  /** The driver accepts none of these. */
  readonly decline: readonly string[];
  readonly numbering: QueueNumbering;
  /**
   * DEVICE_NEEDS_RESET: Linux does nothing; `reset` does as the specification advises, and gives
   * up what the device had of the driver.
   */
  readonly onNeedsReset: 'ignore' | 'reset';
  /** The first statistics buffer is kicked before DRIVER_OK, as Linux does, or after it. */
  readonly kicksEarly: boolean;
  /**
   * Free pages are hinted although the guest relies on what they hold (page_poison, init_on_free)
   * and the strategy does not fill them again: to see what is lost.
   */
  readonly hintTrustedFreePages: boolean;
  /** `freeze` suspends the device (VIRTIO_F_SUSPEND) instead of resetting it; Linux does not. */
  readonly suspendsDevice: boolean;
}

/**
 * Queues are counted by what is offered: Linux counts what it accepts, which is the same for the
 * features that Linux itself declines, and not for those that a scenario declines.
 */
export const DEFAULT_DRIVER_CONFIG: DriverConfig = {
  behaviour: 'linux',
  features: null,
  decline: [],
  numbering: 'dense-by-offered',
  onNeedsReset: 'ignore',
  kicksEarly: true,
  hintTrustedFreePages: false,
  suspendsDevice: false,
};

/** The set of features with these names; unknown ones are none. */
export function featuresByName(names: readonly string[]): FeatureSet {
  return featureMask(...names.flatMap((name) => DECLINABLE[name] ?? []));
}

function lowerCased(bits: Readonly<Record<string, number>>): Record<string, number> {
  return Object.fromEntries(Object.entries(bits).map(([name, bit]) => [name.toLowerCase(), bit]));
}
