/** Which features the driver accepts (linux virtballoon_validate, virtio 1.4 §5.5.3.1). */
import {
  BalloonFeature,
  Feature,
  type FeatureSet,
  featureMask,
  hasFeature,
} from '../../protocol/index.ts';
import type { DriverBehaviour } from './behaviour.ts';
import type { BalloonDriverOptions } from './driver-options.ts';

/** All that the driver can use. */
export function knownFeatures(behaviour: DriverBehaviour, suspendsDevice: boolean): FeatureSet {
  return behaviour.features | (suspendsDevice ? featureMask(Feature.SUSPEND) : 0n);
}

/** ACCESS_PLATFORM is never accepted: PFNs bypass whatever translates a device's addresses. */
export function chooseFeatures(
  offered: FeatureSet,
  behaviour: DriverBehaviour,
  options: Omit<BalloonDriverOptions, 'transport'>,
): FeatureSet {
  const { strategy, statistics, reporting, memory } = options;
  const known = knownFeatures(behaviour, options.suspendsDevice === true);
  let accepted = offered & known & (options.features ?? known);
  const drop = (feature: number): void => {
    accepted &= ~featureMask(feature);
  };
  if (!statistics) drop(BalloonFeature.STATS_VQ);
  if (!strategy || refusesToHint(options)) drop(BalloonFeature.FREE_PAGE_HINT);
  const hints = hasFeature(accepted, BalloonFeature.FREE_PAGE_HINT);
  if (!hints || !strategy?.waitsOnAck) drop(BalloonFeature.HINT_WAIT_ON_ACK);
  if (!reporting) drop(BalloonFeature.PAGE_REPORTING);
  // Whoever expects freed pages to keep what they hold must be able to say so.
  if (!memory.freedContent) drop(BalloonFeature.PAGE_POISON);
  else if (!hasFeature(accepted, BalloonFeature.PAGE_POISON)) drop(BalloonFeature.PAGE_REPORTING);
  return accepted | featureMask(Feature.VERSION_1);
}

/**
 * The guest relies on what its free pages hold, and the strategy hints them without filling them
 * again when they are freed: a page that the host leaves out would be handed out with other content.
 */
export function refusesToHint({
  strategy,
  memory,
  hintTrustedFreePages,
}: Pick<BalloonDriverOptions, 'strategy' | 'hintTrustedFreePages'> & {
  readonly memory: Pick<BalloonDriverOptions['memory'], 'freedContent'>;
}): boolean {
  const trusts = (memory.freedContent ?? null) !== null;
  return strategy !== null && trusts && !strategy.refills && hintTrustedFreePages !== true;
}

/** What freed pages hold, as the device is told: zeroes, or PAGE_POISON in each byte. */
export function poisonVal({ freedContent }: BalloonDriverOptions['memory']): number {
  return freedContent === 'zero' ? 0 : 0xaaaa_aaaa;
}
