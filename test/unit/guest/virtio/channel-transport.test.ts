import { describe, expect, test } from 'vitest';
import type { DriverQueue } from '../../../../guest/virtio/queue.ts';
import { allocateQueue } from '../../../../guest/virtio/queue-memory.ts';
import { CONFIG_VECTOR, type Message } from '../../../../protocol/index.ts';
import { PAGE_SIZE_BYTES } from '../../../../shared/index.ts';
import { DriverHarness } from '../../../support/driver-harness.ts';

const SECOND = 1_000_000_000;
const bin = (...bytes: number[]): Uint8Array => Uint8Array.from(bytes);

describe('messages of a host that is not trusted', () => {
  const cases: { id: string; message: Message<'used' | 'irq'>; violations: number }[] = [
    {
      id: 'used on no queue',
      message: { name: 'used', queue: 9, heads: bin(0, 0), written_bytes: bin(0, 0, 0, 0) },
      violations: 1,
    },
    {
      id: 'odd heads',
      message: { name: 'used', queue: 0, heads: bin(0), written_bytes: bin() },
      violations: 1,
    },
    {
      id: 'lengths that disagree',
      message: { name: 'used', queue: 0, heads: bin(0, 0), written_bytes: bin(0) },
      violations: 1,
    },
    {
      id: 'heads that are not outstanding',
      message: {
        name: 'used',
        queue: 0,
        heads: bin(0, 0, 255, 255),
        written_bytes: new Uint8Array(8),
      },
      violations: 2,
    },
    { id: 'irq of no queue', message: { name: 'irq', vector: 77 }, violations: 1 },
    { id: 'spurious irq of a queue', message: { name: 'irq', vector: 0 }, violations: 0 },
    { id: 'spurious config irq', message: { name: 'irq', vector: CONFIG_VECTOR }, violations: 0 },
  ];

  // spec: 2.7.7.1-driver-5
  test.each(cases)(
    '$id: $violations counted, and the driver goes on',
    ({ message, violations }) => {
      const harness = new DriverHarness().boot();
      harness.transport.receive(message);
      expect(harness.transport.counters.protocol_violations).toBe(violations);
      harness.device.setTarget(3);
      harness.runFor(SECOND);
      expect(harness.driver.numPages).toBe(3);
    },
  );
});

test('chains carry the time of their own notification', () => {
  const harness = new DriverHarness().boot();
  harness.device.setTarget(600);
  harness.runFor(SECOND);
  const sent = harness.trace.filter((m): m is Message<'avail'> => m.name === 'avail');
  const times = sent.map((m) => new Float64Array(m.at_ns.slice().buffer)[0]!);
  expect(times).toHaveLength(3);
  expect(times.every((at, i) => Number.isInteger(at) && (i === 0 || at > times[i - 1]!))).toBe(
    true,
  );
});

// spec: 2.4.2-driver-1
test('a reset that the device does not finish is counted and ends', () => {
  const harness = new DriverHarness();
  const { handle } = harness.device;
  harness.device.handle = (message) =>
    message.name === 'getStatus'
      ? { name: 'status', status: 1 }
      : handle.call(harness.device, message);
  harness.boot();
  expect(harness.transport.counters.protocol_violations).toBe(1);
  expect(harness.driver.state).toBe('failed');
});

const RINGS = [
  {},
  { indirectDesc: true },
  { eventIdx: true },
  { inOrder: true },
  { ringPacked: true },
  { ringPacked: true, indirectDesc: true, eventIdx: true, inOrder: true },
] as const;

test.each(RINGS)('a balloon inflates and deflates over rings with %o', (offers) => {
  const harness = new DriverHarness({ device: offers }).boot();
  for (const target of [2000, 0, 300]) {
    harness.device.setTarget(target);
    harness.runFor(SECOND);
    expect(harness.driver.numPages).toBe(target);
    expect(harness.device.inflatedPages.count()).toBe(target);
  }
  expect(harness.device.protocolViolations).toBe(0);
  const { counters } = harness.transport;
  expect([counters.protocol_violations, counters.broken_queues]).toEqual([0, 0]);
  expect(counters.used_chains).toBe(counters.avail_chains);
});

/** A queue of the test's own on the place of inflateq, and how often it was interrupted. */
function ownQueue(offers: { eventIdx?: boolean; ringPacked?: boolean }) {
  const harness = new DriverHarness({ device: { ...offers, ringReset: true } }).boot();
  const { kernel, transport, driver } = harness;
  const made = { harness, interrupts: 0 };
  const setUp = (size: number): DriverQueue => {
    const queue = allocateQueue(kernel, 0, size, driver.features)!;
    harness.run(function* () {
      yield* transport.resetQueue(0);
      yield* transport.setQueue(queue, () => {
        made.interrupts++;
      });
    });
    return queue;
  };
  const send = (queue: DriverQueue): void => {
    const pfn = kernel.mm.alloc(0, 0);
    harness.ram.bytesOf(pfn, 1);
    queue.addChain({ out: [{ gpa: pfn * PAGE_SIZE_BYTES, lengthBytes: 4 }] });
    harness.run(() => transport.notify(queue), 1_000_000);
  };
  return Object.assign(made, { setUp, send });
}

describe.each([{}, { eventIdx: true }, { ringPacked: true }, { ringPacked: true, eventIdx: true }])(
  'notifications over %o',
  (offers) => {
    test('an interrupt reaches the guest only if the driver asked for it', () => {
      const own = ownQueue(offers);
      const { counters } = own.harness.transport;
      const queue = own.setUp(16);
      own.send(queue);
      expect([own.interrupts, counters.suppressed_irqs]).toEqual([1, 0]);
      expect(queue.getUsed()).toBeGreaterThanOrEqual(0);
      queue.disableCallbacks();
      own.send(queue);
      expect([own.interrupts, counters.suppressed_irqs]).toEqual([1, 1]);
      expect(queue.enableCallbacks()).toBe(false);
      expect(queue.getUsed()).toBeGreaterThanOrEqual(0);
      own.send(queue);
      expect([own.interrupts, counters.suppressed_irqs]).toEqual([2, 1]);
    });

    test('a queue that was reset begins anew, with another size', () => {
      const own = ownQueue(offers);
      const first = own.setUp(16);
      for (let i = 0; i < 5; i++) own.send(first);
      const second = own.setUp(4);
      const before = own.interrupts;
      own.send(second);
      expect(own.interrupts).toBe(before + 1);
      expect([second.getUsed() >= 0, second.getUsed()]).toEqual([true, -1]);
      expect(own.harness.transport.counters.protocol_violations).toBe(0);
      expect(own.harness.device.virtio.queue(0)?.size).toBe(4);
    });
  },
);

test('a device that asks for no kicks gets none', () => {
  const own = ownQueue({});
  const queue = own.setUp(16);
  const noNotify = Uint8Array.of(1, 0);
  own.harness.ram.writeBytes(queue.areas.deviceGpa, noNotify);
  own.send(queue);
  expect(own.harness.transport.counters.suppressed_kicks).toBe(1);
  expect(queue.getUsed()).toBe(-1);
});

// spec: 2.6.1.1.2-driver-1
test('the reset of a queue is waited for; one that does not end is counted', () => {
  const own = ownQueue({});
  const { harness } = own;
  const { handle } = harness.device;
  let polls = 0;
  harness.device.handle = (message) => {
    const reply = handle.call(harness.device, message);
    if (message.name !== 'getQueue' || reply?.name !== 'queue') return reply;
    return { ...reply, enabled: ++polls < 3 };
  };
  harness.run(() => harness.transport.resetQueue(0));
  expect([polls, harness.transport.counters.protocol_violations]).toEqual([3, 0]);
  polls = -100;
  harness.run(() => harness.transport.resetQueue(0));
  expect(harness.transport.counters.protocol_violations).toBe(1);
});
