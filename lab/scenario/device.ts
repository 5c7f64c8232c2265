import { z } from 'zod';
import {
  DEVICE_PROFILES,
  type DeviceConfig,
  type DeviceFeatureName,
  type DeviceProfileName,
} from '../../protocol/device-config.ts';
import { NS_PER_S } from '../../shared/index.ts';
import { durationNs } from '../input/units.ts';
import { deviceFields, switches } from '../plan/fields.ts';
import { named } from '../plan/settings.ts';

/** The key `device` of a scenario: the name of a profile, or a map of what the device is and offers. */

/** Features by their keys, in the order of docs/scenarios.md. */
export const DEVICE_FEATURE_KEYS = {
  free_page_hint: 'freePageHint',
  must_tell_host: 'mustTellHost',
  deflate_on_oom: 'deflateOnOom',
  hint_wait_on_ack: 'hintWaitOnAck',
  stats_vq: 'statsVq',
  page_poison: 'pagePoison',
  page_reporting: 'pageReporting',
  indirect_desc: 'indirectDesc',
  event_idx: 'eventIdx',
  ring_packed: 'ringPacked',
  in_order: 'inOrder',
  ring_reset: 'ringReset',
  suspend: 'suspend',
} as const satisfies Readonly<Record<string, DeviceFeatureName>>;
type FeatureKey = keyof typeof DEVICE_FEATURE_KEYS;

const deviceMap = z.strictObject({
  profile: deviceFields.profile.optional(),
  ...switches(Object.keys(DEVICE_FEATURE_KEYS) as FeatureKey[]),
  discard_hints: deviceFields.discardHints.optional(),
  inhibit_discards: deviceFields.inhibitDiscards.optional(),
  queue_sizes: deviceFields.queueSizes.optional(),
  last_cmd_id: deviceFields.lastCmdId.optional(),
  stats_interval: durationNs().optional(),
  queue_numbering: deviceFields.numbering.optional(),
  quirks: deviceFields.quirks.optional(),
});
type DeviceFile = z.infer<typeof deviceMap>;

export const deviceSchema = z
  .unknown()
  .transform((value, context): unknown => {
    if (typeof value !== 'string') return value;
    if (DEVICE_PROFILES.includes(value as DeviceProfileName)) return { profile: value };
    const message = `one of ${DEVICE_PROFILES.join(', ')}, or a map of keys`;
    context.addIssue({ code: 'custom', message });
    return z.NEVER;
  })
  .pipe(deviceMap);

/** What the scenario names, and nothing of what the profile says. */
export function deviceOf(device: DeviceFile = {}): DeviceConfig {
  const features = Object.entries(DEVICE_FEATURE_KEYS).flatMap(([key, name]) => {
    const isOffered = device[key as FeatureKey];
    return isOffered === undefined ? [] : [[name, isOffered] as const];
  });
  const { profile, queue_numbering: numbering, discard_hints: discardHints, quirks } = device;
  const { inhibit_discards: inhibitDiscards, last_cmd_id: lastCmdId } = device;
  const queueSizes = device.queue_sizes;
  const intervalNs = device.stats_interval;
  return {
    ...(profile === undefined ? {} : { profile }),
    ...Object.fromEntries(features),
    ...(numbering === undefined ? {} : { numbering }),
    ...(discardHints === undefined ? {} : { discardHints }),
    ...named({ inhibitDiscards, lastCmdId }),
    ...(queueSizes === undefined ? {} : { queueSizes: named(queueSizes) }),
    ...(intervalNs === undefined ? {} : { statsPollingIntervalS: intervalNs / NS_PER_S }),
    ...(quirks === undefined ? {} : { quirks: Object.fromEntries(Object.entries(quirks)) }),
  };
}
