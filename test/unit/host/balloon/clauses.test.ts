/** Clauses of virtio 1.4 on the device: what it offers, what it writes, when it is done. */
import { afterEach, describe, expect, test, vi } from 'vitest';
import { BalloonDevice } from '../../../../host/balloon/device.ts';
import {
  BalloonConfig,
  BalloonFeature,
  DEVICE_FEATURES,
  DEVICE_PROFILES,
  Feature,
  featureMask,
  HintCommand,
  hasFeature,
  type Message,
} from '../../../../protocol/index.ts';
import { MIB, NS_PER_MS } from '../../../../shared/index.ts';
import { ADF, DeviceBench, ranges, statistics, words } from '../../../support/device-bench.ts';
import { inProcess, MIGRATE } from '../../../support/in-process.ts';

afterEach(() => void vi.restoreAllMocks());

const KNOWN = featureMask(Feature.VERSION_1, ...Object.values(DEVICE_FEATURES));

describe('what is offered', () => {
  // spec: 6.2-device-1, 2.2.2-device-1, 2.2.2-device-2, 2.2.2-device-4
  test.each(DEVICE_PROFILES)('%s: VERSION_1, and nothing that cannot be accepted', (profile) => {
    const bench = new DeviceBench({ profile });
    const { offered } = bench;
    expect(hasFeature(offered, Feature.VERSION_1)).toBe(true);
    expect(offered & ~KNOWN).toBe(0n);
    bench.negotiate();
    expect([bench.status, bench.device.virtio.negotiatedFeatures]).toEqual([ADF, offered]);
  });

  // spec: 2.2.2-device-1
  test('HINT_WAIT_ON_ACK comes with FREE_PAGE_HINT or not at all', () => {
    for (const freePageHint of [true, false]) {
      const { offered } = new DeviceBench({ freePageHint, hintWaitOnAck: true });
      expect(hasFeature(offered, BalloonFeature.HINT_WAIT_ON_ACK)).toBe(freePageHint);
    }
  });
});

// spec: 2.7.8.2-device-2
test('no buffer is written to, so each used length is 0', () => {
  const bench = new DeviceBench({ statsVq: true, freePageHint: true, pageReporting: true }).boot();
  bench.device.hintStart();
  const used = [
    bench.used('inflateq', { out: words(1, 2) }),
    bench.used('deflateq', { out: words(1) }),
    bench.used('statsq', { out: statistics([[4, 5n]]) }, { out: statistics([[4, 5n]]) }),
    bench.used('free_page_vq', { out: words(bench.device.hintCmdId) }, ranges([8, 2])),
    bench.used('reporting_vq', ranges([16, 4], [32, 4])),
  ];
  expect(used.map((each) => each.length)).toEqual([1, 1, 1, 2, 1]);
  expect(used.flat().every(([, bytes]) => bytes === 0)).toBe(true);
});

describe('the end of hinting', () => {
  // spec: 5.5.6.5.2-device-5
  test('no hinted page is discarded after DONE, whenever it was hinted', () => {
    const bench = new DeviceBench({ discardHints: true }).boot();
    bench.device.hintStart();
    bench.send('free_page_vq', { out: words(bench.device.hintCmdId) }, ranges([8, 2]));
    const before = bench.discarded;
    expect(before).toEqual([8, 2]);
    bench.device.hintDone();
    bench.send('free_page_vq', ranges([16, 4]), ranges([8, 2]), { out: words(0) }, ranges([32, 1]));
    expect(bench.discarded).toEqual(before);
  });

  // spec: 5.5.6.5.2-device-1, 5.5.6.5.2-device-6
  test.each(['completed', 'cancelled'] as const)(
    'of a migration that is %s is DONE',
    async (how) => {
      const stopped = vi.spyOn(BalloonDevice.prototype, 'hintStop');
      const done = vi.spyOn(BalloonDevice.prototype, 'hintDone');
      const { hypervisor } = await inProcess({ guest: { strategy: 'alloc' } });
      await hypervisor.runUntil(100 * NS_PER_MS);
      const bandwidthBytesPerS = how === 'completed' ? MIGRATE.bandwidthBytesPerS : MIB / 16;
      hypervisor.startMigration({ ...MIGRATE, bandwidthBytesPerS, downtimeLimitMs: 1 });
      await hypervisor.runUntil(110 * NS_PER_MS);
      if (how === 'cancelled') hypervisor.cancelMigration();
      await hypervisor.runUntil(20_000 * NS_PER_MS);
      expect(hypervisor.queryMigration().status).toBe(how);
      expect(stopped.mock.invocationCallOrder[0]).toBeLessThan(done.mock.invocationCallOrder[0]!);
      const device = done.mock.contexts.at(-1) as BalloonDevice;
      const offset = BalloonConfig.offsets.free_page_hint_cmd_id;
      const { data } = device.handle({ name: 'getConfig', offset, length: 4 }) as Message<'config'>;
      expect([...data]).toEqual([HintCommand.DONE, 0, 0, 0]);
    },
  );
});
