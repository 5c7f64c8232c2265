import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  AvailHeader,
  availRingBytes,
  BALLOON_QUEUES,
  BalloonConfig,
  BalloonFeature,
  balloonConfigBytes,
  bit,
  Desc,
  DeviceStatus,
  descTableBytes,
  Feature,
  featureMask,
  featuresOf,
  featureWords,
  hasFeature,
  isQueueSize,
  MAX_QUEUE_SIZE,
  queueIndices,
  splitRingLayout,
  UsedElem,
  usedRingBytes,
} from '../../../protocol/index.ts';

const { STATS_VQ, FREE_PAGE_HINT, PAGE_POISON, PAGE_REPORTING } = BalloonFeature;

describe('feature and status bits', () => {
  test('have the masks of the specification', () => {
    const masks = Object.values(DeviceStatus).map(bit);
    expect(masks).toEqual([1, 2, 4, 8, 16, 64, 128]);
    expect(bit(31)).toBe(0x8000_0000);
  });

  test('travel as two words', () => {
    const set = featureMask(FREE_PAGE_HINT, 31, Feature.VERSION_1, 63);
    expect(featureWords(set)).toEqual({ low: 0x8000_0008, high: 0x8000_0001 });
    fc.assert(
      fc.property(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), (any) => {
        expect(featuresOf(featureWords(any))).toBe(any);
      }),
    );
    expect(hasFeature(set, 63)).toBe(true);
    expect(hasFeature(set, 62)).toBe(false);
  });
});

describe('split ring layout (2.7)', () => {
  test('has the sizes of the structures', () => {
    expect([Desc.sizeBytes, UsedElem.sizeBytes, AvailHeader.sizeBytes]).toEqual([16, 8, 4]);
    expect(Desc.offsets).toEqual({ addr: 0, len: 8, flags: 12, next: 14 });
    expect([descTableBytes(256), availRingBytes(256), usedRingBytes(256)]).toEqual([
      4096, 518, 2054,
    ]);
  });

  test.each(Array.from({ length: 16 }, (_, shift) => 1 << shift))(
    'aligns the parts of a queue of %i and keeps them apart',
    (size) => {
      const { descOffset, availOffset, usedOffset, sizeBytes } = splitRingLayout(size);
      expect([descOffset, availOffset % 2, usedOffset % 4]).toEqual([0, 0, 0]);
      expect(availOffset).toBeGreaterThanOrEqual(16 * size);
      expect(usedOffset).toBeGreaterThanOrEqual(availOffset + 6 + 2 * size);
      expect(sizeBytes).toBe(usedOffset + 6 + 8 * size);
    },
  );

  test.each([
    { size: 1, allowed: true },
    { size: 128, allowed: true },
    { size: MAX_QUEUE_SIZE, allowed: true },
    { size: 0, allowed: false },
    { size: 3, allowed: false },
    { size: 65536, allowed: false },
    { size: -2, allowed: false },
    { size: 0.5, allowed: false },
    { size: 2 ** 32, allowed: false },
  ])('queue size $size allowed: $allowed', ({ size, allowed }) => {
    expect(isQueueSize(size)).toBe(allowed);
  });
});

describe('balloon queues (5.5.2)', () => {
  test.each([
    { policy: 'spec-fixed', stats: 2, hint: null, reporting: 4 },
    { policy: 'dense-by-offered', stats: 2, hint: null, reporting: 3 },
    { policy: 'dense-by-negotiated', stats: null, hint: null, reporting: 2 },
  ] as const)('$policy, statistics offered but declined', ({ policy, stats, hint, reporting }) => {
    const offered = featureMask(STATS_VQ, PAGE_REPORTING);
    expect(queueIndices(policy, offered, featureMask(PAGE_REPORTING))).toEqual({
      inflateq: 0,
      deflateq: 1,
      statsq: stats,
      free_page_vq: hint,
      reporting_vq: reporting,
    });
  });

  test('are consecutive when dense, of their own number when fixed, for every feature set', () => {
    for (let offered = 0n; offered < 64n; offered++) {
      for (let negotiated = 0n; negotiated < 64n; negotiated++) {
        if ((negotiated & ~offered) !== 0n) continue;
        for (const policy of ['dense-by-offered', 'dense-by-negotiated'] as const) {
          const present = Object.values(queueIndices(policy, offered, negotiated)).filter(
            (index) => index !== null,
          );
          expect(present).toEqual(present.map((_, i) => i));
        }
        const fixed = queueIndices('spec-fixed', offered, negotiated);
        for (const { name, spec, feature } of BALLOON_QUEUES) {
          const exists = feature === undefined || hasFeature(offered, feature);
          expect(fixed[name]).toBe(exists ? spec : null);
        }
      }
    }
  });
});

test('balloon configuration space (5.5.4) ends with the last offered field', () => {
  expect(BalloonConfig.offsets).toEqual({
    num_pages: 0,
    actual: 4,
    free_page_hint_cmd_id: 8,
    poison_val: 12,
  });
  const sizes = [[], [FREE_PAGE_HINT], [PAGE_POISON], [FREE_PAGE_HINT, PAGE_POISON]].map(
    (features) => balloonConfigBytes(featureMask(...features)),
  );
  expect(sizes).toEqual([8, 12, 16, 16]);
});
