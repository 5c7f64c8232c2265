import { describe, expect, test } from 'vitest';
import { Convergence, giveUpAfterNs } from '../../../../host/migration/convergence.ts';
import { Throttle } from '../../../../host/throttle.ts';
import {
  type ConvergencePolicy,
  DEFAULT_DIRTY_LOG,
  type Message,
  type MigrateParams,
} from '../../../../protocol/index.ts';
import { MIB, NS_PER_MS, NS_PER_S } from '../../../../shared/index.ts';

const PARAMS: MigrateParams = {
  bandwidthBytesPerS: 30 * MIB,
  downtimeLimitMs: 50,
  ...DEFAULT_DIRTY_LOG,
};

/** What happened at each sync, one every two seconds, of a guest that dirties this share of what is sent. */
function played(policy: ConvergencePolicy, syncs: number, share: number): string[] {
  const done: string[] = [];
  let sync = 0;
  const convergence = new Convergence(
    { ...PARAMS, policy, vcpuDirtyLimitBytesPerS: 5 * MIB },
    {
      throttle: (percentage) => done.push(`${sync}: ${percentage} %`),
      post: (message: Message) =>
        message.name === 'limitDirtyRate' && done.push(`${sync}: ${message.pages_per_s} pages/s`),
    },
    (ms) => done.push(`${sync}: ${ms} ms`),
  );
  const passBytes = 60 * MIB;
  for (sync = 1; sync <= syncs; sync++) {
    // Everything is dirty at the first one.
    const dirtied = sync === 1 ? 65_536 : Math.round((passBytes * share) / 4096);
    convergence.synced(2 * sync * NS_PER_S, dirtied, (sync - 1) * passBytes);
  }
  convergence.stop();
  return done;
}

describe('what is done about a guest that writes too fast', () => {
  test('auto-converge throttles at every second sync, by ten more each time, up to 99 %', () => {
    const steps = [20, 30, 40, 50, 60, 70, 80, 90, 99, 99].map((p, i) => `${3 + 2 * i}: ${p} %`);
    expect(played('auto-converge', 22, 1)).toEqual([...steps, '23: 0 %', '23: 0 pages/s']);
  });

  test.each([
    ['dirty-limit', ['3: 1280 pages/s', '5: 1280 pages/s', '6: 0 %', '6: 0 pages/s']],
    ['downtime-ramp', ['3: 100 ms', '5: 150 ms']],
    ['default', []],
  ] as const)('%s', (policy, done) => {
    expect(played(policy, 5, 1)).toEqual(done);
  });

  test('nothing, when half of what was sent became dirty again', () => {
    expect(played('auto-converge', 22, 0.5)).toEqual([]);
  });

  test('the downtime limit grows tenfold at most', () => {
    expect(played('downtime-ramp', 60, 1).at(-1)).toMatch(/: 500 ms$/);
  });

  test('a monitor gives up after ten minutes, or three times the memory', () => {
    expect(giveUpAfterNs(256 * MIB, PARAMS)).toBe(600 * NS_PER_S);
    expect(giveUpAfterNs(30 * MIB * 1000, PARAMS)).toBe(3000 * NS_PER_S);
  });
});

test.each([
  [20, 12.5],
  [50, 20],
  [99, 1000],
])('a vCPU throttled by %d percent runs for 10 ms of %d', (percentage, periodMs) => {
  const posted: number[] = [];
  const due: { delayNs: number; action: () => void }[] = [];
  let now = 0;
  const throttle = new Throttle({
    now: () => now,
    post: (message) => posted.push(message.name === 'steal' ? message.until_ns : -1),
    after: (delayNs, action) => due.push({ delayNs, action }),
  });
  throttle.set(percentage);
  for (let i = 0; i < 3; i++) {
    const { delayNs, action } = due.shift()!;
    expect(delayNs).toBeCloseTo(periodMs * NS_PER_MS, -1);
    now += delayNs;
    action();
  }
  expect(posted).toHaveLength(4);
  expect(posted[1]! - posted[0]!).toBeCloseTo(periodMs * NS_PER_MS, -1);
  expect(posted[0]).toBeCloseTo((periodMs - 10) * NS_PER_MS, -1);
  throttle.set(0);
  due.shift()!.action();
  expect(due).toEqual([]);
  expect(posted).toHaveLength(4);
});
