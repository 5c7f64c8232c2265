/** Device status, feature negotiation and reset (virtio 1.4 §2.1, §2.2, §2.4, §3.1). */
import { describe, expect } from 'vitest';
import type { OfferedFeatures } from '../../peers/conformance-machine.ts';
import {
  BalloonFeature,
  Feature,
  type FeatureSet,
  featureMask,
  hasFeature,
} from '../../protocol/index.ts';
import { type Bench, type StartMachine, suiteOf } from './fixture.ts';
import {
  ACKNOWLEDGE,
  contentWord,
  DRIVER,
  DRIVER_OK,
  FEATURES_OK,
  isEnabled,
  le32s,
  NEEDS_RESET,
  READY,
} from './puppet.ts';

const EVERYTHING: OfferedFeatures = {
  freePageHint: true,
  pageReporting: true,
  pagePoison: true,
  deflateOnOom: true,
};

/** Each option, and the feature that it makes the device offer. */
const FEATURES: readonly (readonly [keyof OfferedFeatures, number])[] = [
  ['deflateOnOom', BalloonFeature.DEFLATE_ON_OOM],
  ['freePageHint', BalloonFeature.FREE_PAGE_HINT],
  ['pagePoison', BalloonFeature.PAGE_POISON],
  ['pageReporting', BalloonFeature.PAGE_REPORTING],
  ['indirectDesc', Feature.RING_INDIRECT_DESC],
  ['eventIdx', Feature.RING_EVENT_IDX],
  ['ringPacked', Feature.RING_PACKED],
  ['ringReset', Feature.RING_RESET],
];

export function statusTests(start: StartMachine): void {
  const { test, it } = suiteOf(start);

  describe('what the device is', () => {
    test('is a balloon with nothing but the status 0', {}, async ({ machine, run }) => {
      const { transport } = machine;
      const info = await run(() => transport.getDeviceInfo());
      expect(info.deviceId).toBe(5);
      expect(await run(() => transport.getStatus())).toBe(0);
    });

    test('offers VERSION_1 and STATS_VQ whatever else', {}, async ({ machine, run }) => {
      const offered = await run(() => machine.transport.getDeviceFeatures());
      expect(hasFeature(offered, Feature.VERSION_1)).toBe(true);
      expect(hasFeature(offered, BalloonFeature.STATS_VQ)).toBe(true);
      expect(hasFeature(offered, BalloonFeature.MUST_TELL_HOST)).toBe(false);
      for (const [, feature] of FEATURES) expect(hasFeature(offered, feature)).toBe(false);
    });

    for (const [option, feature] of FEATURES) {
      test(`offers ${option} if it is asked to`, { offers: { [option]: true } }, async (bench) => {
        const offered = await bench.run(() => bench.machine.transport.getDeviceFeatures());
        expect(hasFeature(offered, feature)).toBe(true);
      });
    }
  });

  describe('status', () => {
    test('bits add up step by step', { offers: EVERYTHING }, async ({ machine, run }) => {
      const { transport } = machine;
      const seen = await run(function* () {
        yield* transport.reset();
        const statuses: number[] = [];
        for (const status of [ACKNOWLEDGE, ACKNOWLEDGE | DRIVER]) {
          yield* transport.setStatus(status);
          statuses.push(yield* transport.getStatus());
        }
        return statuses;
      });
      expect(seen).toEqual([ACKNOWLEDGE, ACKNOWLEDGE | DRIVER]);
    });

    test('FEATURES_OK is kept for what was offered', { offers: EVERYTHING }, async (bench) => {
      const status = await bench.run(() => bench.puppet.negotiate());
      expect(status).toBe(ACKNOWLEDGE | DRIVER | FEATURES_OK);
    });

    test('FEATURES_OK is kept for any part of it', { offers: EVERYTHING }, async (bench) => {
      for (const bits of [0n, 2n, 8n, 0x20n, 0x2an, 0x3en]) {
        const status = await bench.run(() => bench.puppet.negotiate({ accept: bits }));
        expect(status).toBe(ACKNOWLEDGE | DRIVER | FEATURES_OK);
      }
    });

    test('FEATURES_OK and bits that were not offered', {}, async (bench) => {
      const status = await negotiateRaw(bench, featureMask(Feature.VERSION_1, 5, 57));
      const kept = bench.machine.traits.get('unofferedFeaturesKeepFeaturesOk');
      expect((status & FEATURES_OK) !== 0).toBe(kept);
    });

    test('FEATURES_OK and a driver without VERSION_1', {}, async (bench) => {
      const status = await negotiateRaw(bench, featureMask(BalloonFeature.STATS_VQ));
      const kept = bench.machine.traits.get('missingVersion1KeepsFeaturesOk');
      expect((status & FEATURES_OK) !== 0).toBe(kept);
    });

    it('DRIVER_OK makes the device ready', { offers: EVERYTHING }, async (bench) => {
      expect(await bench.run(() => bench.machine.transport.getStatus())).toBe(READY);
    });
  });

  describe('reset', () => {
    for (const status of [0, ACKNOWLEDGE, ACKNOWLEDGE | DRIVER]) {
      test(`in status ${status} leads to 0`, {}, async ({ machine, run }) => {
        const after = await run(function* () {
          if (status !== 0) yield* machine.transport.setStatus(status);
          yield* machine.transport.reset();
          return yield* machine.transport.getStatus();
        });
        expect(after).toBe(0);
      });
    }

    it('of a ready device disables its queues', {}, async ({ machine, puppet, run }) => {
      const enabled = await run(function* () {
        const before = yield* isEnabled(puppet.indexOf('inflateq'));
        yield* machine.transport.reset();
        return [before, yield* isEnabled(puppet.indexOf('inflateq'))];
      });
      expect(enabled).toEqual([true, false]);
    });

    it('is followed by another life', { offers: EVERYTHING }, async ({ machine, puppet, run }) => {
      const pfn = puppet.pages(0);
      await run(function* () {
        yield* machine.transport.reset();
        yield* puppet.boot();
        yield* puppet.tell('inflateq', [pfn]);
      });
      expect(await machine.contentOf(pfn)).toBe(0);
    });

    it('lets other features be chosen', { offers: EVERYTHING }, async ({ puppet, run }) => {
      const decline: FeatureSet = featureMask(BalloonFeature.FREE_PAGE_HINT);
      await run(() => puppet.boot({ decline }));
      expect(hasFeature(puppet.features, BalloonFeature.FREE_PAGE_HINT)).toBe(false);
      const pfn = puppet.pages(0);
      expect(await run(() => puppet.tell('inflateq', [pfn]))).toBe(0);
    });

    it('gives nothing back of what the device held', {}, async ({ machine, puppet, run }) => {
      const statsq = puppet.queue('statsq');
      await run(() => puppet.send('statsq', { out: [new Uint8Array(10)] }));
      await run(() => machine.transport.reset());
      await machine.settle();
      expect(statsq.getUsed()).toBe(-1);
    });

    it('mends a device that needs it', { offers: EVERYTHING }, async ({ machine, puppet, run }) => {
      const pfn = puppet.pages(0);
      await run(() => puppet.send('free_page_vq', { out: [new Uint8Array(2)] }));
      await machine.settle();
      expect((await run(() => machine.transport.getStatus())) & NEEDS_RESET).toBe(NEEDS_RESET);
      await run(function* () {
        yield* puppet.boot();
        yield* puppet.tell('inflateq', [pfn]);
      });
      expect(await machine.contentOf(pfn)).toBe(0);
    });

    it('stops the queues: a kick after it does nothing', {}, async ({ machine, puppet, run }) => {
      const pfn = puppet.pages(0);
      await run(function* () {
        puppet.add('inflateq', { out: [le32s([pfn])] });
        yield* machine.transport.reset();
      });
      await machine.settle();
      expect(await machine.contentOf(pfn)).toBe(contentWord(pfn));
      expect((await run(() => machine.transport.getStatus())) & DRIVER_OK).toBe(0);
    });
  });
}

async function negotiateRaw(
  { machine, puppet, run }: Bench,
  features: FeatureSet,
): Promise<number> {
  return run(function* () {
    yield* puppet.greet();
    yield* machine.transport.setDriverFeatures(features);
    yield* machine.transport.setStatus(ACKNOWLEDGE | DRIVER | FEATURES_OK);
    return yield* machine.transport.getStatus();
  });
}
