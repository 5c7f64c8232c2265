/**
 * Our guest with a host in a fuzzer's hands: the real kernel, driver and transport behind the
 * channel's encoding, and a real balloon device that answers honestly until it is told not to.
 */
import { Guest } from '../guest/machine/guest.ts';
import { BALLOON_DEVICE_DEFAULTS, BalloonDevice } from '../host/balloon/device.ts';
import { deviceOptionsOf } from '../host/balloon/profiles.ts';
import {
  DEFAULT_KERNEL_OPTIONS,
  DEVICE_FEATURE_NAMES,
  type DeviceConfig,
  ExitReason,
  encodeFrame,
  type GuestConfig,
  MESSAGES,
  type Message,
  MOVABLE_GENERATIONS,
  STRATEGIES,
} from '../protocol/index.ts';
import { decodeFrame } from '../protocol/ipc/frame.ts';
import { DEFAULT_COSTS } from '../shared/index.ts';
import type { Draw } from './draw.ts';
import { show } from './hostile-guest.ts';
import { packFrame, positional, type Raw } from './raw.ts';

export const RAM_PAGES = 8192;

/** Frames that one case may take: far more than any case needs. */
const FRAMES_PER_CASE_MAX = 5000;

export interface GuestVariant {
  readonly guest: GuestConfig;
  readonly device: DeviceConfig;
}

export function guestVariantOf(draw: Draw): GuestVariant {
  const pagePoison = draw.chance(1, 8);
  const features = Object.fromEntries(
    DEVICE_FEATURE_NAMES.map((name) => [name, !draw.chance(1, 3)]),
  );
  return {
    guest: {
      seed: draw.u32(),
      ramPages: RAM_PAGES,
      vcpus: 1 + draw.below(2),
      mm: { initOnAlloc: !draw.chance(1, 2), initOnFree: draw.chance(1, 4), pagePoison },
      kernel: { ...DEFAULT_KERNEL_OPTIONS, movableGeneration: draw.pick(MOVABLE_GENERATIONS) },
      strategy: draw.pick(STRATEGIES),
      iterate: { budgetNodes: draw.pick([1000, 1, 16]), minOrder: draw.below(3) },
      recordingPath: null,
      costs: DEFAULT_COSTS,
      auditEveryEvents: 0,
      logPath: null,
    },
    device: features,
  };
}

export class GuestMachine {
  readonly guest: Guest;
  readonly device: BalloonDevice;
  readonly trace: string[] = [];
  /** Most messages and bytes that the guest answered a frame with. */
  replyMessages = 0;
  replyBytes = 0;
  now = 0;
  /** The access that the guest waits for an answer to. */
  access: Message | null = null;
  /** The heads that the device has used, for the next frame. */
  #outbox: Raw[] = [];
  #frames = 0;
  /** What becomes of an honest message on its way; a case sets it. */
  tamper: (message: Message) => Raw | null = positional;

  constructor({ guest, device }: GuestVariant) {
    this.guest = new Guest(guest, null);
    this.device = new BalloonDevice(
      {
        ...BALLOON_DEVICE_DEFAULTS,
        ...deviceOptionsOf(device),
        ramPages: RAM_PAGES,
        costs: DEFAULT_COSTS,
      },
      { post: (message) => this.post(message), onHint: () => {}, now: () => this.now },
    );
  }

  /** A case begins: its budget of frames, and an honest host. */
  begin(): void {
    this.#frames = 0;
    this.trace.length = 0;
    this.tamper = positional;
  }

  /** What the guest has counted against its host. */
  get violations(): number {
    const { counters } = this.guest.system.transport;
    return counters.protocol_violations + counters.broken_queues;
  }

  post(message: Message): void {
    const raw = this.tamper(message);
    if (raw) this.#outbox.push(raw);
  }

  /** One frame to the guest, as bytes; the device handles what is in its answer. */
  exchange(messages: readonly Raw[]): void {
    if (++this.#frames > FRAMES_PER_CASE_MAX) throw new Error('the guest exits for ever');
    if (this.trace.length < 64) this.trace.push(`host: ${messages.map(show).join(', ')}`);
    const frame = packFrame(messages);
    const replies = this.guest.handle(decodeFrame(frame, 4, frame.length, 'host', 'view'));
    const bytes = encodeFrame(replies);
    this.replyMessages = Math.max(this.replyMessages, replies.length);
    this.replyBytes = Math.max(this.replyBytes, bytes.length);
    if (this.trace.length < 64)
      this.trace.push(`guest: ${replies.map(({ name }) => name).join(', ')}`);
    this.#take(decodeFrame(bytes, 4, bytes.length, 'guest', 'copy'));
  }

  /** The guest runs for so long, and the device answers what it asks. */
  runFor(ns: number): void {
    const untilNs = this.now + ns;
    while (this.now < untilNs || this.#outbox.length > 0) {
      const frame = [...this.#outbox, run(untilNs)];
      this.#outbox = [];
      this.access = null;
      this.exchange(frame);
    }
  }

  /** What an honest host does with an answer. */
  #take(replies: readonly Message[]): void {
    for (const [i, message] of replies.entries()) {
      const next = replies[i + 1];
      const isAccess = next?.name === 'exit' && next.reason === ExitReason.ACCESS;
      if (message.name === 'exit') this.now = Math.max(this.now, message.at_ns);
      else if (isAccess) this.#answer(message);
      else if (message.name === 'avail') this.#handleAvail(message);
      else if (MESSAGES[message.name].group === 'virtio') this.device.handle(message);
    }
  }

  #answer(access: Message): void {
    this.access = access;
    const reply = this.device.handle(access);
    if (reply === null) throw new Error(`${access.name} has no answer`);
    this.post(reply);
  }

  #handleAvail(message: Message<'avail'>): void {
    const { used, irqVectors } = this.device.handleAvail(message);
    for (const one of used) this.post(one);
    for (const vector of irqVectors) this.post({ name: 'irq', vector });
  }
}

export function run(untilNs: number): Raw[] {
  return positional({ name: 'run', until_ns: untilNs, notify_ns: DEFAULT_COSTS.notifyNs });
}
