/**
 * Every feature subset under every way of numbering queues: which queues there are, where, how large,
 * and that each serves what its name says; first told by messages, then by the real driver.
 */
import { describe, expect, test } from 'vitest';
import {
  BALLOON_QUEUES,
  BalloonFeature,
  type BalloonQueueName,
  BalloonStatTag,
  balloonConfigBytes,
  DEVICE_FEATURES,
  type DeviceConfig,
  Feature,
  type FeatureSet,
  featureMask,
  hasFeature,
  type QueueNumbering,
} from '../../../../protocol/index.ts';
import { DeviceBench, READY, ranges, statistics, words } from '../../../support/device-bench.ts';
import { DriverHarness } from '../../../support/driver-harness.ts';

const NAMES = [
  'mustTellHost',
  'statsVq',
  'deflateOnOom',
  'freePageHint',
  'pagePoison',
  'pageReporting',
] as const;
const POLICIES: readonly QueueNumbering[] = [
  'spec-fixed',
  'dense-by-offered',
  'dense-by-negotiated',
];
const SIZES: Readonly<Record<BalloonQueueName, number>> = {
  inflateq: 128,
  deflateq: 128,
  statsq: 128,
  free_page_vq: 1024,
  reporting_vq: 32,
};

/** Each of the 64 subsets as the bits of `NAMES`, which are those of the specification. */
const SUBSETS = Array.from({ length: 1 << NAMES.length }, (_, bits) => bits);

function featuresOfBits(bits: number): FeatureSet {
  return BigInt(bits) | featureMask(Feature.VERSION_1);
}

function offering(bits: number): DeviceConfig {
  return Object.fromEntries(NAMES.map((name) => [name, hasBit(bits, DEVICE_FEATURES[name])]));
}

function hasBit(bits: number, bit: number): boolean {
  return ((bits >> bit) & 1) === 1;
}

/** Index and name of each queue, worked out on its own: by the words of each policy. */
function expectedQueues(policy: QueueNumbering, offered: number, accepted: number) {
  const exists = policy === 'dense-by-negotiated' ? accepted : offered;
  const present = BALLOON_QUEUES.filter(
    ({ feature }) => feature === undefined || hasBit(exists, feature),
  );
  return present.map(({ name, spec }, place) => ({
    name,
    index: policy === 'spec-fixed' ? spec : place,
  }));
}

/** One chain for each queue, and how to see that it was served. */
const SERVICES: Readonly<Record<BalloonQueueName, (bench: DeviceBench, index: number) => unknown>> =
  {
    inflateq: (bench, index) => [
      bench.send(index, { out: words(7) }),
      bench.device.inflatedPages.get(7),
    ],
    deflateq: (bench, index) => [
      bench.send(index, { out: words(7) }),
      bench.device.inflatedPages.get(7),
    ],
    statsq: (bench, index) => [
      bench.send(index, { out: statistics([[BalloonStatTag.AVAIL, 5n]]) }),
      bench.device.stats.report().stats['stat-available-memory'],
    ],
    free_page_vq: (bench, index) => {
      bench.device.hintStart();
      const used = bench.send(
        index,
        { out: words(bench.device.hintCmdId) },
        { head: 1, ...ranges([9, 1]) },
      );
      return [used, bench.hints.length];
    },
    reporting_vq: (bench, index) => [
      bench.send(index, ranges([9, 1])),
      bench.device.metrics.reports,
    ],
  };
const SERVED: Readonly<Record<BalloonQueueName, unknown>> = {
  inflateq: [[0], true],
  deflateq: [[0], false],
  statsq: [[], 5],
  free_page_vq: [[0, 1], 1],
  reporting_vq: [[0], 1],
};
/** Of a queue that is there although its feature was declined: acknowledged, without effect. */
const DECLINED: Readonly<Partial<Record<BalloonQueueName, unknown>>> = {
  statsq: [[0], null],
  free_page_vq: [[0, 1], 0],
  reporting_vq: [[0], 0],
};

describe.each(POLICIES)('queues numbered %s', (numbering) => {
  // spec: 2.2.2-device-2, 2.2.2-device-4, 6.2-device-1
  test('each accepted subset of each offered set has its queues, and each serves', () => {
    let pairs = 0;
    for (const offered of SUBSETS) {
      for (const accepted of SUBSETS) {
        if ((accepted & ~offered) !== 0) continue;
        pairs++;
        const bench = new DeviceBench({ numbering, ...offering(offered) }, 64);
        expect(bench.offered).toBe(featuresOfBits(offered));
        bench.boot(featuresOfBits(accepted));
        const what = `offered ${offered}, accepted ${accepted}`;
        expect(bench.status, what).toBe(READY);
        const queues = expectedQueues(numbering, offered, accepted);
        const byIndex = new Map(queues.map(({ name, index }) => [index, name]));
        for (let index = 0; index < 6; index++) {
          const name = byIndex.get(index);
          expect(bench.maxSize(index), what).toBe(name ? SIZES[name] : 0);
        }
        expect(bench.handle({ name: 'getDeviceInfo' }), what).toMatchObject({
          queue_count: (queues.at(-1)?.index ?? -1) + 1,
          config_size: balloonConfigBytes(featuresOfBits(offered)),
        });
        let declined = 0;
        for (const { name, index } of queues) {
          const feature = BALLOON_QUEUES.find((queue) => queue.name === name)?.feature;
          const isServed = feature === undefined || hasBit(accepted, feature);
          if (!isServed) declined++;
          const seen = SERVICES[name](bench, index);
          expect(seen, `${what}: ${name}`).toEqual(isServed ? SERVED[name] : DECLINED[name]);
        }
        expect(bench.device.metrics.declined_queue_chains > 0, what).toBe(declined > 0);
      }
    }
    expect(pairs).toBe(3 ** 6);
  });

  // spec: 5.5.3.1-driver-1
  test.each([
    { id: 'what is offered', all: false },
    { id: 'what it wants of everything', all: true },
  ])('the driver finds the queues of $id', ({ all }) => {
    const offeredBits = (bits: number): number => (all ? SUBSETS.length - 1 : bits);
    for (const bits of SUBSETS) {
      const { driver, device, queues } = driven(numbering, offeredBits(bits), bits);
      const what = `offered ${offeredBits(bits)}, accepted ${bits}`;
      expect(driver.failure, what).toBeNull();
      expect(device.virtio.negotiatedFeatures, what).toBe(featuresOfBits(bits));
      expect(device.protocolViolations, what).toBe(0);
      const wanted = expectedQueues(numbering, offeredBits(bits), bits).filter(({ name }) => {
        const feature = BALLOON_QUEUES.find((queue) => queue.name === name)?.feature;
        return feature === undefined || hasBit(bits, feature);
      });
      expect(queues, what).toEqual(wanted.map(({ index }) => index));
      const { metrics } = device;
      expect(
        [metrics.inflated_pfns > 0, metrics.deflated_pfns > 0, metrics.stats_reports > 1],
        what,
      ).toEqual([true, true, hasBit(bits, BalloonFeature.STATS_VQ)]);
      expect([metrics.hint_commands === 2, metrics.reports > 0, device.actualPages], what).toEqual([
        hasBit(bits, BalloonFeature.FREE_PAGE_HINT),
        hasBit(bits, BalloonFeature.PAGE_REPORTING),
        0,
      ]);
    }
  });
});

const S = 1_000_000_000;
/** Reporting leaves a guest alone that has less free than 32 blocks of 2 MiB. */
const RAM_PAGES = 32_768;

/** A guest that inflates, deflates, reports, hints and is asked for statistics. */
function driven(numbering: QueueNumbering, offered: number, accepted: number) {
  const harness = new DriverHarness({
    ramPages: RAM_PAGES,
    device: { ...offering(offered), numbering } as object,
    driver: { features: featuresOfBits(accepted), numbering },
    realAllocator: true,
    // Who clears pages when they are freed is who can promise what they hold.
    mm: { initOnFree: hasBit(accepted, BalloonFeature.PAGE_POISON) },
  });
  const { device, driver } = harness;
  harness.boot();
  device.stats.setInterval(S);
  device.setTarget(8);
  harness.runFor(0.1 * S);
  device.setTarget(0);
  harness.runFor(0.1 * S);
  device.hintStart();
  harness.runFor(4 * S);
  const queues = [0, 1, 2, 3, 4].filter((index) => device.virtio.queue(index) !== undefined);
  return { driver, device, queues };
}

test('a driver that counts what it accepts misses the queues of a device that counts what it offers', () => {
  const offered = SUBSETS.length - 1;
  const accepted = offered & ~(1 << BalloonFeature.STATS_VQ);
  const harness = new DriverHarness({
    ramPages: RAM_PAGES,
    device: { ...offering(offered), numbering: 'dense-by-offered' } as object,
    driver: { features: featuresOfBits(accepted), numbering: 'dense-by-negotiated' },
    realAllocator: true,
    mm: { initOnFree: true },
  });
  harness.boot();
  expect(hasFeature(harness.device.virtio.negotiatedFeatures, BalloonFeature.FREE_PAGE_HINT)).toBe(
    true,
  );
  harness.device.hintStart();
  harness.runFor(0.1 * S);
  // Its hints go to what the device takes for the queue of statistics, which was declined.
  expect(harness.device.metrics).toMatchObject({ hint_commands: 0 });
  expect(harness.device.metrics.declined_queue_chains).toBeGreaterThan(0);
});
