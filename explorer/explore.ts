/** What a worker does with what it is told. */
import type { ExploreReply, ExploreRequest } from '../protocol/index.ts';
import { assert, plantsOf } from '../shared/index.ts';
import { reduce } from './reduce.ts';
import { runSchedule } from './schedule.ts';
import { countSwitches, Trace } from './trace.ts';

type RequestOf<K extends ExploreRequest['kind']> = Extract<ExploreRequest, { kind: K }>;

/** `nowMs`: wall clock, which bounds a reduction. */
export function serve(request: ExploreRequest, nowMs: () => number): ExploreReply {
  return request.kind === 'explore' ? exploreSeeds(request) : reduceSeed(request, nowMs);
}

function exploreSeeds({ scenario, plant, first, count }: RequestOf<'explore'>): ExploreReply {
  const plants = plantsOf(plant);
  let steps = 0;
  for (let i = 0; i < count; i++) {
    const outcome = runSchedule({ scenario, plants, seed: first + i });
    steps += outcome.steps;
    if (outcome.violation === null) continue;
    return { kind: 'explored', schedules: i + 1, steps, violation: outcome.violation };
  }
  return { kind: 'explored', schedules: count, steps, violation: null };
}

function reduceSeed(request: RequestOf<'reduce'>, nowMs: () => number): ExploreReply {
  const { scenario, plant, seed, limitMs } = request;
  const plants = plantsOf(plant);
  const recorder = new Trace();
  const { violation, policy, decisions } = runSchedule({ scenario, plants, seed, recorder });
  assert(violation !== null, 'what is reduced violates something');
  const { invariant } = violation;
  const untilMs = nowMs() + limitMs;
  const isLate = (): boolean => nowMs() > untilMs;
  const reduced = reduce({ scenario, plants, seed, invariant, decisions, isLate });
  return {
    kind: 'reduced',
    violation: { ...violation, message: reduced.message },
    policy,
    found: lengthOf(recorder.steps),
    reduced: lengthOf(reduced.steps),
    without: [...reduced.without].map((number) => scenario.threads[number]!.kind),
    trace: reduced.steps,
  };
}

function lengthOf(steps: Trace['steps'] | readonly { actor: string }[]) {
  return { steps: steps.length, switches: countSwitches(steps) };
}
