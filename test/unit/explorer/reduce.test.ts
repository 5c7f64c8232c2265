import { expect, test } from 'vitest';
import { serve } from '../../../explorer/explore.ts';
import type { ExploreReply } from '../../../protocol/index.ts';
import type { PlantName } from '../../../shared/index.ts';
import { exploreScenario } from '../../support/explore-scenario.ts';

const NEVER_LATE = () => 0;

function reduced(name: string, plant: PlantName): Extract<ExploreReply, { kind: 'reduced' }> {
  const scenario = exploreScenario(name);
  const found = serve({ kind: 'explore', scenario, plant, first: 0, count: 500 }, NEVER_LATE);
  const seed = found.kind === 'explored' ? found.violation?.seed : undefined;
  expect(seed).toBeDefined();
  const request = { kind: 'reduce', scenario, plant, seed: seed!, limitMs: 1 } as const;
  const reply = serve(request, NEVER_LATE);
  if (reply.kind !== 'reduced') throw new Error('a reduction is answered with one');
  return reply;
}

test.each([
  ['hinting', 'late-hint-accepted'],
  ['isolate', 'leak-on-enomem'],
  ['zspool', 'isolate-without-page-lock'],
] as const)('a violation of %s is reduced to fewer steps and switches', (name, plant) => {
  const { found, reduced: shorter, trace } = reduced(name, plant);
  expect(shorter.steps).toBe(trace.length);
  expect(shorter.steps).toBeLessThanOrEqual(found.steps);
  expect(shorter.switches).toBeLessThan(found.switches);
  expect(trace.map((step) => step.number)).toEqual(trace.map((_, i) => i + 1));
});

test('threads that the violation does not need are left out', () => {
  const { without, trace, violation } = reduced('zspool', 'isolate-without-page-lock');
  expect(without).toContain('zspool');
  expect(violation.invariant).toBe('a page has at most one isolator');
  const isolations = trace.filter(({ notes }) => notes.some((note) => note.startsWith('isolate ')));
  expect(new Set(isolations.map((step) => step.actor))).toEqual(
    new Set(['isolate 1', 'isolate 2']),
  );
});

test('a reduction that is out of time gives what it has', () => {
  const scenario = exploreScenario('hinting');
  let nowMs = 0;
  const clock = () => {
    nowMs += 1000;
    return nowMs;
  };
  const plant = 'late-hint-accepted';
  const explored = serve({ kind: 'explore', scenario, plant, first: 0, count: 100 }, clock);
  const seed = explored.kind === 'explored' ? explored.violation!.seed : -1;
  const reply = serve({ kind: 'reduce', scenario, plant, seed, limitMs: 5000 }, clock);
  expect(reply).toMatchObject({ kind: 'reduced', violation: { seed } });
});
