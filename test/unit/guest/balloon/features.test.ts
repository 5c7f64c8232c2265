import { describe, expect, test } from 'vitest';
import { DRIVER_BEHAVIOURS } from '../../../../guest/balloon/behaviour.ts';
import type { BalloonDriverOptions } from '../../../../guest/balloon/driver-options.ts';
import { chooseFeatures } from '../../../../guest/balloon/features.ts';
import { RING_FEATURES } from '../../../../guest/virtio/ring-features.ts';
import {
  BalloonFeature as B,
  DRIVER_FEATURE_NAMES,
  Feature,
  featureMask,
  featuresByName,
} from '../../../../protocol/index.ts';
import { IDLE_STRATEGY } from '../../../support/driver-harness.ts';

const EVERYTHING = (1n << 64n) - 1n;
const VERSION_1 = featureMask(Feature.VERSION_1);
const { linux, windows, freebsd } = DRIVER_BEHAVIOURS;

type Options = Omit<BalloonDriverOptions, 'transport'>;

function options(changed: Partial<Options> = {}, freedContent: 'zero' | 'poison' | null = null) {
  return {
    strategy: IDLE_STRATEGY,
    statistics: () => [],
    reporting: {},
    memory: { freedContent },
    ...changed,
  } as unknown as Options;
}

const waiting = { ...IDLE_STRATEGY, waitsOnAck: true };
const ALL_OF_LINUX = linux.features & ~featureMask(B.HINT_WAIT_ON_ACK, B.PAGE_POISON);

describe('of everything that there could be', () => {
  const cases = [
    { id: 'linux', behaviour: linux, given: options(), accepted: ALL_OF_LINUX },
    {
      id: 'linux that fills freed pages',
      behaviour: linux,
      given: options({}, 'zero'),
      accepted: ALL_OF_LINUX | featureMask(B.PAGE_POISON),
    },
    {
      id: 'linux with a strategy that waits',
      behaviour: linux,
      given: options({ strategy: waiting }),
      accepted: ALL_OF_LINUX | featureMask(B.HINT_WAIT_ON_ACK),
    },
    {
      id: 'linux without hints',
      behaviour: linux,
      given: options({ strategy: null }),
      accepted: ALL_OF_LINUX & ~featureMask(B.FREE_PAGE_HINT),
    },
    {
      id: 'linux that may take one',
      behaviour: linux,
      given: options({ features: featureMask(B.STATS_VQ) }),
      accepted: VERSION_1 | featureMask(B.STATS_VQ),
    },
    {
      id: 'windows',
      behaviour: windows,
      given: options({}, 'zero'),
      accepted: VERSION_1 | featureMask(B.STATS_VQ),
    },
    {
      id: 'freebsd',
      behaviour: freebsd,
      given: options(),
      accepted: VERSION_1 | featureMask(B.MUST_TELL_HOST),
    },
  ];

  // spec: 2.2.1-driver-4, 2.2.1-driver-5, 5.5.3.1-driver-1, 5.5.3.1-driver-2, 6.1-driver-4
  test.each(cases)('$id accepts what it knows and no more', ({ behaviour, given, accepted }) => {
    const chosen = chooseFeatures(EVERYTHING, behaviour, given);
    expect(chosen).toBe(accepted);
    expect(chosen & featureMask(Feature.ACCESS_PLATFORM)).toBe(0n);
  });

  // spec: 2.2.1-driver-1
  test.each(cases)('$id accepts nothing that was not offered', ({ behaviour, given }) => {
    for (let bit = 0; bit < 42; bit++) {
      const offered = VERSION_1 | (1n << BigInt(bit));
      expect(chooseFeatures(offered, behaviour, given) & ~offered).toBe(0n);
    }
  });
});

describe('reporting', () => {
  const cases = [
    { freed: null, poisonOffered: false, accepts: true },
    { freed: null, poisonOffered: true, accepts: true },
    { freed: 'zero', poisonOffered: false, accepts: false },
    { freed: 'zero', poisonOffered: true, accepts: true },
    { freed: 'poison', poisonOffered: false, accepts: false },
    { freed: 'poison', poisonOffered: true, accepts: true },
  ] as const;

  // spec: 5.5.3.1-driver-3
  test.each(cases)(
    'freed pages hold $freed, PAGE_POISON offered $poisonOffered: $accepts',
    (one) => {
      const reporting = featureMask(B.PAGE_REPORTING);
      const offered = VERSION_1 | reporting | (one.poisonOffered ? featureMask(B.PAGE_POISON) : 0n);
      const chosen = chooseFeatures(offered, linux, options({}, one.freed));
      expect((chosen & reporting) !== 0n).toBe(one.accepts);
    },
  );

  test('a declined PAGE_POISON counts as one that is not offered', () => {
    const features = linux.features & ~featuresByName(['page_poison']);
    const chosen = chooseFeatures(EVERYTHING, linux, options({ features }, 'zero'));
    expect(chosen & featureMask(B.PAGE_REPORTING, B.PAGE_POISON)).toBe(0n);
  });
});

// spec: 6.1-driver-4
test('Linux accepts packed rings wherever they are offered', () => {
  const packed = featureMask(Feature.RING_PACKED);
  expect(chooseFeatures(VERSION_1 | packed, linux, options())).toBe(VERSION_1 | packed);
});

// spec: 2.2.1-driver-2
test('HINT_WAIT_ON_ACK comes with FREE_PAGE_HINT or not at all', () => {
  const offered = VERSION_1 | featureMask(B.HINT_WAIT_ON_ACK);
  expect(chooseFeatures(offered, linux, options({ strategy: waiting }))).toBe(VERSION_1);
});

// spec: 2.2.1-driver-6
test('what the kernel cannot serve is declined', () => {
  const { statistics: _s, reporting: _r, ...bare } = options();
  const chosen = chooseFeatures(EVERYTHING, linux, bare);
  expect(chosen & featureMask(B.STATS_VQ, B.PAGE_REPORTING)).toBe(0n);
});

describe('names of features', () => {
  test('are the specification’s in lower case, and VERSION_1 is not for choice', () => {
    expect(DRIVER_FEATURE_NAMES).toContain('must_tell_host');
    expect(DRIVER_FEATURE_NAMES).toContain('ring_packed');
    expect(DRIVER_FEATURE_NAMES).not.toContain('version_1');
  });

  test('cover everything that Linux accepts', () => {
    expect(featuresByName(DRIVER_FEATURE_NAMES) & linux.features).toBe(linux.features & ~VERSION_1);
    expect(featuresByName(['no_such_feature'])).toBe(0n);
    expect(linux.features & RING_FEATURES).toBe(RING_FEATURES);
  });
});
