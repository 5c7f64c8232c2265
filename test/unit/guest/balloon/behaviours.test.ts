/** What Windows' and FreeBSD's drivers do differently, each quirk for itself. */
import { describe, expect, test } from 'vitest';
import { DRIVER_BEHAVIOURS } from '../../../../guest/balloon/behaviour.ts';
import {
  BalloonFeature as B,
  type DriverBehaviourName,
  hasFeature,
  type Message,
} from '../../../../protocol/index.ts';
import { DriverHarness, type HarnessOptions } from '../../../support/driver-harness.ts';

const SECOND = 1_000_000_000;
const INFLATEQ = 0;
const DEFLATEQ = 1;

function boot(name: DriverBehaviourName, options: HarnessOptions = {}): DriverHarness {
  return new DriverHarness({
    device: { mustTellHost: true, statsVq: true, deflateOnOom: true },
    ...options,
    driver: { behaviour: DRIVER_BEHAVIOURS[name], ...options.driver },
  }).boot();
}

function inflated(name: DriverBehaviourName, pages: number, options?: HarnessOptions) {
  const harness = boot(name, options);
  harness.device.setTarget(pages);
  harness.runFor(3 * SECOND);
  expect(harness.driver.numPages).toBe(pages);
  return harness;
}

/** PFNs of each request on a queue, oldest first. */
function requests({ trace }: DriverHarness, queue: number): number[][] {
  return trace
    .filter((m): m is Message<'avail'> => m.name === 'avail' && m.queue === queue)
    .map(({ out }) => {
      const view = new DataView(out.buffer, out.byteOffset, out.byteLength);
      return Array.from({ length: out.length / 4 }, (_, i) => view.getUint32(4 * i, true));
    });
}

const lengths = (harness: DriverHarness, queue: number) =>
  requests(harness, queue).map(({ length }) => length);

const drivers = [
  { name: 'linux', pfns: 256, mustTellHost: true, oom: true },
  { name: 'windows', pfns: 512, mustTellHost: false, oom: false },
  { name: 'freebsd', pfns: 256, mustTellHost: true, oom: false },
] as const;

describe.each(drivers)('$name', ({ name, pfns, mustTellHost, oom }) => {
  test('inflates and deflates to any target, at most one request at a time', () => {
    const harness = boot(name);
    for (const target of [pfns, 1, 2000, 1999, 0, 700]) {
      harness.device.setTarget(target);
      harness.runFor(5 * SECOND);
      expect(harness.driver.numPages).toBe(target);
      expect(harness.device.actualPages).toBe(target);
      expect(harness.device.inflatedPages.count()).toBe(target);
      expect(harness.driver.audit()).toEqual([]);
    }
    expect(Math.max(...lengths(harness, INFLATEQ))).toBe(pfns);
    expect(harness.device.protocolViolations).toBe(0);
  });

  test('accepts MUST_TELL_HOST and DEFLATE_ON_OOM if it knows them', () => {
    const { features } = boot(name).driver;
    expect(hasFeature(features, B.MUST_TELL_HOST)).toBe(mustTellHost);
    expect(hasFeature(features, B.DEFLATE_ON_OOM)).toBe(oom);
  });

  // spec: 5.5.6.1-driver-6
  test('names every page that it takes out of the balloon', () => {
    const harness = inflated(name, 1000);
    harness.device.setTarget(0);
    harness.runFor(5 * SECOND);
    const told = requests(harness, DEFLATEQ).flat();
    expect(told).toHaveLength(1000);
    expect(new Set(told)).toEqual(new Set(requests(harness, INFLATEQ).flat()));
  });

  test('removal leaves nothing in the balloon', () => {
    const harness = inflated(name, 900);
    const before = harness.device.actualPages;
    expect(harness.run(() => harness.driver.remove())).toBe(null);
    expect(harness.device.inflatedPages.count()).toBe(0);
    expect(harness.driver.audit()).toEqual([]);
    // FreeBSD does not say so.
    expect(harness.device.actualPages).toBe(name === 'freebsd' ? before : 0);
  });
});

describe('windows', () => {
  // spec: 5.5.6.1-driver-8
  test('frees pages before the host knows', () => {
    const harness = inflated('windows', 512);
    harness.stalled = true;
    const before = harness.mm.freed.length;
    harness.device.setTarget(0);
    harness.runFor(SECOND / 2);
    expect(harness.mm.freed.length - before).toBe(512);
    expect(harness.device.inflatedPages.count()).toBe(512);
  });

  test('waits at most a second for the host, and goes on', () => {
    const harness = boot('windows');
    harness.stalled = true;
    harness.device.setTarget(512);
    harness.runFor(SECOND);
    expect(harness.driver.counters.balloon_ack_timeouts).toBe(0);
    harness.runFor(SECOND / 10);
    expect(harness.driver.counters.balloon_ack_timeouts).toBe(1);
    // It counts as told, and says so.
    expect(harness.driver.numPages).toBe(512);
    expect(harness.device.actualPages).toBe(512);
    expect(harness.device.inflatedPages.count()).toBe(0);
    // What comes later is taken for what it is.
    harness.stalled = false;
    harness.device.setTarget(1024);
    harness.runFor(3 * SECOND);
    expect(harness.driver.numPages).toBe(1024);
    expect(harness.device.inflatedPages.count()).toBe(1024);
    expect(harness.driver.counters.balloon_ack_timeouts).toBe(1);
  });

  test('has more requests out than the ring holds only in vain', () => {
    const queueSizes = {
      inflateq: 2,
      deflateq: 2,
      statsq: 2,
      free_page_vq: 2,
      reporting_vq: 32,
    };
    const harness = boot('windows', { device: { queueSizes } });
    harness.stalled = true;
    for (let target = 512; target <= 4 * 512; target += 512) {
      harness.device.setTarget(target);
      harness.runFor(2 * SECOND);
    }
    expect(harness.driver.counters.balloon_untold_requests).toBe(2);
    expect(harness.driver.numPages).toBe(4 * 512);
  });

  test('gives back the whole last request, and inflates what was too much', () => {
    const harness = inflated('windows', 1000);
    expect(lengths(harness, INFLATEQ)).toEqual([512, 488]);
    harness.device.setTarget(990);
    harness.runFor(3 * SECOND);
    expect(lengths(harness, DEFLATEQ)).toEqual([488]);
    expect(lengths(harness, INFLATEQ)).toEqual([512, 488, 478]);
    const [, second] = requests(harness, INFLATEQ);
    expect(requests(harness, DEFLATEQ)[0]!.toSorted()).toEqual(second!.toSorted());
    expect(harness.driver.numPages).toBe(990);
  });

  test('takes all of a request or nothing, and does not try again by itself', () => {
    const harness = boot('windows');
    const before = harness.mm.allocatedPages;
    harness.mm.limitPages = before + 600;
    harness.device.setTarget(2000);
    harness.runFor(20 * SECOND);
    expect(harness.driver.numPages).toBe(512);
    expect(harness.mm.allocatedPages).toBe(before + 512);
    expect(harness.driver.counters.balloon_out_of_puff).toBe(1);
    harness.mm.limitPages = before + 3000;
    harness.runFor(20 * SECOND);
    expect(harness.driver.numPages).toBe(512);
    // The next interrupt, whatever it is for, leads to another pass.
    harness.device.stats.setInterval(SECOND);
    harness.runFor(10 * SECOND);
    expect(harness.driver.numPages).toBe(2000);
  });

  test('does not inflate while memory is low', () => {
    let isLow = true;
    const harness = boot('windows', { driver: { isLowMemory: () => isLow } });
    harness.device.setTarget(100);
    harness.runFor(SECOND);
    expect(harness.driver.numPages).toBe(0);
    isLow = false;
    harness.device.setTarget(101);
    harness.runFor(SECOND);
    expect(harness.driver.numPages).toBe(101);
  });

  test('does not move its pages', () => {
    const harness = inflated('windows', 10);
    const [pfn] = requests(harness, INFLATEQ)[0]!;
    expect(harness.run(() => harness.generation.isolate(pfn!, 2))).toBe(false);
  });
});

describe('freebsd', () => {
  test('gives back the oldest pages first', () => {
    const harness = inflated('freebsd', 600);
    const first = requests(harness, INFLATEQ)[0]!;
    harness.device.setTarget(500);
    harness.runFor(3 * SECOND);
    expect(requests(harness, DEFLATEQ)).toEqual([first.slice(0, 100)]);
  });

  test('linux gives back the newest', () => {
    const harness = inflated('linux', 600);
    const last = requests(harness, INFLATEQ).at(-1)!;
    harness.device.setTarget(590);
    harness.runFor(3 * SECOND);
    expect(requests(harness, DEFLATEQ)).toEqual([last.slice(-10).reverse()]);
  });

  test('keeps what it got and tries again after a second', () => {
    const harness = boot('freebsd');
    harness.mm.limitPages = harness.mm.allocatedPages + 300;
    harness.device.setTarget(1000);
    harness.runFor(10 * SECOND);
    expect(harness.driver.numPages).toBe(300);
    const { balloon_out_of_puff } = harness.driver.counters;
    expect(balloon_out_of_puff).toBeGreaterThanOrEqual(9);
    expect(balloon_out_of_puff).toBeLessThanOrEqual(10);
    harness.mm.limitPages += 1000;
    harness.runFor(2 * SECOND);
    expect(harness.driver.numPages).toBe(1000);
  });

  // spec: 5.5.6.1-driver-7
  test('tells the host first, and waits for it', () => {
    const harness = inflated('freebsd', 100);
    harness.stalled = true;
    const before = harness.mm.freed.length;
    harness.device.setTarget(0);
    harness.runFor(20 * SECOND);
    expect(harness.mm.freed.length).toBe(before);
    harness.stalled = false;
    harness.runFor(SECOND);
    expect(harness.mm.freed.length).toBe(before + 100);
  });
});
