/**
 * What can run next in an explored machine: a kernel thread, the device's hand on a queue, an
 * interrupt, the migration thread, a command of the monitor. One step of an actor is atomic.
 */
import type { Kthread, KthreadRequest } from '../guest/sched/kthread.ts';
import type { Message } from '../protocol/index.ts';
import type { Nanoseconds } from '../shared/index.ts';

export const ActorState = { READY: 0, WAITING: 1, DONE: 2 } as const;
export type ActorState = (typeof ActorState)[keyof typeof ActorState];

export abstract class Actor {
  readonly name: string;
  /** vCPUs and the device stand still while the machine is stopped. */
  readonly stopsWithMachine: boolean;
  /** Place among the actors; the scheduler gives it. */
  id = -1;
  state: ActorState = ActorState.READY;
  /** A schedule is not over before it is done. */
  mustFinish = false;
  /** The next step happens at this time or later. */
  dueNs: Nanoseconds = 0;
  /** A fault: no step before this one of the schedule, unless nothing else can run. */
  notBeforeStep = 0;
  /** Its last request was a sleep: a fair policy lets others go first. */
  slept = false;

  constructor(name: string, stopsWithMachine: boolean) {
    this.name = name;
    this.stopsWithMachine = stopsWithMachine;
  }

  /** Where it stands, for traces. */
  abstract get at(): string;
  abstract step(now: Nanoseconds): void;
}

/** A kernel thread; or somebody at the monitor, in the same words. */
export class ThreadActor extends Actor {
  readonly #thread: Kthread;
  readonly #access: (message: Message) => Message;
  readonly #now: () => Nanoseconds;
  #last: KthreadRequest | null = null;
  /** The point that it passed just before it began to wait: the lock that it waits for. */
  #point = '';

  constructor(
    name: string,
    thread: Kthread,
    access: (message: Message) => Message,
    now: () => Nanoseconds,
    stopsWithMachine = true,
  ) {
    super(name, stopsWithMachine);
    this.#thread = thread;
    this.#access = access;
    this.#now = now;
  }

  override get at(): string {
    if (this.state === ActorState.DONE) return 'ends';
    const last = this.#last;
    if (last === null) return 'has not run yet';
    const point = this.#point === '' ? '' : ` (${this.#point})`;
    switch (last.kind) {
      case 'preempt':
        return last.at;
      case 'wait':
        return `waits${point}`;
      case 'spin':
        return `spins${point}`;
      case 'sleep':
        return 'sleeps';
      default:
        return 'runs';
    }
  }

  override step(now: Nanoseconds): void {
    let step = this.#thread.next();
    // The device answers at once; no other thread can tell when.
    while (!step.done && step.value.kind === 'access') {
      step = this.#thread.next(this.#access(step.value.message));
    }
    this.slept = false;
    if (step.done) {
      this.state = ActorState.DONE;
      return;
    }
    this.#request(step.value, now);
  }

  #request(request: KthreadRequest, now: Nanoseconds): void {
    this.#last = request;
    if (request.kind === 'cpu' || request.kind === 'sleep') this.#point = '';
    switch (request.kind) {
      case 'preempt':
        this.#point = request.at;
        this.dueNs = now;
        return;
      case 'cpu':
        this.dueNs = now + Math.round(request.ns);
        return;
      case 'sleep':
        this.dueNs = now + Math.round(request.ns);
        this.slept = true;
        return;
      case 'wait':
      case 'spin':
        this.state = ActorState.WAITING;
        request.queue.add(() => {
          this.state = ActorState.READY;
          this.dueNs = this.#now();
        });
        return;
      case 'access':
        return;
    }
  }
}

/** Does one thing for each item that is queued for it, in order: an interrupt line, a device's queue. */
export class QueueActor<T> extends Actor {
  readonly #items: { readonly item: T; readonly dueNs: Nanoseconds }[] = [];
  readonly #handle: (item: T) => void;
  readonly #what: string;

  constructor(name: string, what: string, handle: (item: T) => void) {
    super(name, true);
    this.#handle = handle;
    this.#what = what;
    this.state = ActorState.WAITING;
  }

  get length(): number {
    return this.#items.length;
  }

  override get at(): string {
    return this.#items.length > 0 ? `${this.#what} pending` : '';
  }

  push(item: T, dueNs: Nanoseconds): void {
    if (this.#items.length === 0) this.dueNs = dueNs;
    this.#items.push({ item, dueNs });
    this.state = ActorState.READY;
  }

  override step(): void {
    const { item } = this.#items.shift()!;
    const next = this.#items[0];
    if (next) this.dueNs = next.dueNs;
    else this.state = ActorState.WAITING;
    this.#handle(item);
  }
}
