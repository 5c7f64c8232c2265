import { describe, expect, test } from 'vitest';
import type { DeviceConfig } from '../../../../protocol/index.ts';
import { ADF, DeviceBench, READY, ranges, words } from '../../../support/device-bench.ts';

const POISON_OFFSET = 12;

function make(config: DeviceConfig = {}) {
  return new DeviceBench({ pageReporting: true, ...config }).boot();
}

test('ranges are discarded together, before the buffer is used with length 0', () => {
  const bench = make();
  const used = bench.used('reporting_vq', ranges([512, 256], [768, 16], [8, 1]), {
    head: 1,
    ...ranges([9, 3]),
  });
  expect(used).toEqual([
    [0, 0],
    [1, 0],
  ]);
  expect(bench.posted.map(({ name }) => name)).toEqual(['discard']);
  expect(bench.discarded).toEqual([512, 272, 8, 4]);
  expect(bench.device.metrics).toMatchObject({
    reports: 4,
    report_pages: 276,
    discarded_pages: 276,
    protocol_violations: 0,
  });
});

test('a page that is named twice is discarded once', () => {
  const bench = make();
  const all = [0, 1024] as const;
  bench.send('reporting_vq', ranges([8, 8], [4, 16], [6, 2]));
  expect(bench.discarded).toEqual([4, 16]);
  bench.posted.length = 0;
  bench.send('reporting_vq', ranges(all, all, [1000, 8], all));
  expect(bench.discarded).toEqual([0, 1024]);
});

const PAGE = 4096;
test.each([
  { id: 'starts within a page', range: [512, PAGE] },
  { id: 'is shorter than a page', range: [PAGE, 512] },
  { id: 'ends within a page', range: [PAGE, PAGE + 1] },
  { id: 'lies outside guest memory', range: [1024 * PAGE, PAGE] },
  { id: 'crosses the end of guest memory', range: [1023 * PAGE, 2 * PAGE] },
  { id: 'lies at the end of addresses', range: [2 ** 52, PAGE] },
] as const)(
  'a range that $id is counted and left alone; others of its buffer are not',
  ({ range }) => {
    const bench = make();
    expect(bench.send('reporting_vq', { in: [range, [7 * PAGE, PAGE]] })).toEqual([0]);
    expect(bench.discarded).toEqual([7, 1]);
    expect(bench.device.metrics).toMatchObject({ bad_reports: 1, reports: 1 });
    expect(bench.device.virtio.isLive).toBe(true);
  },
);

test('a readable buffer is counted and acknowledged', () => {
  const bench = make();
  expect(bench.send('reporting_vq', { out: words(1) })).toEqual([0]);
  expect(bench.device.metrics.bad_directions).toBe(1);
});

test('nothing is discarded while that is inhibited', () => {
  const bench = make();
  bench.inhibited = true;
  expect(bench.send('reporting_vq', ranges([1, 4]))).toEqual([0]);
  expect(bench.discarded).toEqual([]);
  expect(bench.device.metrics).toMatchObject({ inhibited_discards: 4, discarded_pages: 0 });
});

test('one message names no page more often than once', () => {
  const bench = make();
  const all = ranges([0, 1024]);
  bench.send('reporting_vq', all, { head: 1, ...all }, { head: 2, ...all });
  expect(bench.discarded).toEqual([0, 1024]);
});

describe('PAGE_POISON', () => {
  const poisoned = (value: number, config: DeviceConfig = {}) => {
    const bench = new DeviceBench({ pageReporting: true, pagePoison: true, ...config });
    bench.negotiate();
    bench.write(POISON_OFFSET, value);
    for (let index = 0; index < 4; index++) bench.setQueue(index);
    bench.status = READY;
    return bench;
  };

  // spec: 5.5.6.7.2-device-2
  test.each([
    { value: 0xaaaa_aaaa, discarded: [], poisoned: 1 },
    { value: 0, discarded: [3, 4], poisoned: 0 },
  ])('pages that hold $value are reported', ({ value, ...expected }) => {
    const bench = poisoned(value);
    expect(bench.send('reporting_vq', ranges([3, 4]))).toEqual([0]);
    expect(bench.discarded).toEqual(expected.discarded);
    expect(bench.device.metrics).toMatchObject({ reports: 1, reports_poisoned: expected.poisoned });
    expect(bench.send('inflateq', { out: words(9) })).toEqual([0]);
    expect(bench.discarded).toEqual([...expected.discarded, 9, 1]);
  });

  test('poison_val is constant once the driver is ready, and 0 after a reset', () => {
    const bench = poisoned(5);
    bench.write(POISON_OFFSET, 6);
    expect(bench.read(POISON_OFFSET)).toBe(5);
    expect(bench.device.protocolViolations).toBe(1);
    bench.reset();
    expect(bench.read(POISON_OFFSET)).toBe(0);
    bench.boot();
    bench.write(4, 1);
    expect(bench.read(POISON_OFFSET)).toBe(0);
  });

  test('poison_val is not written by a driver that has declined the feature', () => {
    const bench = new DeviceBench({ pagePoison: true });
    bench.negotiate(1n << 32n);
    expect(bench.status).toBe(ADF);
    bench.write(POISON_OFFSET, 6);
    expect(bench.read(POISON_OFFSET)).toBe(0);
    expect(bench.device.protocolViolations).toBe(1);
  });
});
