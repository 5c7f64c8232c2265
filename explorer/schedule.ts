/** One schedule from boot to the last audit. The same arguments give the same schedule. */
import type { ExploreScenario, ExploreThread, ExploreViolation } from '../protocol/index.ts';
import type { Plants } from '../shared/index.ts';
import { type Actor, ActorState } from './actor.ts';
import { Invariants } from './invariants.ts';
import { ExploredMachine } from './machine.ts';
import { MigrationActor } from './migration.ts';
import { type Policy, policyOf, RoundRobin, RunToBlock } from './policy.ts';
import type { StepRecorder } from './scheduler.ts';
import {
  balloonMonitor,
  churn,
  compact,
  hintMonitor,
  isolator,
  shrink,
  softOffline,
} from './threads.ts';
import { mappedUser, processUser, tablesUser, zspoolUser } from './users.ts';
import { Violation } from './violation.ts';

const BOOT_STEPS_MAX = 1000;
/** A schedule that is not over by then goes on fairly, and must end soon. */
const STEPS_MAX = 4000;
const FAIR_STEPS_MAX = 8000;
const END_STEPS_MAX = 16_000;

export interface ScheduleOptions {
  readonly scenario: ExploreScenario;
  readonly plants: Plants;
  readonly seed: number;
  /** Default: the policy of the seed. */
  readonly policy?: Policy;
  /** Threads of the scenario, by number, that are left out. */
  readonly without?: ReadonlySet<number>;
  /** Hears of each step and of what it did. */
  readonly recorder?: StepRecorder & { note(text: string): void };
}

export interface ScheduleOutcome {
  readonly violation: ExploreViolation | null;
  readonly policy: string;
  readonly steps: number;
  /** Ids of the actors that ran, a step each. */
  readonly decisions: readonly number[];
}

export function runSchedule(options: ScheduleOptions): ScheduleOutcome {
  const { scenario, plants, seed } = options;
  const machine = new ExploredMachine(scenario, plants, seed);
  const { scheduler } = machine;
  const policy = options.policy ?? policyOf(seed, machine.seed.split('policy'));
  let violation: ExploreViolation | null = null;
  try {
    boot(machine);
    if (options.recorder) {
      const { recorder } = options;
      scheduler.recorder = recorder;
      machine.ghost.sink = (text) => recorder.note(text);
    }
    explore(machine, policy, options.without ?? new Set());
  } catch (error) {
    const { invariant, message } = Violation.of(error);
    violation = { seed, invariant, message };
  }
  return {
    violation,
    policy: policy.name,
    steps: scheduler.stepCount,
    decisions: scheduler.decisions,
  };
}

/** The probe has one way to go, and nobody is there to disturb it. */
function boot(machine: ExploredMachine): void {
  const { scheduler, system } = machine;
  system.driver.start();
  scheduler.run(
    new RunToBlock(),
    () => false,
    BOOT_STEPS_MAX,
    () => {},
  );
  if (system.driver.state !== 'ready') {
    throw new Violation('the driver finds its device', `the probe is ${system.driver.state}`);
  }
  scheduler.stepCount = 0;
  scheduler.current = null;
  scheduler.decisions.length = 0;
}

function explore(machine: ExploredMachine, policy: Policy, without: ReadonlySet<number>): void {
  const { scheduler, scenario } = machine;
  const invariants = new Invariants(machine);
  for (const [number, thread] of scenario.threads.entries()) {
    const actor = actorOf(machine, thread, number);
    scheduler.addForeground(actor);
    // Left out, it keeps its id and its draws, so that the others are as they were.
    if (!without.has(number)) continue;
    scheduler.retire(actor);
  }
  machine.failsAllocations = true;
  const check = (): void => {
    const { current } = scheduler;
    invariants.check(current, current?.state === ActorState.DONE);
  };
  const finished = (): boolean => scheduler.allFinished;
  scheduler.run(policy, finished, STEPS_MAX, check);
  if (!finished()) scheduler.run(new RoundRobin(), finished, FAIR_STEPS_MAX, check);
  if (!finished()) throw stuck(machine, FAIR_STEPS_MAX);
  end(machine, check);
  invariants.checkEnd();
}

/** The balloon is emptied and hinting is over; then everything is as it was at boot. */
function end(machine: ExploredMachine, check: () => void): void {
  const { scheduler, system, device } = machine;
  machine.failsAllocations = false;
  for (const giveUp of machine.atEnd) giveUp();
  device.setTarget(0);
  device.hintStop();
  device.hintDone();
  const settled = (): boolean =>
    machine.isQuiet &&
    system.driver.numPages === 0 &&
    device.actualPages === 0 &&
    (system.strategy?.heldPages ?? 0) === 0 &&
    !scheduler.actors.some((actor) => actor.state === ActorState.READY);
  scheduler.run(new RunToBlock(), settled, END_STEPS_MAX, check);
  if (!settled()) throw stuck(machine, END_STEPS_MAX);
}

function stuck({ scheduler }: ExploredMachine, stepsMax: number): Violation {
  const waiters = scheduler.describeWaiters();
  return scheduler.stepCount < stepsMax
    ? new Violation('no thread waits for ever', waiters)
    : new Violation('every thread comes to an end', waiters);
}

function actorOf(machine: ExploredMachine, thread: ExploreThread, number: number): Actor {
  const name = nameOf(machine, thread, number);
  switch (thread.kind) {
    case 'inflate':
    case 'deflate':
      return machine.newMonitor(name, balloonMonitor(machine, thread));
    case 'hint':
      return machine.newMonitor(name, hintMonitor(machine, thread));
    case 'migrate':
      return new MigrationActor(machine, thread);
    case 'churn':
      return machine.newThread(name, churn(machine, thread));
    case 'shrink':
      return machine.newThread(name, shrink(machine, thread));
    case 'compact':
      return machine.newThread(name, compact(machine, thread));
    case 'zspool':
      return machine.newThread(name, zspoolUser(machine, thread, name));
    case 'mapped_driver':
      return machine.newThread(name, mappedUser(machine, thread, name));
    case 'page_tables':
      return machine.newThread(name, tablesUser(machine, thread));
    case 'soft_offline':
      return machine.newThread(name, softOffline(machine, thread));
    case 'isolate':
      return machine.newThread(name, isolator(machine, thread, name));
    case 'process':
      return machine.newThread(name, processUser(machine, thread, name));
  }
}

/** Several threads of a kind are told apart by a number. */
function nameOf({ scenario }: ExploredMachine, { kind }: ExploreThread, number: number): string {
  const same = scenario.threads.filter((thread) => thread.kind === kind);
  if (same.length === 1) return kind;
  const nth = scenario.threads.slice(0, number).filter((thread) => thread.kind === kind).length;
  return `${kind} ${nth + 1}`;
}
