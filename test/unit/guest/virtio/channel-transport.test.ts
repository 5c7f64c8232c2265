import { describe, expect, test } from 'vitest';
import { CONFIG_VECTOR, type Message } from '../../../../protocol/index.ts';
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
