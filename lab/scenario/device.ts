import { z } from 'zod';
import type { QueueNumbering } from '../../protocol/balloon.ts';
import {
  DEVICE_PROFILES,
  DEVICE_QUIRKS,
  type DeviceConfig,
  type DeviceFeatureName,
  type DeviceProfileName,
} from '../../protocol/device-config.ts';
import { NS_PER_S } from '../../shared/index.ts';
import { durationNs } from './units.ts';

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

const NUMBERINGS = ['spec-fixed', 'dense-by-offered', 'dense-by-negotiated'] as const satisfies [
  QueueNumbering,
  ...QueueNumbering[],
];

function switches<K extends string>(keys: readonly K[]): Record<K, z.ZodOptional<z.ZodBoolean>> {
  const entries = keys.map((key) => [key, z.boolean().optional()]);
  return Object.fromEntries(entries) as Record<K, z.ZodOptional<z.ZodBoolean>>;
}

const deviceMap = z.strictObject({
  profile: z.enum(DEVICE_PROFILES).optional(),
  ...switches(Object.keys(DEVICE_FEATURE_KEYS) as FeatureKey[]),
  discard_hints: z.boolean().optional(),
  stats_interval: durationNs().optional(),
  queue_numbering: z.enum(NUMBERINGS).optional(),
  quirks: z.strictObject(switches(DEVICE_QUIRKS)).optional(),
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
  const intervalNs = device.stats_interval;
  return {
    ...(profile === undefined ? {} : { profile }),
    ...Object.fromEntries(features),
    ...(numbering === undefined ? {} : { numbering }),
    ...(discardHints === undefined ? {} : { discardHints }),
    ...(intervalNs === undefined ? {} : { statsPollingIntervalS: intervalNs / NS_PER_S }),
    ...(quirks === undefined ? {} : { quirks: Object.fromEntries(Object.entries(quirks)) }),
  };
}
