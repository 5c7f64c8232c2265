/** The device across resets, queue resets, suspensions and what breaks it. */
import { describe, expect, test } from 'vitest';
import { HintStatus } from '../../../../host/balloon/hinting.ts';
import {
  BalloonStatTag,
  bit,
  DeviceStatus,
  Feature,
  featureMask,
  type Message,
} from '../../../../protocol/index.ts';
import { NS_PER_S } from '../../../../shared/index.ts';
import {
  A,
  AD,
  ADF,
  DeviceBench,
  READY,
  ranges,
  statistics,
  words,
} from '../../../support/device-bench.ts';

const ALL = {
  statsVq: true,
  deflateOnOom: true,
  mustTellHost: true,
  pagePoison: true,
  pageReporting: true,
  ringReset: true,
  suspend: true,
} as const;
const SUSPEND = bit(DeviceStatus.SUSPEND);
const NEEDS_RESET = bit(DeviceStatus.DEVICE_NEEDS_RESET);
const SUSPENDED = ADF | SUSPEND;
const report = () => ({ out: statistics([[BalloonStatTag.MEMFREE, 1n]]) });

/** Brings a device that offers everything into a state of its life. */
const STATES: Readonly<Record<string, (bench: DeviceBench) => void>> = {
  nothing: () => {},
  ACKNOWLEDGE: (bench) => {
    bench.status = A;
  },
  DRIVER: (bench) => {
    bench.status = A;
    bench.status = AD;
  },
  FEATURES_OK: (bench) => void bench.negotiate(),
  'poison_val written': (bench) => bench.negotiate().write(12, 7),
  'queues set up': (bench) => {
    bench.negotiate();
    for (let index = 0; index < 5; index++) bench.setQueue(index);
  },
  'a buffer queued too early': (bench) => {
    STATES['queues set up']?.(bench);
    bench.send('statsq', report());
  },
  DRIVER_OK: (bench) => void bench.boot(),
  'pages in the balloon': (bench) => void bench.boot().send('inflateq', { out: words(1, 2, 3) }),
  'statistics held': (bench) => void bench.boot().send('statsq', report()),
  'statistics asked for': (bench) => {
    bench.boot().send('statsq', report());
    bench.device.stats.setInterval(NS_PER_S);
    bench.runFor(0);
  },
  'a round asked for': (bench) => void bench.boot().device.hintStart(),
  'a round open': (bench) => {
    bench.boot().device.hintStart();
    bench.send(
      'free_page_vq',
      { out: words(bench.device.hintCmdId) },
      { head: 1, ...ranges([4, 2]) },
    );
  },
  'a round done': (bench) => {
    STATES['a round open']?.(bench);
    bench.device.hintDone();
  },
  'a queue reset': (bench) => void bench.boot().handle({ name: 'resetQueue', index: 1 }),
  suspended: (bench) => {
    bench.boot().status = READY | SUSPEND;
  },
  'suspended with a change to tell': (bench) => {
    STATES['suspended']?.(bench);
    bench.device.setTarget(10);
  },
  broken: (bench) => void bench.boot().send('free_page_vq', { out: new Uint8Array(2) }),
};

describe('a reset in every state', () => {
  // spec: 2.1.2-device-1, 2.4.1-device-1, 2.4.1-device-2, 2.2.2-device-5
  test.each(Object.keys(STATES))('%s: nothing of it is left', (state) => {
    const bench = new DeviceBench(ALL);
    STATES[state]?.(bench);
    bench.reset();
    bench.posted.length = 0;
    expect(bench.status).toBe(0);
    expect(bench.device.inflatedPages.count()).toBe(0);
    expect(bench.device.hintStatus).toBe(HintStatus.STOP);
    expect([bench.read(8), bench.read(12)]).toEqual([0, 0]);
    for (let index = 0; index < 5; index++) {
      expect(bench.handle({ name: 'getQueue', index })).toMatchObject({ enabled: false });
    }
    bench.runFor(100 * NS_PER_S);
    expect(bench.posted).toEqual([]);

    // The next driver finds a device like a new one.
    bench.boot();
    expect(bench.status).toBe(READY);
    expect(bench.posted).toEqual([]);
    expect(bench.send('statsq', report())).toEqual([]);
    expect(bench.send('inflateq', { out: words(1) })).toEqual([0]);
    expect(bench.send('deflateq', { out: words(1) })).toEqual([0]);
    expect(bench.send('reporting_vq', ranges([2, 2]))).toEqual([0]);
    expect(bench.device.hintStart()).toBe(true);
    expect(bench.send('free_page_vq', { out: words(bench.device.hintCmdId) })).toEqual([0]);
    expect(bench.device.hintStatus).toBe(HintStatus.START);
    expect(bench.device.metrics.double_inflated_pfns).toBe(0);
  });

  test('the target, actual, the command ids and the statistics survive, as QEMU’s', () => {
    const bench = new DeviceBench(ALL).boot();
    bench.device.setTarget(9);
    bench.write(4, 8);
    bench.device.hintStart();
    bench.send('statsq', report());
    bench.reset();
    expect([bench.read(0), bench.read(4)]).toEqual([9, 8]);
    expect(bench.device.hintCmdId).toBe(0x8000_0001);
    expect(bench.device.stats.report().stats['stat-free-memory']).toBe(1);
  });
});

describe('a queue that is reset', () => {
  // spec: 2.6.1.1.1-device-1, 2.6.1.1.1-device-2
  test('is forgotten with its chains; another size serves afterwards', () => {
    const bench = new DeviceBench(ALL).boot();
    const index = bench.index('statsq');
    bench.send('statsq', { head: 5, ...report() });
    bench.handle({ name: 'resetQueue', index });
    expect(bench.handle({ name: 'getQueue', index })).toMatchObject({ enabled: false });
    bench.device.stats.setInterval(NS_PER_S);
    bench.runFor(10 * NS_PER_S);
    expect(bench.postedHeads).toEqual([]);
    bench.setQueue(index, 4);
    expect(bench.device.virtio.queue(index)?.size).toBe(4);
    bench.send('statsq', { head: 3, ...report() });
    bench.runFor(10 * NS_PER_S);
    expect(bench.postedHeads).toEqual([3]);
    expect(bench.device.protocolViolations).toBe(0);
  });

  // spec: 2.6.1.2.1-device-1
  test('takes the set-up of its next life', () => {
    const bench = new DeviceBench(ALL).boot();
    bench.handle({ name: 'resetQueue', index: 0 });
    bench.setQueue(0, 2);
    expect(bench.send(0, { head: 1, out: words(3) })).toEqual([1]);
    expect(bench.send(0, { head: 2, out: words(4) })).toEqual([]);
    expect(bench.device.virtio.needsReset).toBe(true);
  });

  test.each([
    { id: 'without RING_RESET', features: featureMask(Feature.VERSION_1), index: 0 },
    { id: 'that does not exist', index: 9 },
    { id: 'twice', index: 0, first: 0 },
  ])('is refused $id', ({ features, index, first }) => {
    const bench = new DeviceBench(ALL);
    bench.boot(features ?? bench.offered);
    if (first !== undefined) bench.handle({ name: 'resetQueue', index: first });
    const before = bench.device.virtio.queue(index);
    bench.handle({ name: 'resetQueue', index });
    expect(bench.device.protocolViolations).toBe(1);
    expect(bench.device.virtio.queue(index)).toBe(before);
  });

  test('is the only one that is set up while the device runs', () => {
    const bench = new DeviceBench(ALL).boot();
    const before = bench.device.virtio.queue(0);
    bench.setQueue(0, 2);
    expect(bench.device.virtio.queue(0)).toBe(before);
    expect(bench.device.protocolViolations).toBe(1);
  });
});

describe('suspension', () => {
  const suspended = () => {
    const bench = new DeviceBench(ALL).boot();
    bench.status = READY | SUSPEND;
    return bench;
  };

  // spec: 3.4.2-device-6, 3.4.2-device-7
  test.each([READY, READY | SUSPEND])('DRIVER_OK written as %s ends it', (status) => {
    const bench = suspended();
    expect(bench.status).toBe(SUSPENDED);
    bench.status = status;
    expect(bench.status).toBe(READY);
    expect(bench.send('inflateq', { out: words(1) })).toEqual([0]);
    expect(bench.device.protocolViolations).toBe(0);
  });

  // spec: 3.4.2-device-1
  test.each([
    { id: 'before DRIVER_OK', status: ADF, features: undefined },
    { id: 'without the feature', status: READY, features: featureMask(Feature.VERSION_1) },
  ])('is not begun $id', ({ status, features }) => {
    const bench = new DeviceBench(ALL);
    if (status === READY) bench.boot(features);
    else bench.negotiate();
    bench.status = status | SUSPEND;
    expect(bench.status).toBe(status);
    expect(bench.device.protocolViolations).toBe(1);
  });

  // spec: 3.4.2-device-3
  test('queues are left alone; what was notified is served at the resume', () => {
    const bench = new DeviceBench(ALL).boot();
    bench.device.stats.setInterval(NS_PER_S);
    bench.send('statsq', { head: 7, ...report() });
    bench.status = READY | SUSPEND;
    expect(bench.send('inflateq', { out: words(1) })).toEqual([]);
    bench.runFor(10 * NS_PER_S);
    expect(bench.posted).toEqual([]);
    expect(bench.device.inflatedPages.count()).toBe(0);
    bench.status = READY;
    expect(bench.postedHeads).toEqual([0]);
    bench.runFor(NS_PER_S);
    expect(bench.postedHeads).toEqual([0, 7]);
  });

  // spec: 3.4.2-device-4, 3.4.2-device-5
  test('changes of the configuration show at the resume, with one notification', () => {
    const bench = suspended();
    const { generation } = bench.handle({
      name: 'getConfig',
      offset: 0,
      length: 16,
    }) as Message<'config'>;
    bench.device.setTarget(10);
    bench.device.hintStart();
    bench.device.setTarget(20);
    expect(bench.handle({ name: 'getConfig', offset: 0, length: 16 })).toEqual({
      name: 'config',
      generation,
      data: new Uint8Array(16),
    });
    expect(bench.posted).toEqual([]);
    bench.status = READY;
    expect(bench.posted).toEqual([{ name: 'configChanged', generation: generation + 1 }]);
    expect(bench.read(0)).toBe(20);
  });

  // spec: 3.4.2-device-2
  test('the driver can change nothing but the status', () => {
    const bench = suspended();
    bench.write(4, 3);
    bench.handle({ name: 'resetQueue', index: 0 });
    bench.setQueue(0, 2);
    bench.status = ADF;
    expect(bench.device.protocolViolations).toBe(4);
    expect(bench.status).toBe(SUSPENDED);
    expect(bench.device.actualPages).toBe(0);
    expect(bench.device.virtio.queue(0)?.size).toBe(128);
  });

  test('nothing is to be told at a resume without a change', () => {
    const bench = suspended();
    bench.status = READY;
    expect(bench.posted).toEqual([]);
  });
});

describe('DEVICE_NEEDS_RESET', () => {
  // spec: 2.1.2-device-2, 2.1.2-device-3
  test.each([
    { id: 'a command of 2 bytes', queue: 'free_page_vq', chains: [{ out: new Uint8Array(2) }] },
    { id: 'a head outside the ring', queue: 'inflateq', chains: [{ head: 128, out: words(1) }] },
    {
      id: 'a head that is held',
      queue: 'statsq',
      chains: [
        { head: 1, ...report() },
        { head: 1, ...report() },
      ],
    },
    { id: 'a segment of no bytes', queue: 'free_page_vq', chains: [{ in: [[0, 0]] }] },
  ] as const)('$id breaks the device, which says so', ({ queue, chains }) => {
    const bench = new DeviceBench(ALL).boot();
    bench.send(queue, ...chains);
    expect(bench.status).toBe(READY | NEEDS_RESET);
    expect(bench.configChanges).toBe(1);
    expect(bench.send('inflateq', { out: words(1) })).toEqual([]);
    expect(bench.device.inflatedPages.count()).toBe(0);
  });
});

describe('the generation', () => {
  const changes: readonly (readonly [string, (bench: DeviceBench) => void])[] = [
    ['a new target', (bench) => bench.device.setTarget(3)],
    ['a round', (bench) => void bench.device.hintStart()],
    ['the end of a round', (bench) => bench.device.hintDone()],
    ['DEVICE_NEEDS_RESET', (bench) => bench.device.virtio.setNeedsReset()],
  ];

  test.each(changes)('moves with %s, which is notified', (_what, change) => {
    const bench = new DeviceBench(ALL).boot();
    const before = bench.device.virtio.configGeneration;
    change(bench);
    expect(bench.device.virtio.configGeneration).toBe(before + 1);
    expect(bench.posted.at(-1)).toEqual({ name: 'configChanged', generation: before + 1 });
  });

  test('stands still while the driver writes', () => {
    const bench = new DeviceBench(ALL).boot();
    bench.write(4, 5);
    expect(bench.device.virtio.configGeneration).toBe(0);
  });

  // spec: 2.5.2-device-1
  test('every offered field can be read before FEATURES_OK', () => {
    const bench = new DeviceBench(ALL);
    bench.device.setTarget(3);
    expect(bench.config(0, 16)).toEqual(words(3, 0, 0, 0));
    expect(bench.device.protocolViolations).toBe(0);
  });
});
