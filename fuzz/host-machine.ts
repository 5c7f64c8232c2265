/**
 * Our host with a hostile guest: the real run loop, balloon device and channel encoding around one
 * machine, and the states that a driver can bring it into.
 */
import { BALLOON_DEVICE_DEFAULTS, type BalloonDevice } from '../host/balloon/device.ts';
import { deviceOptionsOf } from '../host/balloon/profiles.ts';
import { Vmm } from '../host/vmm.ts';
import {
  BALLOON_QUEUES,
  type BalloonQueueName,
  bit,
  DEVICE_FEATURE_NAMES,
  DEVICE_FEATURES,
  DEVICE_PROFILES,
  type DeviceConfig,
  DeviceStatus,
  Feature,
  type FeatureSet,
  featureMask,
  featureWords,
  hasFeature,
  type Message,
  type QueueIndices,
  type QueueNumbering,
  queueIndices,
} from '../protocol/index.ts';
import { Bitmap, DEFAULT_COSTS, EventLog } from '../shared/index.ts';
import { availOf, fieldsOf, u32sOf } from './avail.ts';
import type { Draw } from './draw.ts';
import { HostileGuest, raws } from './hostile-guest.ts';
import type { Raw } from './raw.ts';

export const RAM_PAGES = 1024;
/** Time that passes around a case: more than a notification and all its work take. */
const SETTLE_NS = 5_000_000;

const ALL_RAM = new Bitmap(RAM_PAGES);
ALL_RAM.setAll();
const NUMBERINGS: readonly QueueNumbering[] = [
  'dense-by-offered',
  'spec-fixed',
  'dense-by-negotiated',
];

const { ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, FAILED, SUSPEND } = DeviceStatus;
const S_ACKNOWLEDGE = bit(ACKNOWLEDGE);
const S_DRIVER = S_ACKNOWLEDGE | bit(DRIVER);
export const S_FEATURES_OK = S_DRIVER | bit(FEATURES_OK);
export const S_DRIVER_OK = S_FEATURES_OK | bit(DRIVER_OK);

/** How far the driver has come when the case begins. */
export const STATES = [
  'live',
  'hinting',
  'needs-reset',
  'stopped',
  'queues',
  'features',
  'driver',
  'acknowledged',
  'reset',
  'failed',
  'suspended',
] as const;
export type State = (typeof STATES)[number];

/** Our own device with any features, or somebody else's with its quirks. */
export function variantOf(draw: Draw): DeviceConfig {
  if (draw.chance(1, 6)) return { profile: draw.pick(DEVICE_PROFILES) };
  const features = Object.fromEntries(
    DEVICE_FEATURE_NAMES.map((name) => [name, !draw.chance(1, 2)]),
  );
  return { ...features, numbering: draw.pick(NUMBERINGS), discardHints: draw.chance(1, 4) };
}

export class HostMachine {
  readonly guest = new HostileGuest(RAM_PAGES);
  readonly vmm: Vmm;
  readonly offered: FeatureSet;
  /** What the driver accepts in this case, and the queues that follow from it. */
  accepted: FeatureSet = 0n;
  indices: QueueIndices;
  readonly #numbering: QueueNumbering;
  #nextHead = 0;

  constructor(config: DeviceConfig) {
    const device = deviceOptionsOf(config);
    this.#numbering = device.numbering ?? BALLOON_DEVICE_DEFAULTS.numbering;
    this.vmm = new Vmm(
      this.guest,
      {
        ramPages: RAM_PAGES,
        ram: ALL_RAM,
        costs: DEFAULT_COSTS,
        device,
      },
      new EventLog(),
    );
    const reply = this.vmm.device.handle({ name: 'getDeviceFeatures' });
    const words = reply?.name === 'deviceFeatures' ? reply : { low: 0, high: 0 };
    this.offered = BigInt(words.low) | (BigInt(words.high) << 32n);
    this.accepted = this.offered;
    this.indices = queueIndices(this.#numbering, this.offered, this.offered);
  }

  get device(): BalloonDevice {
    return this.vmm.device;
  }

  /** The queues that exist, once the features are accepted. */
  get queues(): { name: BalloonQueueName; index: number }[] {
    return BALLOON_QUEUES.flatMap(({ name, feature }) => {
      const index = this.indices[name];
      const exists = feature === undefined || hasFeature(this.accepted, feature);
      return index === null || !exists ? [] : [{ name, index }];
    });
  }

  /** Lets the run loop go on. */
  async settle(ns: number = SETTLE_NS): Promise<void> {
    await this.vmm.advanceFor(ns);
  }

  /**
   * From reset to a state, by what an honest driver would send. Returns the state that was reached:
   * a device without a feature has no state of it.
   */
  async reach(state: State, draw: Draw): Promise<State> {
    const { guest, vmm } = this;
    vmm.running = true;
    this.accepted = this.#choose(draw);
    this.indices = queueIndices(this.#numbering, this.offered, this.accepted);
    guest.post(...raws(this.#driverMessages(state)));
    await this.settle(1_000);
    if (state === 'hinting') await this.#startHinting();
    if (draw.chance(1, 8)) this.#hostActs(draw);
    if (state === 'needs-reset') this.device.virtio.setNeedsReset();
    guest.received = [];
    if (state === 'suspended' && !this.device.virtio.isSuspended) return 'live';
    return state;
  }

  /** A head that the device does not hold. */
  freshHead(): number {
    this.#nextHead = (this.#nextHead + 1) % 16;
    return this.#nextHead;
  }

  /** Posts a chain and lets the device look at it. */
  async chain(message: Raw): Promise<void> {
    this.guest.post(message);
    await this.settle();
  }

  /** Most cases take everything that is offered. */
  #choose(draw: Draw): FeatureSet {
    let accepted = this.offered;
    if (draw.chance(1, 4)) {
      for (const name of DEVICE_FEATURE_NAMES) {
        if (draw.chance(1, 4)) accepted &= ~featureMask(DEVICE_FEATURES[name]);
      }
    }
    if (!hasFeature(accepted, DEVICE_FEATURES.freePageHint)) {
      accepted &= ~featureMask(DEVICE_FEATURES.hintWaitOnAck);
    }
    return accepted | featureMask(Feature.VERSION_1);
  }

  #driverMessages(state: State): Message[] {
    const messages: Message[] = [{ name: 'setStatus', status: 0 }];
    if (state === 'reset') return messages;
    messages.push({ name: 'setStatus', status: S_ACKNOWLEDGE });
    if (state === 'acknowledged') return messages;
    messages.push({ name: 'setStatus', status: S_DRIVER });
    if (state === 'driver') return messages;
    messages.push(
      { name: 'setDriverFeatures', ...featureWords(this.accepted) },
      { name: 'setStatus', status: S_FEATURES_OK },
    );
    if (state === 'features') return messages;
    for (const { index } of this.queues) messages.push(setQueue(index));
    if (state === 'queues') return messages;
    messages.push({ name: 'setStatus', status: S_DRIVER_OK });
    const added = state === 'failed' ? FAILED : state === 'suspended' ? SUSPEND : null;
    if (added !== null) messages.push({ name: 'setStatus', status: S_DRIVER_OK | bit(added) });
    return messages;
  }

  /** What a monitor may ask for at any moment. */
  #hostActs(draw: Draw): void {
    const { device } = this;
    draw.pick([
      () => device.setTarget(draw.below(2 * RAM_PAGES)),
      () => device.stats.setInterval(draw.pick([1_000_000, 0, 1_000_000_000])),
      () => void device.hintStart(draw.chance(1, 2)),
      () => device.hintStop(),
      () => device.hintDone(),
    ])();
  }

  async #startHinting(): Promise<void> {
    const index = this.indices.free_page_vq;
    if (index === null || !this.device.hintStart()) return;
    const chain = {
      head: this.freshHead(),
      atNs: this.vmm.now,
      out: u32sOf(this.device.hintCmdId),
    };
    await this.chain(availOf(fieldsOf(index, [chain])));
  }
}

export function setQueue(index: number): Message<'setQueue'> {
  const base = 0x10000 * (index + 1);
  const size = 16;
  return {
    name: 'setQueue',
    index,
    size,
    desc_gpa: base,
    avail_gpa: base + 0x1000,
    used_gpa: base + 0x2000,
  };
}
