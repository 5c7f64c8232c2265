/**
 * What every transport with rings in guest memory does with the device's hand on each: chains out,
 * used buffers in, interrupts that the driver wants, and word of a ring that makes no sense. The
 * transport keeps the rings and decides when.
 */
import type { Message } from '../../protocol/index.ts';
import type { Nanoseconds } from '../../shared/index.ts';
import type { DeviceRing } from './queue.ts';

export interface RingCounters {
  /** Host messages that named no queue, no outstanding chain, or disagreed with themselves. */
  protocol_violations: number;
  avail_chains: number;
  used_chains: number;
  broken_queues: number;
  /** Interrupts that the driver had not asked for. */
  suppressed_irqs: number;
}

export interface DeviceRingsOptions {
  readonly counters: RingCounters;
  /** The ring of each queue by its index; none: the queue is not set up. */
  rings(): readonly (DeviceRing | null | undefined)[];
  /** To the device: it needs a reset. */
  post(message: Message<'queueBroken'>): void;
  /** For a log. */
  onBroken?(queue: number, reason: string): void;
}

export class DeviceRings {
  readonly #options: DeviceRingsOptions;

  constructor(options: DeviceRingsOptions) {
    this.#options = options;
  }

  /** A queue was notified. */
  take(index: number, ring: DeviceRing, now: Nanoseconds): void {
    this.#watch(index, ring, () => ring.take(now));
  }

  /** The chains notified since the last call, for the frame that goes out now. */
  drain(): Message<'avail'>[] {
    const messages: Message<'avail'>[] = [];
    for (const [index, ring] of this.#options.rings().entries()) {
      if (!ring) continue;
      const message = this.#watch(index, ring, () => ring.drain());
      if (!message) continue;
      messages.push(message);
      this.#options.counters.avail_chains += message.heads.length / 2;
    }
    return messages;
  }

  use(message: Message<'used'>): void {
    const { counters } = this.#options;
    const ring = this.#options.rings()[message.queue];
    const count = message.heads.length / 2;
    if (!ring || !Number.isInteger(count) || message.written_bytes.length !== count * 4) {
      counters.protocol_violations++;
      return;
    }
    const { heads, written_bytes } = message;
    const bad = this.#watch(message.queue, ring, () => ring.complete(heads, written_bytes));
    counters.protocol_violations += bad;
    counters.used_chains += count - bad;
  }

  /** The host's interrupt reaches the guest only if the driver asked for it, as on any bus. */
  wantsInterrupt(index: number): boolean {
    const { counters } = this.#options;
    const ring = this.#options.rings()[index];
    if (ring?.interruptNeeded()) return true;
    if (ring) counters.suppressed_irqs++;
    else counters.protocol_violations++;
    return false;
  }

  #watch<T>(index: number, ring: DeviceRing, look: () => T): T {
    const wasBroken = ring.broken !== null;
    const result = look();
    if (ring.broken !== null && !wasBroken) {
      this.#options.counters.broken_queues++;
      this.#options.post({ name: 'queueBroken', queue: index });
      this.#options.onBroken?.(index, ring.broken);
    }
    return result;
  }
}
