import { describe, expect, test } from 'vitest';
import { DRIVER_BEHAVIOURS } from '../../../../guest/balloon/behaviour.ts';
import { AllocStrategy } from '../../../../guest/hinting/alloc.ts';
import { POISON_TAG, ZERO_TAG } from '../../../../guest/machine/ram.ts';
import type { Kthread } from '../../../../guest/sched/kthread.ts';
import { BalloonConfig, type Message } from '../../../../protocol/index.ts';
import { type Bitmap, Errno } from '../../../../shared/index.ts';
import {
  DriverHarness,
  type HarnessOptions,
  IDLE_STRATEGY,
} from '../../../support/driver-harness.ts';

const SECOND = 1_000_000_000;
const EVERYTHING = {
  mustTellHost: true,
  statsVq: true,
  deflateOnOom: true,
  freePageHint: true,
  pagePoison: true,
  pageReporting: true,
} as const;

function boot(options: HarnessOptions = {}): DriverHarness {
  return new DriverHarness({
    device: EVERYTHING,
    realAllocator: true,
    ramPages: 65_536,
    ...options,
  }).boot();
}

/** Values that the driver has written to a field of the configuration, oldest first. */
function written({ trace }: DriverHarness, field: keyof BalloonConfig): number[] {
  return trace
    .filter((m): m is Message<'setConfig'> => m.name === 'setConfig')
    .filter(({ offset }) => offset === BalloonConfig.offsets[field])
    .map(({ data }) => new DataView(data.buffer, data.byteOffset).getUint32(0, true));
}

function setBits(bits: Bitmap): number[] {
  const found: number[] = [];
  for (let at = bits.nextSet(0); at >= 0; at = bits.nextSet(at + 1)) found.push(at);
  return found;
}

function audits(harness: DriverHarness): string[] {
  return [
    ...harness.driver.audit(),
    ...harness.reporting.audit(),
    ...(harness.pageAllocator?.audit() ?? []),
  ];
}

describe('poison_val', () => {
  const kernels = [
    { mm: { initOnFree: true }, written: [0], tag: ZERO_TAG },
    { mm: { pagePoison: true }, written: [0xaaaa_aaaa], tag: POISON_TAG },
    { mm: {}, written: [], tag: null },
  ];

  // spec: 5.5.6.6.1-driver-2, 5.5.6.6.1-driver-3
  test.each(kernels)('is $written with $mm, before DRIVER_OK and never after', (kernel) => {
    const harness = boot({ mm: kernel.mm });
    expect(written(harness, 'poison_val')).toEqual(kernel.written);
    const at = harness.trace.findIndex(
      (m) => m.name === 'setConfig' && m.offset === BalloonConfig.offsets.poison_val,
    );
    const ready = harness.trace.findIndex((m) => m.name === 'setStatus' && (m.status & 4) !== 0);
    expect(at).toBeLessThan(ready);
    harness.device.setTarget(500);
    harness.runFor(10 * SECOND);
    expect(written(harness, 'poison_val')).toEqual(kernel.written);
  });

  // spec: 5.5.6.6.1-driver-1
  test.each(kernels.slice(0, 2))('is what deflated pages hold again ($mm)', ({ mm, tag }) => {
    const harness = boot({ mm });
    harness.device.setTarget(200);
    harness.runFor(SECOND);
    const inflated = setBits(harness.device.inflatedPages);
    expect(inflated).toHaveLength(200);
    harness.device.setTarget(0);
    harness.runFor(SECOND);
    expect(new Set(inflated.map((pfn) => harness.ram.tags[pfn]))).toEqual(new Set([tag]));
  });

  // spec: 5.5.6.7.1-driver-2
  test('is what reported pages held before they were reported', () => {
    const harness = boot({ mm: { pagePoison: true } });
    const mm = harness.pageAllocator!;
    const blocks = Array.from({ length: 8 }, () => mm.alloc(10, 0xcc0) as number);
    harness.runFor(30 * SECOND);
    for (const pfn of blocks) {
      harness.ram.write(pfn + 7);
      mm.free(pfn, 10);
    }
    const before = harness.trace.length;
    harness.runFor(30 * SECOND);
    const reports = harness.trace.slice(before).filter((m) => m.name === 'avail' && m.queue === 4);
    expect(reports.length).toBeGreaterThan(0);
    for (const pfn of blocks) expect(harness.ram.tags[pfn + 7]).toBe(POISON_TAG);
    // The host knows that it cannot drop them.
    expect(harness.discarded).toEqual([]);
  });
});

describe('reporting', () => {
  // spec: 5.5.6.7.1-driver-1
  test('gives the host what is free; whoever allocates it then finds it cleared', () => {
    const harness = boot();
    harness.runFor(60 * SECOND);
    const pages = harness.discarded.reduce((sum, [, count]) => sum + count, 0);
    expect(pages).toBeGreaterThan(40_000);
    expect(harness.reporting.counters.reported_pages).toBe(pages);
    expect(audits(harness)).toEqual([]);
    expect(harness.device.protocolViolations).toBe(0);
    const [pfn] = harness.discarded[0]!;
    harness.ram.tags[pfn] = 77;
    expect(harness.pageAllocator!.allocExact(pfn, 0, 0xcc0)).toBe(true);
    expect(harness.ram.tags[pfn]).toBe(ZERO_TAG);
  });

  test('a ring that is too small for a report fails the probe', () => {
    const queueSizes = {
      inflateq: 128,
      deflateq: 128,
      statsq: 128,
      free_page_vq: 1024,
      reporting_vq: 16,
    };
    const harness = boot({ device: { pageReporting: true, queueSizes } });
    expect(harness.driver.state).toBe('failed');
    expect(harness.driver.failure).toBe('the reporting_vq has less than 32 entries');
    expect(harness.device.virtio.status & 0x80).toBe(0x80);
    expect(harness.pageAllocator!.freePages()).toBe(65_536 - 1024);
  });
});

describe('remove', () => {
  test('gives back everything, tells the host of it, and leaves a reset device', () => {
    const harness = boot();
    const free = harness.pageAllocator!.freePages();
    harness.device.setTarget(3000);
    harness.runFor(3 * SECOND);
    const reset = harness.trace.length;
    expect(harness.run(() => harness.driver.remove())).toBe(null);
    expect(harness.driver.state).toBe('removed');
    expect(harness.driver.numPages).toBe(0);
    expect(harness.device.inflatedPages.count()).toBe(0);
    expect(written(harness, 'actual').at(-1)).toBe(0);
    expect(harness.device.virtio.status).toBe(0);
    // Rings and buffers, too.
    expect(harness.pageAllocator!.freePages()).toBeGreaterThan(free);
    expect(harness.pageAllocator!.freePages()).toBe(65_536 - 1024);
    const after = harness.trace.slice(reset);
    const last = after.findIndex((m) => m.name === 'setStatus' && m.status === 0);
    expect(after.slice(last).some((m) => m.name === 'avail')).toBe(false);
    // Another device may have the free pages now.
    const other = {
      *report(): Kthread<Errno> {
        yield { kind: 'sleep', ns: 0 };
        return Errno.OK;
      },
    };
    expect(harness.reporting.register(other)).toBe(Errno.OK);
    expect(audits(harness)).toEqual([]);
    expect(harness.device.protocolViolations).toBe(0);
  });

  test('nothing happens in a driver that has no device', () => {
    const harness = boot();
    harness.run(() => harness.driver.remove());
    harness.device.setTarget(100);
    harness.device.stats.setInterval(SECOND);
    harness.runFor(10 * SECOND);
    expect(harness.driver.numPages).toBe(0);
    expect(harness.run(() => harness.driver.remove())).toBe(
      'cannot remove a driver that is removed',
    );
    expect(harness.run(() => harness.driver.freeze())).toBe(
      'cannot freeze a driver that is removed',
    );
    expect(harness.run(() => harness.driver.restore())).toMatch(/^cannot restore/);
  });

  test('a driver that is probed again works as before', () => {
    const harness = boot({ mm: { initOnFree: true } });
    for (let round = 1; round <= 3; round++) {
      harness.device.setTarget(400 * round);
      harness.runFor(3 * SECOND);
      expect(harness.driver.numPages).toBe(400 * round);
      expect(harness.run(() => harness.driver.remove())).toBe(null);
      expect(harness.run(() => harness.driver.probe())).toBe(null);
      // The target still stands.
      expect(harness.driver.numPages).toBe(400 * round);
      expect(audits(harness)).toEqual([]);
    }
    expect(written(harness, 'poison_val')).toHaveLength(4);
    expect(harness.device.protocolViolations).toBe(0);
    expect(harness.transport.counters.protocol_violations).toBe(0);
  });

  test('waits for the acknowledgement of an inflate that is under way', () => {
    const harness = boot();
    harness.stalled = true;
    harness.device.setTarget(256);
    harness.runFor(SECOND);
    expect(harness.run(() => harness.driver.remove())).toBe('running');
    expect(harness.device.virtio.status & 4).toBe(4);
    harness.stalled = false;
    harness.runFor(SECOND);
    expect(harness.device.virtio.status).toBe(0);
    expect(harness.pageAllocator!.freePages()).toBe(65_536 - 1024);
  });

  test('returns the blocks that were hinted', () => {
    const harness = boot({ createStrategy: (kernel) => new AllocStrategy(kernel, 'alloc') });
    const { driver } = harness;
    const free = harness.pageAllocator!.freePages();
    expect(harness.device.hintStart()).toBe(true);
    harness.runFor(SECOND);
    expect(harness.pageAllocator!.freePages()).toBeLessThan(free);
    expect(harness.run(() => driver.remove())).toBe(null);
    expect(harness.pageAllocator!.freePages()).toBe(65_536 - 1024);
    expect(audits(harness)).toEqual([]);
  });
});

describe('suspend', () => {
  test('linux deflates, lets go of the device, and inflates again', () => {
    const harness = boot();
    harness.device.setTarget(1500);
    harness.runFor(3 * SECOND);
    expect(harness.run(() => harness.driver.freeze())).toBe(null);
    expect([harness.driver.state, harness.driver.numPages]).toEqual(['frozen', 0]);
    expect(written(harness, 'actual').at(-1)).toBe(0);
    expect(harness.device.virtio.status).toBe(0);
    // Free pages are not reported to a device that has been reset.
    const mm = harness.pageAllocator!;
    mm.free(mm.alloc(10, 0xcc0) as number, 10);
    harness.runFor(30 * SECOND);
    expect(harness.device.virtio.status).toBe(0);
    expect(audits(harness)).toEqual([]);
    expect(harness.run(() => harness.driver.restore())).toBe(null);
    expect([harness.driver.state, harness.driver.numPages]).toEqual(['ready', 1500]);
    expect(harness.device.actualPages).toBe(1500);
    expect(harness.device.protocolViolations).toBe(0);
    expect(harness.transport.counters.protocol_violations).toBe(0);
  });

  // spec: 3.4.1-driver-1, 3.4.1-driver-2, 3.4.1-driver-3, 3.4.1-driver-4, 3.4.1-driver-5, 3.4.1-driver-6
  test('of the device itself keeps the balloon, and says nothing meanwhile', () => {
    const harness = boot({
      device: { ...EVERYTHING, suspend: true },
      driver: { suspendsDevice: true },
    });
    harness.device.setTarget(1500);
    harness.runFor(3 * SECOND);
    const before = harness.trace.length;
    expect(harness.run(() => harness.driver.freeze())).toBe(null);
    expect([harness.driver.state, harness.driver.numPages]).toEqual(['frozen', 1500]);
    const frozen = harness.trace.slice(before).map(({ name }) => name);
    expect(frozen).toEqual(['setStatus', 'getStatus']);
    expect(harness.device.virtio.isSuspended).toBe(true);

    // A target, free memory to report, and a page of the balloon that would move: all of it waits.
    const asleep = harness.trace.length;
    harness.device.setTarget(1000);
    const mm = harness.pageAllocator!;
    mm.free(mm.alloc(10, 0xcc0) as number, 10);
    harness.runFor(30 * SECOND);
    expect(harness.trace.slice(asleep)).toEqual([]);
    expect([harness.driver.numPages, harness.device.inflatedPages.count()]).toEqual([1500, 1500]);

    expect(harness.run(() => harness.driver.restore())).toBe(null);
    const woken = harness.trace.slice(asleep).map(({ name }) => name);
    // The device announces the target at once; the driver first looks whether it has resumed.
    const said = woken.filter((name) => name !== 'configChanged');
    expect(said.slice(0, 2)).toEqual(['setStatus', 'getStatus']);
    harness.runFor(3 * SECOND);
    expect([harness.driver.state, harness.driver.numPages]).toEqual(['ready', 1000]);
    expect([harness.device.actualPages, harness.device.inflatedPages.count()]).toEqual([
      1000, 1000,
    ]);
    expect(harness.device.protocolViolations).toBe(0);
    expect(audits(harness)).toEqual([]);
  });

  test('resets a device that does not offer to be suspended', () => {
    const harness = boot({ driver: { suspendsDevice: true } });
    harness.device.setTarget(500);
    harness.runFor(3 * SECOND);
    expect(harness.run(() => harness.driver.freeze())).toBe(null);
    expect([harness.driver.numPages, harness.device.virtio.status]).toEqual([0, 0]);
  });

  test('windows keeps the balloon', () => {
    const harness = boot({ driver: { behaviour: DRIVER_BEHAVIOURS.windows } });
    harness.device.setTarget(1024);
    harness.runFor(3 * SECOND);
    expect(harness.run(() => harness.driver.freeze())).toBe(null);
    expect(harness.driver.numPages).toBe(1024);
    expect(harness.run(() => harness.driver.restore())).toBe(null);
    expect(harness.driver.numPages).toBe(1024);
    expect(audits(harness)).toEqual([]);
  });

  test('freebsd has none', () => {
    const harness = boot({ driver: { behaviour: DRIVER_BEHAVIOURS.freebsd } });
    expect(harness.run(() => harness.driver.freeze())).toBe('the driver of freebsd has no suspend');
    expect(harness.driver.state).toBe('ready');
  });
});

describe('DEVICE_NEEDS_RESET', () => {
  function broken(onNeedsReset: 'ignore' | 'reset'): DriverHarness {
    const harness = boot({ driver: { onNeedsReset } });
    harness.device.setTarget(700);
    harness.runFor(3 * SECOND);
    harness.stalled = true;
    harness.device.setTarget(1400);
    harness.runFor(SECOND);
    harness.stalled = false;
    harness.device.virtio.setNeedsReset();
    harness.runFor(10 * SECOND);
    return harness;
  }

  test('is ignored by Linux: whoever waits for the device waits for ever', () => {
    const harness = broken('ignore');
    expect(harness.device.virtio.needsReset).toBe(true);
    expect(harness.device.actualPages).toBe(700);
    expect(harness.driver.counters.balloon_device_resets).toBe(0);
  });

  // spec: 2.1.1-driver-4
  test('or leads to a reset, an empty balloon, and a driver that starts afresh', () => {
    const harness = broken('reset');
    expect(harness.device.virtio.needsReset).toBe(false);
    expect(harness.driver.counters.balloon_device_resets).toBe(1);
    expect(harness.driver.state).toBe('ready');
    expect(harness.driver.numPages).toBe(1400);
    expect(harness.device.actualPages).toBe(1400);
    expect(harness.device.inflatedPages.count()).toBe(1400);
    expect(audits(harness)).toEqual([]);
  });

  test('leaves nobody waiting: neither a round of hints nor a report', () => {
    const harness = boot({
      driver: { onNeedsReset: 'reset' },
      createStrategy: () => ({
        ...IDLE_STRATEGY,
        *run(round) {
          yield* round.hint(2048, 1024, 0);
          yield* round.used();
        },
      }),
    });
    harness.device.setTarget(300);
    harness.runFor(SECOND);
    harness.stalled = true;
    harness.device.setTarget(0);
    expect(harness.device.hintStart()).toBe(true);
    harness.runFor(3 * SECOND);
    expect(harness.reporting.isolatedPages).toBeGreaterThan(0);
    harness.stalled = false;
    harness.device.virtio.setNeedsReset();
    harness.runFor(SECOND / 100);
    expect(harness.driver.state).toBe('ready');
    expect([harness.driver.numPages, harness.device.actualPages]).toEqual([0, 0]);
    expect(harness.reporting.counters.unreported_blocks).toBeGreaterThan(0);
    expect(harness.device.hintStart()).toBe(true);
    harness.runFor(SECOND);
    expect(harness.driver.hinting!.counters).toMatchObject({ hint_rounds: 2, hint_blocks: 2 });
    expect(audits(harness)).toEqual([]);
  });
});

describe('a probe that fails', () => {
  const failures = [
    { what: 'no memory for the second ring', pages: 1 },
    { what: 'no memory for the buffers', pages: 2 },
    { what: 'no memory for the statistics queue', pages: 3 },
  ];
  // spec: 2.1.1-driver-3
  test.each(failures)('leaves nothing behind: $what', ({ pages }) => {
    const harness = new DriverHarness({ device: EVERYTHING });
    const before = harness.mm.allocatedPages;
    const { limitPages } = harness.mm;
    harness.mm.limitPages = before + pages;
    harness.boot();
    expect(harness.driver.state).toBe('failed');
    expect(harness.mm.allocatedPages).toBe(before);
    expect(harness.device.virtio.status & 0x80).toBe(0x80);
    // A device that was given up is reset before anything else.
    harness.mm.limitPages = limitPages;
    const retry = harness.trace.length;
    expect(harness.run(() => harness.driver.probe())).toBe(null);
    const [first] = harness.trace.slice(retry).filter((m) => m.name === 'setStatus');
    expect(first).toMatchObject({ status: 0 });
    harness.device.setTarget(10);
    harness.runFor(SECOND);
    expect(harness.driver.numPages).toBe(10);
  });
});
