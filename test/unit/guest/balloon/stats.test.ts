import { describe, expect, test } from 'vitest';
import { DRIVER_BEHAVIOURS } from '../../../../guest/balloon/behaviour.ts';
import type { BalloonDriverOptions } from '../../../../guest/balloon/driver-options.ts';
import { BalloonStat, BalloonStatTag, type Message } from '../../../../protocol/index.ts';
import { DriverHarness } from '../../../support/driver-harness.ts';

const SECOND = 1_000_000_000;
const STATSQ = 2;

function boot(driver: Partial<BalloonDriverOptions> = {}): DriverHarness {
  return new DriverHarness({ device: { statsVq: true }, driver }).boot();
}

/** Every buffer that the driver has made available on the statistics queue. */
function buffers({ trace }: DriverHarness): { tags: number[]; values: number[] }[] {
  return trace
    .filter((m): m is Message<'avail'> => m.name === 'avail' && m.queue === STATSQ)
    .map(({ out }) => {
      const view = new DataView(out.buffer, out.byteOffset, out.byteLength);
      const tags: number[] = [];
      const values: number[] = [];
      expect(out.length % BalloonStat.sizeBytes).toBe(0);
      for (let at = 0; at < out.length; at += BalloonStat.sizeBytes) {
        const { tag, val } = BalloonStat.read(view, at);
        tags.push(tag);
        values.push(Number(val));
      }
      return { tags, values };
    });
}

describe('the first buffer', () => {
  // spec: 5.5.6.3.1-driver-2, 5.5.6.3.1-driver-4, 5.5.6.3.1-driver-5
  test('is queued in the probe, filled, and whole entries long', () => {
    const harness = boot();
    const [first, ...others] = buffers(harness);
    expect(others).toEqual([]);
    expect(first!.tags).toEqual([...DRIVER_BEHAVIOURS.linux.statistics]);
    expect(first!.values).toHaveLength(14);
    expect(harness.device.protocolViolations).toBe(0);
  });

  test.each([true, false])('is announced before DRIVER_OK: %s', (kicksEarly) => {
    const { trace } = boot({ kicksEarly });
    const kick = trace.findIndex((m) => m.name === 'avail' && m.queue === STATSQ);
    const ready = trace.findIndex((m) => m.name === 'setStatus' && (m.status & 4) !== 0);
    expect(kick).toBeGreaterThan(0);
    // What is announced in the same frame follows the registers in the trace.
    if (!kicksEarly) expect(kick).toBeGreaterThan(ready);
  });
});

describe('a request', () => {
  // spec: 5.5.6.3.1-driver-1, 5.5.6.3.1-driver-3, 5.5.6.3.1-driver-8
  test('is answered with fresh figures of the same tags in the one buffer', () => {
    const harness = boot();
    harness.device.stats.setInterval(SECOND);
    harness.runFor(5 * SECOND + SECOND / 2);
    const all = buffers(harness);
    expect(all.length).toBeGreaterThanOrEqual(5);
    for (const { tags } of all) expect(tags).toEqual(all[0]!.tags);
    const free = all.map(({ tags, values }) => values[tags.indexOf(BalloonStatTag.MEMFREE)]!);
    expect([...new Set(free)]).toHaveLength(all.length);
    expect(harness.device.metrics.stats_reports).toBe(all.length);
    expect(harness.driver.counters.balloon_stats_updates).toBe(all.length - 1);
    expect(harness.device.protocolViolations).toBe(0);
  });

  test('that was none is not answered: one buffer is out at any time', () => {
    const harness = boot();
    const before = buffers(harness).length;
    // An interrupt without a used buffer.
    for (let i = 0; i < 3; i++) harness.transport.receive({ name: 'irq', vector: STATSQ });
    harness.runFor(SECOND);
    expect(buffers(harness)).toHaveLength(before);
  });
});

const figures = [
  { name: 'linux', tags: 14, hugetlb: false },
  { name: 'windows', tags: 10, hugetlb: true },
] as const;
// spec: 5.5.6.3.1-driver-6, 5.5.6.3.1-driver-7
test.each(figures)('$name sends $tags figures', ({ name, tags, hugetlb }) => {
  const [first] = buffers(boot({ behaviour: DRIVER_BEHAVIOURS[name] }));
  expect(first!.tags).toHaveLength(tags);
  expect(first!.tags.includes(BalloonStatTag.HTLB_PGALLOC)).toBe(hugetlb);
});

test('without the feature there is no queue and no figure', () => {
  const harness = new DriverHarness().boot();
  expect(buffers(harness)).toEqual([]);
});
