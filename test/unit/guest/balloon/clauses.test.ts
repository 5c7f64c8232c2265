/** Clauses of virtio 1.4 on the driver that its messages decide: from reset to remove. */
import { describe, expect, test } from 'vitest';
import {
  type HintingStrategy,
  HintOutcome,
  type HintRound,
} from '../../../../guest/balloon/hinting.ts';
import { POISON_TAG, ZERO_TAG } from '../../../../guest/machine/ram.ts';
import type { Kthread } from '../../../../guest/sched/kthread.ts';
import { allocateQueue, freeQueue } from '../../../../guest/virtio/queue-memory.ts';
import {
  BalloonConfig,
  bit,
  DeviceStatus,
  Feature,
  featureMask,
  featuresOf,
  featureWords,
  hasFeature,
  type Message,
  splitRingLayout,
  toFloat64,
  toUint32,
} from '../../../../protocol/index.ts';
import { DriverHarness, type HarnessOptions } from '../../../support/driver-harness.ts';

const SECOND = 1_000_000_000;
const FAILED = bit(DeviceStatus.FAILED);
const FEATURES_OK = bit(DeviceStatus.FEATURES_OK);
const DRIVER_OK = bit(DeviceStatus.DRIVER_OK);
const INFLATE = 0;
const DEFLATE = 1;

type Of<N extends Message['name']> = Extract<Message, { name: N }>;
const isNamed =
  <N extends Message['name']>(name: N) =>
  (message: Message): message is Of<N> =>
    message.name === name;

/** The device answers, changed by the test. */
function bend(harness: DriverHarness, change: (reply: Message) => Message): DriverHarness {
  const { handle } = harness.device;
  harness.device.handle = (message) => {
    const reply = handle.call(harness.device, message);
    return reply === null ? null : change(reply);
  };
  return harness;
}

const statusesOf = (trace: readonly Message[]) =>
  trace.filter(isNamed('setStatus')).map(({ status }) => status);
const indexOfStatus = (trace: readonly Message[], status: number) =>
  trace.findIndex((one) => one.name === 'setStatus' && (one.status & status) !== 0);

/** One block after the other until the round ends. */
class EndlessStrategy implements HintingStrategy {
  readonly name = 'alloc';
  readonly heldPages = 0;
  readonly holds = false;
  readonly refills = false;

  *run(round: HintRound): Kthread {
    while ((yield* round.hint(8, 1, round.kernel.now)) !== HintOutcome.ENDED) {
      yield { kind: 'cpu', ns: 50_000 };
    }
  }

  release(): void {}
}

describe('status', () => {
  // spec: 2.1.1-driver-2
  test('bits are only ever added, but for a reset', () => {
    const harness = new DriverHarness().boot();
    expect(harness.run(() => harness.driver.remove())).toBe(null);
    expect(harness.run(() => harness.driver.probe())).toBe(null);
    const statuses = statusesOf(harness.trace);
    expect(statuses.filter((status) => status === 0).length).toBeGreaterThanOrEqual(3);
    for (const [i, status] of statuses.entries()) {
      const before = statuses[i - 1] ?? 0;
      if (status !== 0) expect(status & before).toBe(before);
    }
  });

  // spec: 2.1.1-driver-3, 3.1.1-driver-6
  test('after FAILED the driver leaves the device alone, and begins anew with a reset', () => {
    const harness = new DriverHarness();
    harness.mm.limitPages = 0;
    harness.boot();
    expect(statusesOf(harness.trace).at(-1)! & FAILED).toBe(FAILED);
    const failedAt = harness.trace.length;
    harness.device.setTarget(10);
    harness.runFor(SECOND);
    expect(harness.trace.slice(failedAt)).toEqual([]);
    harness.mm.limitPages = 60_000;
    expect(harness.run(() => harness.driver.probe())).toBe(null);
    expect(statusesOf(harness.trace.slice(failedAt))).toEqual([0, 1, 3, 11, 15]);
  });

  // spec: 3.1.1-driver-3, 3.1.1-driver-4, 3.1.1-driver-7, 5.5.6.6.1-driver-2
  test('features, then configuration, then notifications (Linux kicks its statistics early)', () => {
    const { trace } = new DriverHarness({
      device: { statsVq: true, pagePoison: true, pageReporting: true },
      driver: { kicksEarly: false },
      realAllocator: true,
      mm: { initOnFree: true },
    }).boot();
    const featuresAt = indexOfStatus(trace, FEATURES_OK);
    const readyAt = indexOfStatus(trace, DRIVER_OK);
    const at = (name: Message['name']) => trace.flatMap((one, i) => (one.name === name ? [i] : []));
    expect(at('setDriverFeatures').every((i) => i < featuresAt)).toBe(true);
    expect(at('setConfig').every((i) => i > featuresAt)).toBe(true);
    expect(at('avail').every((i) => i > readyAt)).toBe(true);
    expect(at('avail').length).toBeGreaterThan(0);
    const poison = trace.findIndex(
      (one) => one.name === 'setConfig' && one.offset === BalloonConfig.offsets.poison_val,
    );
    expect([poison > featuresAt, poison < readyAt]).toEqual([true, true]);
  });
});

describe('features', () => {
  // spec: 2.2.1-driver-3, 2.2.1-driver-4, 2.2.1-driver-5, 2.2.1-driver-8, 6.1-driver-1
  test('unknown ones do no harm and are not accepted; VERSION_1 is', () => {
    const strange = featureMask(20, 23, 44, 49, 60);
    const harness = bend(new DriverHarness(), (reply) =>
      reply.name === 'deviceFeatures'
        ? { ...reply, ...featureWords(featuresOf(reply) | strange) }
        : reply,
    ).boot();
    expect(harness.driver.state).toBe('ready');
    expect(harness.driver.features & strange).toBe(0n);
    expect(hasFeature(harness.driver.features, Feature.VERSION_1)).toBe(true);
  });

  // spec: 2.2.1-driver-7, 3.1.1-driver-5
  test('without VERSION_1 the driver sets FAILED and gives up', () => {
    const harness = bend(new DriverHarness(), (reply) =>
      reply.name === 'deviceFeatures' ? { ...reply, high: 0 } : reply,
    ).boot();
    expect(harness.driver.state).toBe('failed');
    expect(statusesOf(harness.trace)).toEqual([0, 1, 3, 3 | FAILED]);
    expect(harness.trace.filter(isNamed('setQueue'))).toEqual([]);
  });
});

describe('configuration space', () => {
  const subsets = [false, true].flatMap((freePageHint) =>
    [false, true].map((pagePoison) => ({ freePageHint, pagePoison })),
  );

  // spec: 2.5.1-driver-1, 2.5.1-driver-3
  test.each(subsets)('one field at a time, and offered ones only (%o)', (device) => {
    const harness = new DriverHarness({
      device,
      realAllocator: true,
      mm: { pagePoison: true },
    }).boot();
    if (device.freePageHint) harness.device.hintStart();
    harness.device.setTarget(300);
    harness.runFor(SECOND);
    const { num_pages, actual, free_page_hint_cmd_id, poison_val } = BalloonConfig.offsets;
    const offered = [num_pages, actual];
    if (device.freePageHint) offered.push(free_page_hint_cmd_id);
    if (device.pagePoison) offered.push(poison_val);
    const read = harness.trace.filter(isNamed('getConfig'));
    const written = harness.trace.filter(isNamed('setConfig'));
    expect(read.every(({ length }) => length === 4)).toBe(true);
    expect(written.every(({ data }) => data.length === 4)).toBe(true);
    const touched = new Set([...read, ...written].map(({ offset }) => offset));
    expect([...touched].sort((a, b) => a - b)).toEqual(offered);
  });

  // spec: 2.5.1-driver-4, 2.5.1-driver-5
  test('may be larger than the driver knows', () => {
    const harness = bend(new DriverHarness(), (reply) =>
      reply.name === 'deviceInfo' ? { ...reply, config_size: 4096 } : reply,
    ).boot();
    expect(harness.driver.state).toBe('ready');
  });

  // spec: 5.5.6.6.1-driver-3
  test('poison_val is written once in a life of the device', () => {
    const harness = new DriverHarness({
      device: { pagePoison: true },
      realAllocator: true,
      mm: { pagePoison: true },
    }).boot();
    harness.device.setTarget(600);
    harness.runFor(SECOND);
    harness.device.setTarget(0);
    harness.device.hintStart();
    harness.runFor(SECOND);
    expect(harness.run(() => harness.driver.freeze())).toBe(null);
    expect(harness.run(() => harness.driver.restore())).toBe(null);
    let ready = false;
    let written = 0;
    for (const message of harness.trace) {
      if (message.name === 'setStatus') ready = (message.status & DRIVER_OK) !== 0;
      if (message.name !== 'setConfig' || message.offset !== BalloonConfig.offsets.poison_val)
        continue;
      expect(ready).toBe(false);
      written++;
    }
    expect(written).toBe(2);
  });
});

describe('rings', () => {
  // spec: 2.7.10.1-driver-1
  test('a queue in memory that was used before begins with flags of 0', () => {
    const { kernel } = new DriverHarness();
    const { usedOffset } = splitRingLayout(16);
    const makeQueue = () => {
      const queue = allocateQueue(kernel, 0, 16)!;
      const bytes = kernel.ram.map(queue.areas.descGpa, 4096)!;
      return { queue, bytes };
    };
    const first = makeQueue();
    first.bytes.fill(0xff);
    freeQueue(kernel, first.queue);
    const second = makeQueue();
    expect(second.queue.areas).toEqual(first.queue.areas);
    expect([...second.bytes.subarray(usedOffset, usedOffset + 4)]).toEqual([0, 0, 0, 0]);
  });

  // spec: 2.7.8.3-driver-1, 2.7.8.3-driver-2
  test.each([1, 0xffff_ffff])('a used length of %s changes nothing', (length) => {
    const run = (writtenBytes: number | null) => {
      const harness = new DriverHarness({ strategy: new EndlessStrategy() });
      if (writtenBytes !== null) {
        harness.tamper = (message) =>
          message.name === 'used'
            ? {
                ...message,
                written_bytes: new Uint8Array(
                  new Uint32Array(message.heads.length / 2).fill(writtenBytes).buffer,
                ),
              }
            : message;
      }
      harness.boot();
      harness.device.hintStart();
      harness.device.setTarget(700);
      harness.runFor(SECOND);
      harness.device.hintDone();
      harness.device.setTarget(100);
      harness.runFor(SECOND);
      const { numPages, counters } = harness.driver;
      return { numPages, counters, hints: harness.hints, metrics: harness.device.metrics };
    };
    expect(run(length)).toEqual(run(null));
  });

  // spec: 2.6.1.1.2-driver-1, 2.6.1.1.2-driver-2, 2.6.1.2.2-driver-1
  test('a queue that is reset is asked whether it is, and set up again like the first time', () => {
    const harness = new DriverHarness({ device: { ringReset: true } }).boot();
    const { kernel, transport } = harness;
    harness.run(function* () {
      yield* transport.resetQueue(DEFLATE);
      yield* transport.setQueue(allocateQueue(kernel, DEFLATE, 64)!, () => {});
    });
    const after = harness.trace.slice(harness.trace.findIndex(isNamed('resetQueue')));
    expect(after.map(({ name }) => name)).toEqual(['resetQueue', 'getQueue', 'setQueue']);
    expect(harness.device.virtio.queue(DEFLATE)!.size).toBe(64);
    expect(harness.device.protocolViolations).toBe(0);
  });

  // spec: 3.3.1-driver-2
  test('the memory of a queue is free only after the reset that ended it', () => {
    const harness = new DriverHarness().boot();
    const { mm, trace } = harness;
    const rings = trace.filter(isNamed('setQueue')).map(({ desc_gpa }) => desc_gpa / 4096);
    const freedAt = new Map<number, number>();
    const free = mm.free.bind(mm);
    mm.free = (pfn, order) => {
      freedAt.set(pfn, trace.length);
      free(pfn, order);
    };
    harness.run(() => harness.driver.remove());
    const resetAt = trace.findLastIndex((one) => one.name === 'setStatus' && one.status === 0);
    expect(rings.length).toBeGreaterThanOrEqual(2);
    for (const pfn of rings) expect(freedAt.get(pfn)).toBeGreaterThan(resetAt);
  });
});

describe('pages', () => {
  const pfnsOf = (message: Message<'avail'>): number[] => [...toUint32(message.out)!];

  // spec: 5.5.6.1-driver-9, 5.5.6.1-driver-10
  test('are nobody’s until their inflation is acknowledged, and only then deflated', () => {
    const harness = new DriverHarness().boot();
    harness.stalled = true;
    harness.device.setTarget(100);
    harness.runFor(SECOND);
    harness.device.setTarget(0);
    harness.runFor(SECOND);
    expect(harness.mm.freed).toEqual([]);
    harness.stalled = false;
    harness.runFor(SECOND);
    const acknowledged = new Set<number>();
    let waiting: number[] = [];
    let deflated = 0;
    for (const message of harness.trace) {
      if (message.name === 'used' && message.queue === INFLATE) {
        for (const pfn of waiting) acknowledged.add(pfn);
      }
      if (message.name !== 'avail') continue;
      if (message.queue === INFLATE) waiting = pfnsOf(message);
      if (message.queue !== DEFLATE) continue;
      for (const pfn of pfnsOf(message)) expect(acknowledged.has(pfn)).toBe(true);
      deflated += pfnsOf(message).length;
    }
    expect([deflated, harness.mm.freed.length]).toEqual([100, 100]);
  });

  // spec: 6.1-driver-3
  test('are named by the frames that they are', () => {
    const harness = new DriverHarness().boot();
    const allocated: number[] = [];
    const alloc = harness.mm.alloc.bind(harness.mm);
    harness.mm.alloc = (order, gfp) => {
      allocated.push(alloc(order, gfp));
      return allocated.at(-1)!;
    };
    harness.device.setTarget(50);
    harness.runFor(SECOND);
    const named = harness.trace.filter(isNamed('avail')).flatMap(pfnsOf);
    expect(named.toSorted()).toEqual(allocated.toSorted());
    expect(named).toHaveLength(50);
  });

  const fills: { mm: NonNullable<HarnessOptions['mm']>; tag: number }[] = [
    { mm: { initOnFree: true }, tag: ZERO_TAG },
    { mm: { pagePoison: true }, tag: POISON_TAG },
  ];

  // spec: 5.5.6.7.1-driver-2
  test.each(fills)('are filled before they are reported ($mm)', ({ mm, tag }) => {
    const harness = new DriverHarness({
      device: { pagePoison: true, pageReporting: true },
      realAllocator: true,
      mm,
    }).boot();
    const { pageAllocator, ram } = harness;
    const blocks = Array.from({ length: 8 }, () => pageAllocator!.alloc(9, 0));
    for (const first of blocks) for (let i = 0; i < 512; i++) ram.write(first + i);
    for (const first of blocks) pageAllocator!.free(first, 9);
    let reported = 0;
    const { handleAvail } = harness.device;
    harness.device.handleAvail = (message) => {
      const starts = toFloat64(message.in_gpa)!;
      for (const [i, bytes] of toUint32(message.in_bytes)!.entries()) {
        const first = starts[i]! / 4096;
        for (let pfn = first; pfn < first + bytes / 4096; pfn++) {
          if (!blocks.some((block) => pfn >= block && pfn < block + 512)) continue;
          expect(ram.tags[pfn]).toBe(tag);
          reported++;
        }
      }
      return handleAvail.call(harness.device, message);
    };
    harness.runFor(20 * SECOND);
    expect(reported).toBe(8 * 512);
  });

  // spec: 5.5.6.6.1-driver-1
  test.each(fills)('are filled when they have been deflated ($mm)', ({ mm, tag }) => {
    const harness = new DriverHarness({ device: { pagePoison: true }, realAllocator: true, mm });
    harness.boot();
    harness.device.setTarget(300);
    harness.runFor(SECOND);
    const pfns = harness.trace.filter(isNamed('avail')).flatMap(pfnsOf);
    for (const pfn of pfns) harness.ram.discard(pfn, 1);
    harness.device.setTarget(0);
    harness.runFor(SECOND);
    expect(harness.driver.numPages).toBe(0);
    expect(new Set(pfns.map((pfn) => harness.ram.tags[pfn]))).toEqual(new Set([tag]));
  });
});
