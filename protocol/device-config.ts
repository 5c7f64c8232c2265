import { BalloonFeature, type BalloonQueueName, type QueueNumbering } from './balloon.ts';
import { Feature } from './virtio.ts';

/**
 * What a balloon device is made of, as data: the features that it may offer, whose device it imitates,
 * and the quirks it can have. The host builds the device from it; scenarios name the same things.
 */

/** Features that a device may offer, by option name; VERSION_1 is always offered. */
export const DEVICE_FEATURES = {
  mustTellHost: BalloonFeature.MUST_TELL_HOST,
  statsVq: BalloonFeature.STATS_VQ,
  deflateOnOom: BalloonFeature.DEFLATE_ON_OOM,
  freePageHint: BalloonFeature.FREE_PAGE_HINT,
  pagePoison: BalloonFeature.PAGE_POISON,
  pageReporting: BalloonFeature.PAGE_REPORTING,
  /** Offered only together with freePageHint. */
  hintWaitOnAck: BalloonFeature.HINT_WAIT_ON_ACK,
  indirectDesc: Feature.RING_INDIRECT_DESC,
  eventIdx: Feature.RING_EVENT_IDX,
  ringPacked: Feature.RING_PACKED,
  inOrder: Feature.IN_ORDER,
  ringReset: Feature.RING_RESET,
  suspend: Feature.SUSPEND,
} as const;
export type DeviceFeatureName = keyof typeof DEVICE_FEATURES;
export const DEVICE_FEATURE_NAMES = Object.keys(DEVICE_FEATURES) as readonly DeviceFeatureName[];

/** Which features a device offers. */
export type DeviceFeatures = Readonly<Record<DeviceFeatureName, boolean>>;

/** Whose device: `ballast` is our own, the others are imitations (host/balloon/profiles.ts). */
export const DEVICE_PROFILES = [
  'ballast',
  'qemu-7.2',
  'firecracker-1.16',
  'cloud-hypervisor',
  'crosvm',
  'v86',
] as const;
export type DeviceProfileName = (typeof DEVICE_PROFILES)[number];

/** Departures from the plain device, each one a switch; host/balloon/quirks.ts says what and whose. */
export const DEVICE_QUIRKS = [
  'start-reads-as-stop',
  'unoffered-features-accepted',
  'absent-config-reads-ones',
  'actual-unchecked',
  'actual-counted-by-host',
  'state-zeroed-by-reset',
  'poison-returns-after-reset',
  'poison-writable-any-time',
  'stray-pfn-bytes-ignored',
  'pfns-over-256-ignored',
  'pfns-over-256-never-returned',
  'inflate-keeps-content',
  'long-hint-command-accepted',
  'four-bytes-are-a-command',
  'hint-ids-compared',
  'done-at-guest-stop',
  'hints-in-any-state',
  'hint-start-rounds-down',
  'hint-clipped-to-ram',
  'unmapped-segment-breaks',
  'report-clipped-to-ram',
  'report-used-length-total',
  'unreported-stats-kept',
  'stats-over-256-ignored',
  'unknown-stats-as-undefined',
  'stats-polling-fixed-at-boot',
] as const;
export type DeviceQuirk = (typeof DEVICE_QUIRKS)[number];

/** A device as the laboratory asks for it: a profile, and what is different from it. */
export interface DeviceConfig extends Partial<DeviceFeatures> {
  /** Default: `ballast`. */
  readonly profile?: DeviceProfileName;
  readonly numbering?: QueueNumbering;
  /** Each accepted hint is discarded at once, whether or not the guest has reused the pages. */
  readonly discardHints?: boolean;
  /** Nothing is discarded, since another user relies on the backing: a device that VFIO assigns, say. */
  readonly inhibitDiscards?: boolean;
  /** Of the rings that it offers, by queue: powers of two. */
  readonly queueSizes?: Readonly<Partial<Record<BalloonQueueName, number>>>;
  /** The id of the last round that there was before power-on: ids count up from it, and wrap. */
  readonly lastCmdId?: number;
  /** Polling of statistics from power-on, seconds of virtual time; default: none. */
  readonly statsPollingIntervalS?: number;
  /** Switched on or off, whatever the profile says. */
  readonly quirks?: Readonly<Partial<Record<DeviceQuirk, boolean>>>;
}
