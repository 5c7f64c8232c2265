import { describe, expect, it } from 'vitest';
import { DeviceRings } from '../../../../guest/virtio/device-rings.ts';
import type { DeviceRing } from '../../../../guest/virtio/queue.ts';
import type { Message } from '../../../../protocol/index.ts';

/** A ring that breaks in the call of this name, and otherwise has nothing to do. */
class PlayedRing {
  broken: string | null = null;
  readonly #breaksIn: string;

  constructor(breaksIn: string) {
    this.#breaksIn = breaksIn;
  }

  take(): number {
    return this.#did('take', 0);
  }

  drain(): null {
    return this.#did('drain', null);
  }

  complete(): number {
    return this.#did('complete', 0);
  }

  interruptNeeded(): boolean {
    return true;
  }

  #did<T>(name: string, result: T): T {
    if (name === this.#breaksIn) this.broken = 'nonsense';
    return result;
  }
}

function make(ring: PlayedRing | null) {
  const played = ring as unknown as DeviceRing | null;
  const posted: Message[] = [];
  const counters = {
    protocol_violations: 0,
    avail_chains: 0,
    used_chains: 0,
    broken_queues: 0,
    suppressed_irqs: 0,
  };
  const rings = new DeviceRings({
    counters,
    rings: () => [null, played],
    post: (message) => void posted.push(message),
  });
  return { rings, ring: played!, posted, counters };
}

const USED: Message<'used'> = {
  name: 'used',
  queue: 1,
  heads: new Uint8Array(2),
  written_bytes: new Uint8Array(4),
};

describe('the rings of a transport', () => {
  it.each(['take', 'drain', 'complete'])(
    'tell the device once of a ring that breaks in %s',
    (call) => {
      const { rings, ring, posted, counters } = make(new PlayedRing(call));
      for (let i = 0; i < 2; i++) {
        rings.take(1, ring, 0);
        rings.drain();
        rings.use(USED);
      }
      expect(posted).toEqual([{ name: 'queueBroken', queue: 1 }]);
      expect(counters.broken_queues).toBe(1);
    },
  );

  it('count what the host says of a queue that is not set up', () => {
    const { rings, posted, counters } = make(null);
    rings.use({ ...USED, queue: 0 });
    expect(rings.wantsInterrupt(7)).toBe(false);
    expect([counters.protocol_violations, posted.length]).toEqual([2, 0]);
  });
});
