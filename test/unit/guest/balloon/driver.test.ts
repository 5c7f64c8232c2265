import { describe, expect, test } from 'vitest';
import { BalloonFeature, Desc, hasFeature, type Message } from '../../../../protocol/index.ts';
import { DriverHarness } from '../../../support/driver-harness.ts';

const SECOND = 1_000_000_000;

describe('probe', () => {
  const subsets = [0, 1, 2, 3].flatMap((offered) =>
    [0, 1, 2, 3].map((wanted) => ({ offered, wanted })),
  );

  // spec: 2.2.1-driver-1, 2.2.1-driver-6
  test.each(subsets)('negotiates offered=$offered wanted=$wanted', ({ offered, wanted }) => {
    const bits =
      ((wanted & 1) << BalloonFeature.MUST_TELL_HOST) |
      ((wanted >> 1) << BalloonFeature.FREE_PAGE_HINT);
    const harness = new DriverHarness({
      device: { mustTellHost: (offered & 1) !== 0, freePageHint: (offered & 2) !== 0 },
      driver: { features: BigInt(bits) },
    }).boot();
    expect(harness.driver.state).toBe('ready');
    const both = offered & wanted;
    const { features } = harness.driver;
    expect(hasFeature(features, BalloonFeature.MUST_TELL_HOST)).toBe((both & 1) !== 0);
    expect(hasFeature(features, BalloonFeature.FREE_PAGE_HINT)).toBe((both & 2) !== 0);
    expect(harness.driver.hinting !== null).toBe((both & 2) !== 0);
    expect(harness.device.virtio.negotiatedFeatures).toBe(features);
    expect(harness.device.protocolViolations).toBe(0);
  });

  // spec: 2.1.1-driver-1, 3.1.1-driver-1
  test('sets the status bits in the order of the specification', () => {
    const { trace } = new DriverHarness().boot();
    const statuses = trace.filter((m): m is Message<'setStatus'> => m.name === 'setStatus');
    expect(statuses.map((m) => m.status)).toEqual([0, 1, 3, 11, 15]);
  });

  test('a declined strategy declines FREE_PAGE_HINT', () => {
    const harness = new DriverHarness({ strategy: null }).boot();
    expect(hasFeature(harness.driver.features, BalloonFeature.FREE_PAGE_HINT)).toBe(false);
  });

  // spec: 3.1.1-driver-5
  test('fails, and says so in the status, when there is no memory for rings', () => {
    const harness = new DriverHarness();
    harness.mm.limitPages = 0;
    harness.boot();
    expect(harness.driver.state).toBe('failed');
    expect(harness.device.virtio.status & 0x80).toBe(0x80);
  });
});

describe('size work', () => {
  // spec: 5.5.6.1-driver-1, 5.5.6.1-driver-11
  test('inflates to the target, discards every page once and writes actual', () => {
    const harness = new DriverHarness().boot();
    harness.device.setTarget(1000);
    harness.runFor(SECOND);
    expect(harness.driver.numPages).toBe(1000);
    expect(harness.device.actualPages).toBe(1000);
    expect(harness.device.inflatedPages.count()).toBe(1000);
    expect(harness.discarded.reduce((sum, [, count]) => sum + count, 0)).toBe(1000);
    expect(harness.driver.counters.balloon_inflate).toBe(1000);
    expect(harness.driver.audit()).toEqual([]);
    expect(harness.device.protocolViolations).toBe(0);
  });

  // spec: 5.5.6.1-driver-11, 5.5.6.1-driver-12
  // spec: 2.7.4.2-driver-2
  test('needs one descriptor for a request of 256 pages', () => {
    const harness = new DriverHarness().boot();
    harness.device.setTarget(256);
    harness.runFor(SECOND);
    const setUp = harness.trace.find((m) => m.name === 'setQueue' && m.index === 0);
    const { desc_gpa } = setUp as Message<'setQueue'>;
    const table = harness.ram.readBytes(desc_gpa, 2 * Desc.sizeBytes)!;
    const view = new DataView(table.buffer);
    expect(Desc.read(view, 0)).toMatchObject({ len: 1024, flags: 0 });
    expect(Desc.read(view, Desc.sizeBytes)).toMatchObject({ len: 0, flags: 0 });
  });

  test('moves at most 256 pages a pass and writes actual once per pass', () => {
    const harness = new DriverHarness().boot();
    harness.device.setTarget(600);
    harness.runFor(SECOND);
    const writes = harness.trace.filter((m): m is Message<'setConfig'> => m.name === 'setConfig');
    const actual = writes.map((m) => m.data[0]! + 256 * m.data[1]!);
    expect(actual).toEqual([256, 512, 600]);
  });

  // spec: 5.5.6.1-driver-2, 5.5.6.1-driver-6
  test('deflates to zero and gives every page back after the host acknowledged', () => {
    const harness = new DriverHarness().boot();
    const before = harness.mm.allocatedPages;
    harness.device.setTarget(700);
    harness.runFor(SECOND);
    harness.device.setTarget(0);
    harness.runFor(SECOND);
    expect(harness.driver.numPages).toBe(0);
    expect(harness.mm.allocatedPages).toBe(before);
    expect(harness.device.inflatedPages.count()).toBe(0);
    expect(harness.driver.counters.balloon_deflate).toBe(700);
    expect(harness.device.protocolViolations).toBe(0);
  });

  // spec: 5.5.6.1-driver-7
  test.each([true, false])('frees no page before the deflate ack (MUST_TELL_HOST %s)', (must) => {
    const harness = new DriverHarness({ device: { mustTellHost: must } }).boot();
    harness.device.setTarget(100);
    harness.runFor(SECOND);
    harness.stalled = true;
    harness.device.setTarget(0);
    harness.runFor(SECOND);
    expect(harness.mm.freed).toHaveLength(0);
    harness.stalled = false;
    harness.runFor(SECOND);
    expect(harness.mm.freed).toHaveLength(100);
  });

  test('a target that changes in between is reached', () => {
    const harness = new DriverHarness().boot();
    for (const target of [5000, 300, 4096, 1]) {
      harness.device.setTarget(target);
      harness.runFor(7_000_000);
    }
    harness.runFor(SECOND);
    expect(harness.driver.numPages).toBe(1);
    expect(harness.device.protocolViolations).toBe(0);
  });

  test('what it writes for the device is in the dirty log: its ring and its buffer', () => {
    const harness = new DriverHarness().boot();
    harness.ram.dirtyLog.enable(true);
    harness.device.setTarget(5);
    harness.runFor(SECOND);
    // Frames are handed out in order: inflateq, deflateq, the driver's buffer.
    expect(harness.ram.dirtyLog.bits.get(1024)).toBe(true);
    expect(harness.ram.dirtyLog.bits.get(1025)).toBe(false);
    expect(harness.ram.dirtyLog.bits.get(1026)).toBe(true);
    expect(harness.ram.dirtyLog.bits.count()).toBe(2);
  });

  test('out of puff: sleeps 200 ms, keeps what it got and tries again', () => {
    const harness = new DriverHarness().boot();
    harness.mm.limitPages = harness.mm.allocatedPages + 300;
    harness.device.setTarget(1000);
    harness.runFor(SECOND);
    expect(harness.driver.numPages).toBe(300);
    const { balloon_out_of_puff } = harness.driver.counters;
    expect(balloon_out_of_puff).toBeGreaterThanOrEqual(4);
    expect(balloon_out_of_puff).toBeLessThanOrEqual(5);
    harness.mm.limitPages += 1000;
    harness.runFor(SECOND);
    expect(harness.driver.numPages).toBe(1000);
  });

  test('a target set before the driver is ready is met without an interrupt', () => {
    const harness = new DriverHarness();
    harness.device.setTarget(10);
    harness.boot();
    harness.runFor(SECOND);
    expect(harness.driver.numPages).toBe(10);
  });
});

test('the page allocator agrees with the driver through inflate and deflate', () => {
  const harness = new DriverHarness({ ramPages: 32768, realAllocator: true }).boot();
  const free = harness.pageAllocator!.freePages();
  harness.device.setTarget(20_000);
  harness.runFor(2 * SECOND);
  expect(harness.driver.numPages).toBe(20_000);
  expect(harness.pageAllocator!.freePages()).toBe(free - 20_000);
  expect(harness.driver.audit()).toEqual([]);
  expect(harness.pageAllocator!.audit()).toEqual([]);
  harness.device.setTarget(0);
  harness.runFor(2 * SECOND);
  expect(harness.pageAllocator!.freePages()).toBe(free);
  expect(harness.pageAllocator!.audit()).toEqual([]);
  expect(harness.device.protocolViolations).toBe(0);
});
