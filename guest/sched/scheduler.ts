/**
 * The vCPUs: kernel threads, a workload, and the virtual time they share. A thread's CPU time is
 * uninterrupted (a stock kernel without preemption); the workload runs where a vCPU is idle.
 */
import type { Message } from '../../protocol/index.ts';
import { assert, EventQueue, type Nanoseconds } from '../../shared/index.ts';
import type { Kthread, KthreadRequest } from './kthread.ts';

/** What user space does: a stream of memory events in time order. */
export interface Workload {
  /** When its next event happens if a vCPU is free from `freeAt` on; Infinity when it is over. */
  nextAt(freeAt: Nanoseconds): Nanoseconds;
  /** Do every event that happens by `until`; returns the time of the last one. */
  advance(freeAt: Nanoseconds, until: Nanoseconds): Nanoseconds;
}

/** Why the vCPUs stopped. */
export type StopReason =
  | { readonly kind: 'until' }
  | { readonly kind: 'notify' }
  | { readonly kind: 'access'; readonly message: Message };

export class Scheduler {
  now: Nanoseconds = 0;
  /** CPU time of all kernel threads so far. */
  kthreadCpuNs = 0;
  /** After a run: nothing is due before this time unless somebody outside wakes it. */
  idleUntil: Nanoseconds = 0;
  readonly #events = new EventQueue<() => void>();
  readonly #busyUntil: Float64Array;
  #workload: Workload | null = null;
  #pendingAccess: { message: Message; resume: (reply: Message) => void } | null = null;
  #limit: Nanoseconds = 0;
  #notified = false;
  #notifyNs: Nanoseconds = 0;

  constructor(vcpuCount: number) {
    assert(vcpuCount >= 1, 'a machine has at least one vCPU');
    this.#busyUntil = new Float64Array(vcpuCount);
  }

  /** No vCPU runs before that time, except for what it is doing now. */
  steal(untilNs: Nanoseconds): void {
    for (const [cpu, busyNs] of this.#busyUntil.entries()) {
      this.#busyUntil[cpu] = Math.max(busyNs, untilNs);
    }
  }

  setWorkload(workload: Workload | null): void {
    this.#workload = workload;
  }

  /** Starts a thread now; its CPU time is that of vCPU `cpu`. */
  spawn(body: () => Kthread, cpu = 0): void {
    assert(cpu >= 0 && cpu < this.#busyUntil.length, 'a thread runs on a vCPU that there is');
    const thread = body();
    this.#events.schedule(this.now, () => this.#step(thread, cpu, undefined));
  }

  /** The grant shortens: the host handles the notification `notifyNs` from now. */
  notify(): void {
    this.#notified = true;
    this.#limit = Math.min(this.#limit, this.now + this.#notifyNs);
  }

  /** True while a thread waits for the answer to its device access. */
  get accessPending(): boolean {
    return this.#pendingAccess !== null;
  }

  completeAccess(reply: Message): void {
    const pending = this.#pendingAccess;
    assert(pending !== null, 'a device access is pending');
    this.#pendingAccess = null;
    pending.resume(reply);
  }

  /** Run until that time, a notification plus its latency, or a device access. */
  run(untilNs: Nanoseconds, notifyNs: Nanoseconds): StopReason {
    assert(!this.accessPending, 'a vCPU that waits for the host does not run');
    this.#limit = Math.max(untilNs, this.now);
    this.#notifyNs = notifyNs;
    this.#notified = false;
    for (;;) {
      const eventAt = this.#events.nextAt;
      const freeAt = this.#idleFrom();
      const workAt = this.#workload?.nextAt(freeAt) ?? Number.POSITIVE_INFINITY;
      this.idleUntil = Math.min(eventAt, workAt, Number.MAX_SAFE_INTEGER);
      if (this.idleUntil > this.#limit) break;
      if (eventAt <= workAt) {
        this.now = Math.max(this.now, eventAt);
        this.#events.take()!.value();
        const access = this.#pendingAccess as { message: Message } | null;
        if (access) this.idleUntil = this.now;
        if (access) return { kind: 'access', message: access.message };
      } else {
        this.now = this.#workload!.advance(freeAt, Math.min(eventAt, this.#limit));
      }
    }
    this.now = this.#limit;
    return { kind: this.#notified ? 'notify' : 'until' };
  }

  /** When a vCPU is next free for the workload: the scheduler moves it away from a busy one. */
  #idleFrom(): Nanoseconds {
    let free = Number.POSITIVE_INFINITY;
    for (const busy of this.#busyUntil) free = Math.min(free, busy);
    return Math.max(free, this.now);
  }

  #step(thread: Kthread, cpu: number, input: Message | undefined): void {
    let { value, done } = thread.next(input);
    // The schedule follows the cost table: what takes no time is passed at once.
    while (!done && value!.kind === 'preempt') ({ value, done } = thread.next());
    if (done) return;
    const request = value as KthreadRequest;
    const resume = (): void => this.#step(thread, cpu, undefined);
    switch (request.kind) {
      case 'cpu':
        this.#events.schedule(this.#occupy(cpu, Math.round(request.ns)), resume);
        return;
      case 'sleep':
        this.#events.schedule(this.now + Math.round(request.ns), resume);
        return;
      case 'wait':
        request.queue.add(() => this.#events.schedule(this.now, resume));
        return;
      case 'spin': {
        const startNs = this.now;
        request.queue.add(() => {
          this.kthreadCpuNs += this.now - startNs;
          this.#busyUntil[cpu] = Math.max(this.now, this.#busyUntil[cpu]!);
          this.#events.schedule(this.now, resume);
        });
        return;
      }
      case 'access':
        assert(this.#pendingAccess === null, 'one device access at a time');
        this.#pendingAccess = {
          message: request.message,
          resume: (reply) => this.#events.schedule(this.now, () => this.#step(thread, cpu, reply)),
        };
        return;
    }
  }

  /** Takes the vCPU for so long, after whoever has it; returns when that is over. */
  #occupy(cpu: number, ns: Nanoseconds): Nanoseconds {
    const end = Math.max(this.now, this.#busyUntil[cpu]!) + ns;
    this.#busyUntil[cpu] = end;
    this.kthreadCpuNs += ns;
    return end;
  }
}
