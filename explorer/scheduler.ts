/**
 * Drives kernel threads, device, migration and monitor one step at a time, in an order that a policy
 * picks. Virtual time follows the order and never decides it: whoever is ready may be next, sleepers
 * included, so each schedule is one that some timing could give.
 */
import type { KernelScheduler } from '../guest/machine/system.ts';
import { type Kthread, type KthreadRequest, WaitQueue } from '../guest/sched/kthread.ts';
import type { Message } from '../protocol/index.ts';
import { assert, type Nanoseconds } from '../shared/index.ts';
import { type Actor, ActorState, ThreadActor } from './actor.ts';
import type { Policy } from './policy.ts';
import { Violation } from './violation.ts';

/** What a step did, for who prints schedules. */
export interface StepRecorder {
  stepped(actor: Actor): void;
}

export class ExplorerScheduler implements KernelScheduler {
  now: Nanoseconds = 0;
  /** Steps since the machine has booted. */
  stepCount = 0;
  /** False: vCPUs and device are stopped. */
  machineRuns = true;
  current: Actor | null = null;
  recorder: StepRecorder | null = null;
  /** Called at each queue notification, within the step that kicks. */
  onNotify: () => void = () => {};
  /** Answers a device access. */
  onAccess: (message: Message) => Message = () => {
    assert(false, 'a device is there');
  };
  /** Ids of the actors that ran, a step each. */
  readonly decisions: number[] = [];
  readonly actors: Actor[] = [];
  #unfinished = 0;
  /** What threads of the scenario wait for: a state of the machine, not an event. */
  #conditions: { readonly holds: () => boolean; readonly queue: WaitQueue }[] = [];
  readonly #ready: Actor[] = [];
  readonly #clock = () => this.now;

  spawn(body: () => Kthread, _cpu: number, name: string): void {
    this.add(new ThreadActor(name, body(), this.onAccess, this.#clock));
  }

  add<A extends Actor>(actor: A): A {
    actor.id = this.actors.length;
    actor.dueNs = Math.max(actor.dueNs, this.now);
    this.actors.push(actor);
    return actor;
  }

  /** A thread of the scenario. */
  addForeground<A extends Actor>(actor: A): A {
    actor.mustFinish = true;
    this.#unfinished++;
    return this.add(actor);
  }

  /** A thread of the scenario that is not to run. */
  retire(actor: Actor): void {
    actor.state = ActorState.DONE;
    this.#unfinished--;
  }

  notify(): void {
    this.onNotify();
  }

  get allFinished(): boolean {
    return this.#unfinished === 0;
  }

  /** A request to wait until that is so; or until nothing else can run, so that nobody hangs on it. */
  until(holds: () => boolean): KthreadRequest {
    const queue = new WaitQueue();
    this.#conditions.push({ holds, queue });
    return { kind: 'wait', queue };
  }

  /** Steps until `until` holds; false: nothing can run any more, or `stepsMax` is reached. */
  run(policy: Policy, until: () => boolean, stepsMax: number, afterStep: () => void): boolean {
    while (!until()) {
      if (this.stepCount >= stepsMax) return false;
      const ready = this.#collectReady();
      if (ready.length === 0) return false;
      this.#step(policy.pick(ready, this.current));
      afterStep();
    }
    return true;
  }

  /** Nobody can run although somebody must: who waits for what. */
  describeWaiters(): string {
    const waiting = this.actors.filter(
      (actor) => actor.state !== ActorState.DONE && (actor.mustFinish || actor.at !== ''),
    );
    return waiting.map((actor) => `${actor.name}: ${actor.at}`).join('; ');
  }

  #collectReady(): readonly Actor[] {
    if (this.#conditions.length > 0) this.#wakeWhere((condition) => condition.holds());
    const ready = this.#ready;
    const { actors, machineRuns, stepCount } = this;
    ready.length = 0;
    let isDelayed = false;
    for (let i = 0; i < actors.length; i++) {
      const actor = actors[i]!;
      if (actor.state !== ActorState.READY || (actor.stopsWithMachine && !machineRuns)) continue;
      if (actor.notBeforeStep > stepCount) isDelayed = true;
      else ready.push(actor);
    }
    if (ready.length > 0) return ready;
    // Nothing else is left to do: what was delayed happens now; who waits for better times gives up.
    if (isDelayed) for (const actor of actors) actor.notBeforeStep = 0;
    else if (this.#conditions.length > 0) this.#wakeWhere(() => true);
    else return ready;
    return this.#collectReady();
  }

  #wakeWhere(isMet: (condition: { holds(): boolean }) => boolean): void {
    const met = this.#conditions.filter(isMet);
    if (met.length === 0) return;
    this.#conditions = this.#conditions.filter((condition) => !met.includes(condition));
    for (const { queue } of met) queue.wake();
  }

  #step(actor: Actor): void {
    this.stepCount++;
    this.now = Math.max(this.now, actor.dueNs);
    this.current = actor;
    this.decisions.push(actor.id);
    try {
      actor.step(this.now);
    } catch (error) {
      this.recorder?.stepped(actor);
      throw Violation.of(error);
    }
    if (actor.state === ActorState.DONE && actor.mustFinish) this.#unfinished--;
    this.recorder?.stepped(actor);
  }
}
