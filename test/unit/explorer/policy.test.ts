import { expect, test } from 'vitest';
import { Actor, ActorState } from '../../../explorer/actor.ts';
import { type Policy, policyOf, Replay, RoundRobin, RunToBlock } from '../../../explorer/policy.ts';
import { Prng } from '../../../shared/index.ts';

class Idle extends Actor {
  override get at(): string {
    return '';
  }
  override step(): void {}
}

function actors(count: number): Actor[] {
  return Array.from({ length: count }, (_, id) => {
    const actor = new Idle(`actor ${id}`, true);
    actor.id = id;
    return actor;
  });
}

/** Who runs in so many steps, everybody being ready. */
function picks(policy: Policy, ready: readonly Actor[], steps: number): number[] {
  let current: Actor | null = null;
  return Array.from({ length: steps }, () => {
    current = policy.pick(ready, current);
    return current.id;
  });
}

const seeds = Array.from({ length: 64 }, (_, seed) => seed);

test('the policy of a seed picks the same again, and seeds differ', () => {
  const ready = actors(5);
  const runs = seeds.map((seed) => picks(policyOf(seed, new Prng(seed)), ready, 40).join());
  const again = seeds.map((seed) => picks(policyOf(seed, new Prng(seed)), ready, 40).join());
  expect(again).toEqual(runs);
  // PCT runs one actor alone while all are ready, so some of its runs are equal.
  expect(new Set(runs).size).toBeGreaterThan(40);
});

test('half of the seeds are random walks, half are PCT', () => {
  const names = seeds.map((seed) => policyOf(seed, new Prng(seed)).name);
  expect(names.filter((name) => name.startsWith('random walk'))).toHaveLength(32);
  expect(names.filter((name) => name.startsWith('PCT'))).toHaveLength(32);
});

test('PCT switches only at its change points while everybody is ready', () => {
  for (const seed of [2, 6, 10, 14, 18, 22, 26, 30]) {
    const policy = policyOf(seed, new Prng(seed));
    const depth = Number(/d = (\d)/.exec(policy.name)?.[1]);
    const ids = picks(policy, actors(6), 600);
    const switches = ids.filter((id, i) => i > 0 && id !== ids[i - 1]).length;
    expect(switches).toBeLessThan(depth);
  }
});

test('PCT lets others go first after a sleep', () => {
  const ready = actors(3);
  const policy = policyOf(2, new Prng(2));
  const first = policy.pick(ready, null);
  first.slept = true;
  expect(policy.pick(ready, first)).not.toBe(first);
});

test('run to block stays with an actor until it waits or sleeps', () => {
  const [a, b] = actors(2) as [Actor, Actor];
  const policy = new RunToBlock();
  expect(picks(policy, [a, b], 3)).toEqual([0, 0, 0]);
  a.slept = true;
  expect(policy.pick([a, b], a)).toBe(b);
  a.slept = false;
  a.state = ActorState.WAITING;
  expect(policy.pick([b], a)).toBe(b);
});

test('round robin gives everybody a turn', () => {
  expect(picks(new RoundRobin(), actors(3), 7)).toEqual([0, 1, 2, 0, 1, 2, 0]);
});

test('replay follows its list, leaves out who cannot run, and then runs to block', () => {
  const ready = actors(3).filter((actor) => actor.id !== 1);
  expect(picks(new Replay([2, 1, 0, 2]), ready, 5)).toEqual([2, 0, 2, 2, 2]);
});
