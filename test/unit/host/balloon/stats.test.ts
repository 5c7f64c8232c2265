import { describe, expect, test } from 'vitest';
import { BalloonMonitor } from '../../../../host/balloon/monitor.ts';
import { BalloonStatTag, GUEST_STATS } from '../../../../protocol/index.ts';
import { NS_PER_S } from '../../../../shared/index.ts';
import { DeviceBench, READY, statistics, words } from '../../../support/device-bench.ts';

const { SWAP_IN, MEMFREE, DIRECT_RECLAIM } = BalloonStatTag;
const S = NS_PER_S;

function make(config = {}) {
  const bench = new DeviceBench({ statsVq: true, ...config }).boot();
  const monitor = new BalloonMonitor(bench.device);
  const answer = (head: number, ...entries: [number, bigint][]) =>
    bench.send('statsq', { head, out: statistics(entries) });
  return { bench, monitor, answer, metrics: bench.device.metrics };
}

test('each of the 16 tags has its name', () => {
  const { monitor, answer } = make();
  const tags = Object.values(BalloonStatTag);
  expect(tags).toHaveLength(16);
  expect(new Set(GUEST_STATS.values()).size).toBe(16);
  answer(0, ...tags.map((tag): [number, bigint] => [tag, BigInt(tag) * 1000n]));
  const { stats } = monitor.guestStats();
  for (const tag of tags) expect(stats[GUEST_STATS.get(tag) ?? '']).toBe(tag * 1000);
});

// spec: 5.5.6.3.2-device-1, 5.5.6.3.2-device-2
test('entries come in any order, and unknown tags are passed over and counted', () => {
  const { monitor, answer, metrics } = make();
  answer(3, [DIRECT_RECLAIM, 5n], [16, 1n], [MEMFREE, 2n ** 40n], [65535, 1n], [SWAP_IN, 0n]);
  const { stats } = monitor.guestStats();
  expect(stats).toMatchObject({
    'stat-direct-reclaims': 5,
    'stat-free-memory': 2 ** 40,
    'stat-swap-in': 0,
    'stat-total-memory': null,
  });
  expect(Object.keys(stats)).toHaveLength(16);
  expect(metrics).toMatchObject({ stats_unknown_tags: 2, protocol_violations: 0 });
});

test('what a report leaves out, or gives as 2^64−1, is unknown', () => {
  const { monitor, answer } = make();
  answer(0, [SWAP_IN, 1n], [MEMFREE, 2n]);
  answer(1, [SWAP_IN, 2n ** 64n - 1n]);
  expect(monitor.guestStats().stats).toMatchObject({
    'stat-swap-in': null,
    'stat-free-memory': null,
  });
});

test.each([
  { id: 'stray bytes', out: new Uint8Array([...statistics([[MEMFREE, 9n]]), 1, 2, 3]), free: 9 },
  { id: 'fewer bytes than an entry', out: new Uint8Array(9), free: null },
  { id: 'no bytes', out: new Uint8Array(0), free: null },
])('$id are counted, and the buffer is kept', ({ out, free }) => {
  const { bench, monitor, metrics } = make();
  expect(bench.send('statsq', { head: 4, out })).toEqual([]);
  expect(monitor.guestStats().stats['stat-free-memory']).toBe(free);
  expect(metrics).toMatchObject({ bad_lengths: 1, stats_reports: 1 });
});

test('the device keeps one buffer: a second one sends the first back', () => {
  const { answer, metrics } = make();
  expect(answer(5, [SWAP_IN, 1n])).toEqual([]);
  expect(answer(6, [SWAP_IN, 2n])).toEqual([5]);
  expect(metrics).toMatchObject({ second_stats_buffers: 1, protocol_violations: 1 });
});

describe('polling', () => {
  test('asks at once, and then one interval after each answer', () => {
    const { bench, monitor, answer } = make();
    answer(7, [SWAP_IN, 1n]);
    monitor.setStatsPollingInterval(2);
    bench.runFor(0);
    expect(bench.postedHeads).toEqual([7]);
    expect(bench.posted.at(-1)).toEqual({ name: 'irq', vector: bench.index('statsq') });
    bench.runFor(0.5 * S);
    answer(8, [SWAP_IN, 2n]);
    bench.runFor(2 * S - 1);
    expect(bench.postedHeads).toEqual([7]);
    bench.runFor(1);
    expect(bench.postedHeads).toEqual([7, 8]);
    expect(monitor.guestStats().last_update_ns).toBe(0.5 * S);
  });

  test('has one timer, however often the driver answers unasked', () => {
    const { bench, monitor, answer } = make();
    monitor.setStatsPollingInterval(1);
    bench.runFor(0.5 * S);
    const before = bench.timerCount;
    for (let i = 0; i < 100; i++) answer(i);
    expect(bench.timerCount - before).toBeLessThanOrEqual(1);
    bench.runFor(S - 1);
    expect(bench.device.metrics.stats_requests).toBe(0);
    bench.runFor(1);
    expect(bench.device.metrics.stats_requests).toBe(1);
  });

  test('waits for the first buffer', () => {
    const { bench, monitor, answer } = make();
    monitor.setStatsPollingInterval(1);
    bench.runFor(5 * S);
    expect(bench.postedHeads).toEqual([]);
    answer(0, [SWAP_IN, 1n]);
    bench.runFor(S);
    expect(bench.postedHeads).toEqual([0]);
  });

  test('ends with interval 0, and a new interval counts from now', () => {
    const { bench, monitor, answer } = make();
    answer(0, [SWAP_IN, 1n]);
    monitor.setStatsPollingInterval(10);
    bench.runFor(0);
    answer(1, [SWAP_IN, 1n]);
    monitor.setStatsPollingInterval(3);
    bench.runFor(3 * S);
    expect(bench.postedHeads).toEqual([0, 1]);
    answer(2, [SWAP_IN, 1n]);
    monitor.setStatsPollingInterval(0);
    bench.runFor(100 * S);
    expect(bench.postedHeads).toEqual([0, 1]);
  });

  test.each([-1, 2 ** 32, Number.NaN])('takes no interval of %s', (seconds) => {
    const { monitor } = make();
    expect(() => monitor.setStatsPollingInterval(seconds)).toThrow('polling interval: expected 0');
  });

  test('is refused by a device without statistics', () => {
    const monitor = new BalloonMonitor(new DeviceBench().boot().device);
    expect(() => monitor.setStatsPollingInterval(1)).toThrow('does not offer STATS_VQ');
    expect(() => monitor.guestStats()).toThrow('does not offer STATS_VQ');
  });
});

describe('liveness', () => {
  test('a guest that never answered is stale', () => {
    const { monitor } = make();
    expect(monitor.guestStats()).toMatchObject({ last_update_ns: null, stale: true });
  });

  test('a guest that stops answering is stale after one interval, until it answers', () => {
    const { bench, monitor, answer } = make();
    answer(0, [MEMFREE, 1n]);
    monitor.setStatsPollingInterval(2);
    bench.runFor(2 * S);
    expect(monitor.guestStats().stale).toBe(false);
    bench.runFor(1);
    const report = monitor.guestStats();
    expect(report).toMatchObject({ stale: true, last_update_ns: 0 });
    expect(report.stats['stat-free-memory']).toBe(1);
    answer(1, [MEMFREE, 2n]);
    expect(monitor.guestStats().stale).toBe(false);
  });

  test('after a reset the figures stay, and are stale until the next driver answers', () => {
    const { bench, monitor, answer } = make();
    answer(0, [MEMFREE, 1n]);
    bench.reset();
    expect(monitor.guestStats()).toMatchObject({ stale: true, last_update_ns: 0 });
    expect(monitor.guestStats().stats['stat-free-memory']).toBe(1);
    bench.boot();
    answer(0, [MEMFREE, 2n]);
    expect(monitor.guestStats().stale).toBe(false);
  });
});

// spec: 2.1.2-device-1
test('a buffer that was queued before DRIVER_OK is looked at then', () => {
  const bench = new DeviceBench({ statsVq: true }).negotiate();
  for (let index = 0; index < 4; index++) bench.setQueue(index);
  expect(bench.send('statsq', { out: statistics([[MEMFREE, 77n]]) })).toEqual([]);
  expect(bench.send('inflateq', { out: words(5) })).toEqual([]);
  expect(bench.device.inflatedPages.count()).toBe(0);
  expect(bench.device.stats.report().last_update_ns).toBeNull();
  bench.status = READY;
  expect(bench.device.stats.report().stats['stat-free-memory']).toBe(77);
  expect(bench.postedHeads).toEqual([0]);
  expect(bench.device.inflatedPages.count()).toBe(1);
  expect(bench.device.protocolViolations).toBe(0);
});

test('more messages before DRIVER_OK than the rings have entries break the device', () => {
  const bench = new DeviceBench().negotiate();
  bench.setQueue(0);
  const entries = 128 + 128 + 1024;
  for (let i = 0; i < entries; i++) bench.send(0, { out: words(1) });
  expect(bench.device.virtio.needsReset).toBe(false);
  bench.send(0, { out: words(1) });
  expect(bench.device.virtio.needsReset).toBe(true);
});
