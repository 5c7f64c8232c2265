import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { BALLOON_DEVICE_DEFAULTS, BalloonDevice } from '../../../../host/balloon/device.ts';
import { DeviceQueue } from '../../../../host/virtio/queue.ts';
import {
  f64Bytes,
  type Message,
  toUint16,
  toUint32,
  u16Bytes,
  u32Bytes,
} from '../../../../protocol/index.ts';
import { AssertionError, DEFAULT_COSTS } from '../../../../shared/index.ts';

const ADDRESSES = { descGpa: 0, availGpa: 0, usedGpa: 0 };

describe('device queue', () => {
  test('a head is taken once until it is used', () => {
    const queue = new DeviceQueue(0, 4, ADDRESSES);
    expect(queue.pop(3)).toBe(true);
    expect(queue.pop(3)).toBe(false);
    expect(queue.pop(4)).toBe(false);
    expect(queue.outstandingCount).toBe(1);
    queue.push(3, 12);
    expect(queue.outstandingCount).toBe(0);
    expect(queue.pop(3)).toBe(true);
  });

  test('used chains leave in one message, in order, once', () => {
    const queue = new DeviceQueue(7, 4, ADDRESSES);
    for (const head of [2, 0]) queue.pop(head);
    queue.push(0, 5);
    queue.push(2, 6);
    const used = queue.takeUsed()!;
    expect(used.queue).toBe(7);
    expect([...toUint16(used.heads)!]).toEqual([0, 2]);
    expect([...toUint32(used.written_bytes)!]).toEqual([5, 6]);
    expect(queue.takeUsed()).toBe(null);
  });

  test('using what was not taken is a mistake of our own', () => {
    expect(() => new DeviceQueue(0, 4, ADDRESSES).push(1, 0)).toThrow(AssertionError);
  });
});

/** A live balloon device whose host callbacks check what they are given. */
function liveDevice(ramPages: number): BalloonDevice {
  const device = new BalloonDevice(
    { ...BALLOON_DEVICE_DEFAULTS, ramPages, costs: DEFAULT_COSTS },
    {
      post: (message) => {
        if (message.name !== 'discard') return;
        const ranges = toUint32(message.ranges)!;
        for (let i = 0; i < ranges.length; i += 2) {
          expect(ranges[i]! + ranges[i + 1]!).toBeLessThanOrEqual(ramPages);
        }
      },
      onHint: (firstPfn, pageCount) => expect(firstPfn + pageCount).toBeLessThanOrEqual(ramPages),
    },
  );
  device.handle({ name: 'setStatus', status: 3 });
  device.handle({ name: 'setDriverFeatures', low: 8, high: 1 });
  device.handle({ name: 'setStatus', status: 11 });
  for (const index of [0, 1, 2]) {
    const at = { desc_gpa: 0, avail_gpa: 0, used_gpa: 0 };
    device.handle({ name: 'setQueue', index, size: 16, ...at });
  }
  device.handle({ name: 'setStatus', status: 15 });
  return device;
}

describe('any guest', () => {
  const bytes = fc.uint8Array({ maxLength: 40 });
  const noise = fc.record({
    heads: bytes,
    at_ns: bytes,
    out_bytes: bytes,
    out: bytes,
    in_count: bytes,
    in_gpa: bytes,
    in_bytes: bytes,
  });
  const chain = fc.record({
    head: fc.nat(20),
    out: fc.array(fc.oneof(fc.nat(70), fc.nat(0xffff_ffff)), { maxLength: 3 }),
    in: fc.array(fc.tuple(fc.nat(70), fc.nat(3)), { maxLength: 2 }),
  });
  const shaped = fc.array(chain, { minLength: 1, maxLength: 6 }).map((chains) => ({
    heads: u16Bytes(Uint16Array.from(chains, (one) => one.head)),
    at_ns: f64Bytes(new Float64Array(chains.length)),
    out_bytes: u32Bytes(Uint32Array.from(chains, (one) => one.out.length * 4)),
    out: u32Bytes(Uint32Array.from(chains.flatMap((one) => one.out))),
    in_count: u16Bytes(Uint16Array.from(chains, (one) => one.in.length)),
    in_gpa: f64Bytes(
      Float64Array.from(
        chains.flatMap((one) => one.in),
        ([pfn]) => pfn * 4096,
      ),
    ),
    in_bytes: u32Bytes(
      Uint32Array.from(
        chains.flatMap((one) => one.in),
        ([, n]) => n * 4096,
      ),
    ),
  }));
  const step = fc.oneof(
    fc.record({ queue: fc.nat(3), fields: fc.oneof(shaped, noise) }),
    fc.constantFrom(
      'hintStart' as const,
      'hintStop' as const,
      'hintDone' as const,
      'reset' as const,
    ),
  );

  test('never throws, never escapes RAM, and every chain is used at most once', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 12 }), (steps) => {
        const device = liveDevice(64);
        for (const one of steps) {
          if (one === 'reset') device.handle({ name: 'setStatus', status: 0 });
          else if (typeof one === 'string') device[one]();
          else {
            const message: Message<'avail'> = { name: 'avail', queue: one.queue, ...one.fields };
            const { used } = device.handleAvail(message);
            const offered = one.fields.heads.length / 2;
            for (const reply of used) {
              if (reply.name === 'used') {
                expect(reply.heads.length / 2).toBeLessThanOrEqual(offered);
              }
            }
          }
        }
        expect(device.inflatedPages.nextSet(64)).toBe(-1);
      }),
      { numRuns: 300, seed: 11 },
    );
  });
});
