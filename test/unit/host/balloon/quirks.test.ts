/** Each quirk beside the plain device: what it changes, and whose it is. */
import { describe, expect, test } from 'vitest';
import { HintStatus } from '../../../../host/balloon/hinting.ts';
import { BalloonMonitor } from '../../../../host/balloon/monitor.ts';
import { PROFILES } from '../../../../host/balloon/profiles.ts';
import { QUIRKS } from '../../../../host/balloon/quirks.ts';
import {
  BalloonFeature,
  BalloonStatTag,
  DEVICE_FEATURE_NAMES,
  DEVICE_PROFILES,
  DEVICE_QUIRKS,
  type DeviceConfig,
  type DeviceQuirk,
  Feature,
  featureMask,
} from '../../../../protocol/index.ts';
import { NS_PER_S } from '../../../../shared/index.ts';
import {
  ADF,
  DeviceBench,
  READY,
  ranges,
  statistics,
  words,
} from '../../../support/device-bench.ts';

const RAM_PAGES = 1024;
const PAGE = 4096;
const EVERYTHING: DeviceConfig = {
  mustTellHost: true,
  statsVq: true,
  deflateOnOom: true,
  freePageHint: true,
  pagePoison: true,
  pageReporting: true,
};

/** The same steps on a device without and with the quirk. */
interface Case {
  readonly quirk: DeviceQuirk;
  readonly act: (bench: DeviceBench) => unknown;
  readonly plain: unknown;
  readonly quirky: unknown;
}

const many = (count: number) => ({ out: words(...Array.from({ length: count }, (_, i) => i)) });
const openRound = (bench: DeviceBench): void => {
  bench.boot().device.hintStart();
  bench.send('free_page_vq', { out: words(bench.device.hintCmdId) });
};
const hinted = (bench: DeviceBench, gpa: number, bytes: number) => {
  openRound(bench);
  const used = bench.send('free_page_vq', { in: [[gpa, bytes]] });
  return { used, hints: bench.hints };
};
const reported = (bench: DeviceBench, gpa: number, bytes: number) => {
  const used = bench.boot().used('reporting_vq', { in: [[gpa, bytes]] });
  return { used, discarded: bench.discarded };
};
const statsOf = (bench: DeviceBench) => bench.device.stats.report().stats;

const CASES: readonly Case[] = [
  {
    quirk: 'start-reads-as-stop',
    act: (bench) => {
      openRound(bench);
      return bench.read(8);
    },
    plain: 0x8000_0001,
    quirky: 0,
  },
  {
    quirk: 'unoffered-features-accepted',
    act: (bench) => {
      bench.negotiate(featureMask(BalloonFeature.STATS_VQ, 23));
      return [bench.status, bench.device.virtio.negotiatedFeatures];
    },
    plain: [3, 0n],
    quirky: [ADF, featureMask(BalloonFeature.STATS_VQ)],
  },
  {
    quirk: 'absent-config-reads-ones',
    act: (bench) => [...bench.config(16, 2), ...bench.config(100, 1 << 20)],
    plain: [],
    quirky: [0xff, 0xff],
  },
  {
    quirk: 'actual-unchecked',
    act: (bench) => {
      bench.boot().write(4, RAM_PAGES + 1);
      return [bench.read(4), bench.device.protocolViolations];
    },
    plain: [0, 1],
    quirky: [RAM_PAGES + 1, 0],
  },
  {
    quirk: 'actual-counted-by-host',
    act: (bench) => {
      bench.boot().send('inflateq', { out: words(1, 2, 3) });
      bench.write(4, 99);
      bench.send('deflateq', { out: words(2) });
      return [bench.device.actualPages, bench.actual, bench.device.protocolViolations];
    },
    plain: [99, [99], 0],
    quirky: [2, [3, 2], 0],
  },
  {
    quirk: 'state-zeroed-by-reset',
    act: (bench) => {
      bench.boot().write(4, 5);
      bench.device.setTarget(7);
      bench.device.hintStart();
      bench.send('statsq', { out: statistics([[BalloonStatTag.AVAIL, 3n]]) });
      bench.reset();
      return [
        bench.read(0),
        bench.read(4),
        bench.device.hintCmdId,
        statsOf(bench)['stat-available-memory'],
      ];
    },
    plain: [7, 5, 0x8000_0001, 3],
    quirky: [7, 0, 0x8000_0000, null],
  },
  {
    quirk: 'poison-returns-after-reset',
    act: (bench) => {
      bench.negotiate().write(12, 0xaa);
      bench.reset();
      bench.boot();
      const before = bench.read(12);
      bench.write(4, 1);
      return [before, bench.read(12)];
    },
    plain: [0, 0],
    quirky: [0, 0xaa],
  },
  {
    quirk: 'poison-writable-any-time',
    act: (bench) => {
      bench.boot().write(12, 0xaa);
      return bench.read(12);
    },
    plain: 0,
    quirky: 0xaa,
  },
  {
    quirk: 'stray-pfn-bytes-ignored',
    act: (bench) => {
      const used = bench.boot().send('inflateq', { out: Uint8Array.of(...words(4, 5), 1, 2) });
      return [used, bench.discarded, bench.device.metrics.bad_lengths];
    },
    plain: [[0], [], 1],
    quirky: [[0], [4, 2], 1],
  },
  {
    quirk: 'pfns-over-256-ignored',
    act: (bench) => {
      const used = bench.boot().send('inflateq', many(257), { head: 1, ...many(256) });
      return [used, bench.device.metrics.inflated_pfns];
    },
    plain: [[0, 1], 513],
    quirky: [[0, 1], 256],
  },
  {
    quirk: 'pfns-over-256-never-returned',
    act: (bench) => {
      const used = bench.boot().send('inflateq', many(257), { head: 1, ...many(256) });
      return [
        used,
        bench.device.metrics.inflated_pfns,
        bench.device.virtio.queue(0)?.outstandingCount,
      ];
    },
    plain: [[0, 1], 513, 0],
    quirky: [[1], 256, 1],
  },
  {
    quirk: 'inflate-keeps-content',
    act: (bench) => {
      bench.boot().send('inflateq', { out: words(4, 5) });
      return [bench.device.inflatedPages.count(), bench.discarded];
    },
    plain: [2, [4, 2]],
    quirky: [2, []],
  },
  {
    quirk: 'long-hint-command-accepted',
    act: (bench) => {
      bench.boot().device.hintStart();
      const used = bench.send('free_page_vq', { out: words(bench.device.hintCmdId, 7) });
      return [used, bench.status, bench.device.hintStatus];
    },
    plain: [[], READY | 64, HintStatus.REQUESTED],
    quirky: [[0], READY, HintStatus.START],
  },
  {
    quirk: 'four-bytes-are-a-command',
    act: (bench) => {
      openRound(bench);
      const used = bench.send(
        'free_page_vq',
        { in: [[PAGE, 4]] },
        { head: 1, out: new Uint8Array(2) },
      );
      return [used, bench.status, bench.device.hintStatus];
    },
    plain: [[0], READY | 64, HintStatus.START],
    quirky: [[0, 1], READY, HintStatus.STOP],
  },
  {
    quirk: 'hint-ids-compared',
    act: (bench) => {
      openRound(bench);
      const id = bench.device.hintCmdId;
      bench.send('free_page_vq', { out: words(id - 1) }, { head: 1, ...ranges([1, 1]) });
      bench.send('free_page_vq', { out: words(id) }, { head: 1, ...ranges([2, 1]) });
      return bench.hints.map(([pfn]) => pfn);
    },
    plain: [],
    quirky: [2],
  },
  {
    quirk: 'done-at-guest-stop',
    act: (bench) => {
      openRound(bench);
      const before = bench.configChanges;
      bench.send('free_page_vq', { out: words(0) });
      const after = [bench.device.hintCommands.host_cmd, bench.configChanges - before];
      bench.send('free_page_vq', { out: words(0) });
      return [...after, bench.configChanges - before];
    },
    plain: [0, 0, 0],
    quirky: [1, 1, 2],
  },
  {
    quirk: 'hints-in-any-state',
    act: (bench) => {
      bench.boot().send('free_page_vq', ranges([3, 1]));
      return bench.hints.map(([pfn]) => pfn);
    },
    plain: [],
    quirky: [3],
  },
  {
    quirk: 'hint-start-rounds-down',
    act: (bench) => hinted(bench, 0x800, 0x2800),
    plain: { used: [0], hints: [] },
    quirky: { used: [0], hints: [[0, 2]] },
  },
  {
    quirk: 'hint-clipped-to-ram',
    act: (bench) => hinted(bench, (RAM_PAGES - 1) * PAGE, 2 * PAGE),
    plain: { used: [0], hints: [] },
    quirky: { used: [0], hints: [[RAM_PAGES - 1, 1]] },
  },
  {
    quirk: 'unmapped-segment-breaks',
    act: (bench) => [hinted(bench, RAM_PAGES * PAGE, 2 * PAGE).used, bench.status],
    plain: [[0], READY],
    quirky: [[], READY | 64],
  },
  {
    quirk: 'report-clipped-to-ram',
    act: (bench) => reported(bench, (RAM_PAGES - 2) * PAGE, 4 * PAGE),
    plain: { used: [[0, 0]], discarded: [] },
    quirky: { used: [[0, 0]], discarded: [RAM_PAGES - 2, 2] },
  },
  {
    quirk: 'report-used-length-total',
    act: (bench) => reported(bench, PAGE, 4 * PAGE),
    plain: { used: [[0, 0]], discarded: [1, 4] },
    quirky: { used: [[0, 4 * PAGE]], discarded: [1, 4] },
  },
  {
    quirk: 'unreported-stats-kept',
    act: (bench) => {
      bench.boot().send('statsq', { head: 0, out: statistics([[BalloonStatTag.AVAIL, 3n]]) });
      bench.send('statsq', { head: 1, out: statistics([[BalloonStatTag.CACHES, 4n]]) });
      return [statsOf(bench)['stat-available-memory'], statsOf(bench)['stat-disk-caches']];
    },
    plain: [null, 4],
    quirky: [3, 4],
  },
  {
    quirk: 'stats-over-256-ignored',
    act: (bench) => {
      const entries = Array.from({ length: 257 }, () => [BalloonStatTag.AVAIL, 3n] as const);
      const used = bench.boot().send('statsq', { out: statistics(entries) });
      return [used, statsOf(bench)['stat-available-memory'], bench.device.metrics.stats_reports];
    },
    plain: [[], 3, 1],
    quirky: [[], null, 1],
  },
  {
    quirk: 'unknown-stats-as-undefined',
    act: (bench) => {
      bench.boot().send('statsq', { out: statistics([[99, 3n]]) });
      return statsOf(bench)['undefined'];
    },
    plain: undefined,
    quirky: 3,
  },
  {
    quirk: 'stats-polling-fixed-at-boot',
    act: (bench) => {
      const monitor = new BalloonMonitor(bench.boot().device);
      try {
        monitor.setStatsPollingInterval(1);
      } catch (error) {
        return String(error);
      }
      return bench.device.stats.intervalNs;
    },
    plain: NS_PER_S,
    quirky:
      'BallastError: polling interval: this device cannot turn statistics on or off while the guest runs',
  },
];

test.each(CASES)('$quirk', ({ quirk, act, plain, quirky }) => {
  const device = (isOn: boolean) =>
    new DeviceBench({ ...EVERYTHING, quirks: { 'start-reads-as-stop': false, [quirk]: isOn } });
  expect(act(device(false))).toEqual(plain);
  expect(act(device(true))).toEqual(quirky);
});

test('every quirk is told apart from the plain device, has a source and an owner', () => {
  expect(CASES.map(({ quirk }) => quirk).sort()).toEqual([...DEVICE_QUIRKS].sort());
  expect(Object.keys(QUIRKS).sort()).toEqual([...DEVICE_QUIRKS].sort());
  const owned = new Set(DEVICE_PROFILES.flatMap((name) => PROFILES[name].quirks));
  expect([...owned].sort()).toEqual([...DEVICE_QUIRKS].sort());
});

describe('profiles', () => {
  const low = (...bits: number[]) => featureMask(...bits, Feature.VERSION_1);
  test.each([
    { profile: 'ballast', offered: low(3), sizes: [128, 128, 1024, 0, 0], config: 12 },
    {
      profile: 'qemu-7.2',
      offered: 0x101_3000_003en,
      sizes: [128, 128, 128, 1024, 32],
      config: 16,
    },
    {
      profile: 'firecracker-1.16',
      offered: low(1, 2, 3, 5),
      sizes: [256, 256, 256, 256, 256],
      config: 12,
    },
    { profile: 'cloud-hypervisor', offered: low(2, 5), sizes: [128, 128, 32, 0, 0], config: 8 },
    {
      profile: 'crosvm',
      offered: low(0, 1, 2, 5, Feature.RING_EVENT_IDX),
      sizes: [128, 128, 128, 128, 0],
      config: 20,
    },
    { profile: 'v86', offered: low(1, 3), sizes: [32, 32, 2, 64, 0], config: 12 },
  ] as const)('$profile', ({ profile, offered, sizes, config }) => {
    const bench = new DeviceBench({ profile });
    expect(bench.offered).toBe(offered);
    expect([0, 1, 2, 3, 4].map((index) => bench.maxSize(index))).toEqual(sizes);
    expect(bench.handle({ name: 'getDeviceInfo' })).toMatchObject({ config_size: config });
    expect(bench.boot().status).toBe(READY);
  });

  test.each([
    { profile: 'qemu-7.2', ids: [0x8000_0001, 0x8000_0002, 0x8000_0003] },
    { profile: 'firecracker-1.16', ids: [2, 3, 4] },
    { profile: 'v86', ids: [2, 2, 2] },
  ] as const)('$profile asks for rounds under $ids', ({ profile, ids }) => {
    const bench = new DeviceBench({ profile }).boot();
    const seen = ids.map(() => {
      bench.device.hintStart();
      return bench.read(8);
    });
    expect(seen).toEqual(ids);
  });

  test.each([
    { profile: 'firecracker-1.16', discarded: [3, 2] },
    { profile: 'v86', discarded: [3, 2] },
    { profile: 'qemu-7.2', discarded: [] },
  ] as const)('what is hinted to $profile is discarded: $discarded', ({ profile, discarded }) => {
    const bench = new DeviceBench({ profile });
    openRound(bench);
    bench.send('free_page_vq', ranges([3, 2]));
    expect(bench.discarded).toEqual(discarded);
  });

  test('crosvm names its two own statistics', () => {
    const bench = new DeviceBench({ profile: 'crosvm' }).boot();
    bench.send('statsq', {
      out: statistics([
        [65534, 1n],
        [65535, 2n],
        [10, 3n],
      ]),
    });
    expect(statsOf(bench)).toMatchObject({ 'stat-shared-memory': 1, 'stat-unevictable': 2 });
    expect(bench.device.metrics.stats_unknown_tags).toBe(1);
  });

  test.each(DEVICE_FEATURE_NAMES)('%s can be switched on and off in any profile', (name) => {
    for (const profile of DEVICE_PROFILES) {
      const on = new DeviceBench({ profile, freePageHint: true, [name]: true });
      const off = new DeviceBench({ profile, freePageHint: true, [name]: false });
      expect(on.offered & ~off.offered).not.toBe(0n);
    }
  });
});

describe('hinting without a migration, as Firecracker has it', () => {
  test.each([
    { acknowledge: true, after: { host_cmd: 1, guest_cmd: 0 }, changes: 1 },
    { acknowledge: false, after: { host_cmd: 2, guest_cmd: 0 }, changes: 0 },
  ])('acknowledge_on_stop $acknowledge', ({ acknowledge, after, changes }) => {
    const bench = new DeviceBench({ profile: 'firecracker-1.16' }).boot();
    const monitor = new BalloonMonitor(bench.device);
    expect(monitor.hintStatus()).toEqual({ host_cmd: 0, guest_cmd: null });
    monitor.hintStart(acknowledge);
    bench.send('free_page_vq', { out: words(2) });
    expect(monitor.hintStatus()).toEqual({ host_cmd: 2, guest_cmd: 2 });
    const before = bench.configChanges;
    bench.send('free_page_vq', { out: words(0) });
    expect(monitor.hintStatus()).toEqual(after);
    expect(bench.configChanges - before).toBe(changes);
    bench.send('free_page_vq', ranges([1, 1]));
    expect(bench.discarded).toEqual([]);
    monitor.hintStop();
    expect(bench.read(8)).toBe(1);
  });

  test('is refused by a device whose driver does not hint', () => {
    const monitor = new BalloonMonitor(new DeviceBench({ freePageHint: false }).boot().device);
    for (const act of ['hintStop', 'hintStatus'] as const) {
      expect(() => monitor[act]()).toThrow('FREE_PAGE_HINT was not negotiated');
    }
    expect(() => monitor.hintStart(true)).toThrow('FREE_PAGE_HINT was not negotiated');
  });
});
