/**
 * Other people's devices, as data: what each one offers, how it numbers and sizes its queues, and
 * its quirks. A profile is the device as its monitor configures it for a guest that is to be ballooned
 * and hinted: what is an option there is on here, and can be switched off.
 */
import {
  BalloonStatTag,
  DEVICE_FEATURE_NAMES,
  type DeviceConfig,
  type DeviceFeatureName,
  type DeviceProfileName,
  type DeviceQuirk,
  GUEST_STATS,
} from '../../protocol/index.ts';
import { BALLOON_DEVICE_DEFAULTS, type BalloonDeviceOptions } from './options.ts';
import { PROFILE_SOURCES } from './quirks.ts';

export interface DeviceProfile {
  /** Where it can be read. */
  readonly source: string;
  readonly features: readonly DeviceFeatureName[];
  readonly quirks: readonly DeviceQuirk[];
  /** What else is not as `BALLOON_DEVICE_DEFAULTS` says. */
  readonly options?: Partial<
    Pick<
      BalloonDeviceOptions,
      'numbering' | 'queueSizes' | 'configBytes' | 'hintIds' | 'stats' | 'discardHints'
    >
  >;
}

/** Those that every device knew before QEMU 9.1 and Linux 6.12. */
const FIRST_STATS = new Map([...GUEST_STATS].filter(([tag]) => tag <= BalloonStatTag.HTLB_PGFAIL));

const allQueues = (size: number): BalloonDeviceOptions['queueSizes'] => ({
  inflateq: size,
  deflateq: size,
  statsq: size,
  free_page_vq: size,
  reporting_vq: size,
});

export const PROFILES: Readonly<Record<DeviceProfileName, DeviceProfile>> = {
  /** Every feature is asked for by name. */
  ballast: {
    source: 'virtio 1.4 §5.5, with the queue sizes and command ids of QEMU',
    features: ['freePageHint'],
    quirks: ['start-reads-as-stop'],
  },
  /** Offers 0x101_3000_003e, as seen on QEMU 7.2.22. */
  'qemu-7.2': {
    source: PROFILE_SOURCES.qemu,
    features: [
      'statsVq',
      'deflateOnOom',
      'freePageHint',
      'pagePoison',
      'pageReporting',
      'indirectDesc',
      'eventIdx',
      'ringReset',
    ],
    quirks: [
      'start-reads-as-stop',
      'unoffered-features-accepted',
      'absent-config-reads-ones',
      'actual-unchecked',
      'poison-returns-after-reset',
      'poison-writable-any-time',
      'stray-pfn-bytes-ignored',
      'long-hint-command-accepted',
      'hint-start-rounds-down',
      'hint-clipped-to-ram',
      'unmapped-segment-breaks',
    ],
    options: { stats: FIRST_STATS },
  },
  'firecracker-1.16': {
    source: PROFILE_SOURCES.firecracker,
    features: ['statsVq', 'deflateOnOom', 'freePageHint', 'pageReporting'],
    quirks: [
      'state-zeroed-by-reset',
      'pfns-over-256-never-returned',
      'four-bytes-are-a-command',
      'hint-ids-compared',
      'unreported-stats-kept',
      'stats-over-256-ignored',
      'stats-polling-fixed-at-boot',
    ],
    options: {
      queueSizes: allQueues(256),
      configBytes: 12,
      hintIds: 'firecracker',
      discardHints: true,
    },
  },
  'cloud-hypervisor': {
    source: PROFILE_SOURCES.cloudHypervisor,
    features: ['deflateOnOom', 'pageReporting'],
    quirks: ['pfns-over-256-ignored', 'report-clipped-to-ram', 'report-used-length-total'],
    options: {
      queueSizes: { ...allQueues(128), reporting_vq: 32 },
      configBytes: 8,
    },
  },
  /**
   * Without WS_REPORTING (bit 8): its two queues and their operations are crosvm's own and in no
   * specification, so no other driver can meet them. The configuration space keeps its length.
   */
  crosvm: {
    source: PROFILE_SOURCES.crosvm,
    features: ['mustTellHost', 'statsVq', 'deflateOnOom', 'pageReporting', 'eventIdx'],
    quirks: [],
    options: {
      queueSizes: allQueues(128),
      configBytes: 20,
      stats: new Map([...FIRST_STATS, [65534, 'stat-shared-memory'], [65535, 'stat-unevictable']]),
    },
  },
  v86: {
    source: PROFILE_SOURCES.v86,
    features: ['statsVq', 'freePageHint'],
    quirks: [
      'actual-counted-by-host',
      'done-at-guest-stop',
      'hints-in-any-state',
      'inflate-keeps-content',
      'unknown-stats-as-undefined',
    ],
    options: {
      numbering: 'spec-fixed',
      queueSizes: { ...allQueues(32), statsq: 2, free_page_vq: 64 },
      configBytes: 12,
      hintIds: 'constant',
      stats: FIRST_STATS,
      discardHints: true,
    },
  },
};

/** The device that is asked for: the profile, and what is named besides it. */
export function deviceOptionsOf(
  config: DeviceConfig,
): Omit<BalloonDeviceOptions, 'ramPages' | 'ram' | 'costs'> {
  const profile = PROFILES[config.profile ?? 'ballast'];
  const features = Object.fromEntries(
    DEVICE_FEATURE_NAMES.map((name) => [name, config[name] ?? profile.features.includes(name)]),
  ) as Record<DeviceFeatureName, boolean>;
  const options = { ...BALLOON_DEVICE_DEFAULTS, ...profile.options };
  return {
    ...options,
    ...features,
    numbering: config.numbering ?? options.numbering,
    discardHints: config.discardHints ?? options.discardHints,
    inhibitDiscards: config.inhibitDiscards ?? false,
    queueSizes: { ...options.queueSizes, ...config.queueSizes },
    ...(config.lastCmdId === undefined ? {} : { lastCmdId: config.lastCmdId }),
    quirks: quirksOf(profile, config),
  };
}

function quirksOf(profile: DeviceProfile, config: DeviceConfig): ReadonlySet<DeviceQuirk> {
  const quirks = new Set(profile.quirks);
  for (const [name, isOn] of Object.entries(config.quirks ?? {})) {
    if (isOn) quirks.add(name as DeviceQuirk);
    else quirks.delete(name as DeviceQuirk);
  }
  return quirks;
}
