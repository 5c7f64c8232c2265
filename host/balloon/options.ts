/** What a balloon device is built from; profiles.ts makes it of a `DeviceConfig`. */
import {
  type BalloonQueueName,
  type DeviceFeatures,
  type DeviceQuirk,
  GUEST_STATS,
  type Message,
  type QueueNumbering,
} from '../../protocol/index.ts';
import type { Bitmap, Costs, Nanoseconds } from '../../shared/index.ts';
import type { DiscardHooks } from './discards.ts';
import type { HintIds, HintSink } from './hinting.ts';

export interface BalloonDeviceOptions extends DeviceFeatures {
  /** Frame numbers are below this. */
  readonly ramPages: number;
  /** The frames that hold RAM; default: all. */
  readonly ram?: Bitmap;
  readonly costs: Costs;
  /**
   * Each accepted hint is discarded at once (Firecracker ≥ 1.14), whether or not the guest has
   * reused the pages by then: a driver that does not wait for the ack can lose data.
   */
  readonly discardHints: boolean;
  /** ram_block_discard_disable: nothing is discarded; who asks for it is answered all the same. */
  readonly inhibitDiscards: boolean;
  readonly numbering: QueueNumbering;
  readonly queueSizes: Readonly<Record<BalloonQueueName, number>>;
  /** Length of the configuration space; null: as the offered features demand. */
  readonly configBytes: number | null;
  readonly hintIds: HintIds;
  /** The id used last; default: there was none. */
  readonly lastCmdId?: number;
  /** Statistics that the device knows, by tag. */
  readonly stats: ReadonlyMap<number, string>;
  readonly quirks: ReadonlySet<DeviceQuirk>;
  /** Plant: take hints whatever the state and the id, to prove that the checks can fail. */
  readonly acceptLateHints: boolean;
}

/** Our own device: QEMU's queue sizes and its command ids. */
export const BALLOON_DEVICE_DEFAULTS = {
  mustTellHost: false,
  statsVq: false,
  deflateOnOom: false,
  freePageHint: true,
  pagePoison: false,
  pageReporting: false,
  hintWaitOnAck: false,
  indirectDesc: false,
  eventIdx: false,
  ringPacked: false,
  inOrder: false,
  ringReset: false,
  suspend: false,
  discardHints: false,
  inhibitDiscards: false,
  numbering: 'dense-by-offered',
  queueSizes: { inflateq: 128, deflateq: 128, statsq: 128, free_page_vq: 1024, reporting_vq: 32 },
  configBytes: null,
  hintIds: 'qemu',
  stats: GUEST_STATS,
  quirks: new Set<DeviceQuirk>(['start-reads-as-stop']),
  acceptLateHints: false,
} as const satisfies Partial<BalloonDeviceOptions>;

/** What the device asks of the machine around it. */
export interface BalloonDeviceHooks extends DiscardHooks {
  /** Post to the guest, ahead of what `handleAvail` returns. */
  post(message: Message): void;
  /** A hint of the current round; see `HintSink`. */
  readonly onHint: HintSink;
  /** The driver changed `actual`. */
  onActual?(pages: number): void;
  /** Virtual time; it stands still without it. */
  now?(): Nanoseconds;
  /** Call back later; without it statistics are never polled. */
  after?(delayNs: Nanoseconds, action: () => void): void;
  /** A message that waited for DRIVER_OK is due; without it the device handles it by itself. */
  renotify?(message: Message<'avail'>): void;
  /** The device is about to be suspended: post what `handleAvail` returned and has not gone out. */
  flushUsed?(): void;
}

/** Results of one notification: post `used`, then an irq per vector, `costNs` later. */
export interface AvailResult {
  readonly used: readonly Message[];
  readonly irqVectors: readonly number[];
  readonly costNs: Nanoseconds;
}
