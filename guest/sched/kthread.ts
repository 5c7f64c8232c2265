/**
 * Kernel threads are generators: they run until they ask for something that takes virtual time, or
 * pass a point at which another thread may run first. Plain code between two requests is atomic.
 */
import type { Message } from '../../protocol/index.ts';
import type { Nanoseconds } from '../../shared/index.ts';

export type KthreadRequest =
  /** Uninterrupted CPU time on the thread's vCPU: whoever else wants that vCPU waits. */
  | { readonly kind: 'cpu'; readonly ns: Nanoseconds }
  | { readonly kind: 'sleep'; readonly ns: Nanoseconds }
  | { readonly kind: 'wait'; readonly queue: WaitQueue }
  /** As `wait`, but the thread keeps its vCPU busy: a spin lock. */
  | { readonly kind: 'spin'; readonly queue: WaitQueue }
  /** Another vCPU may get ahead here. Takes no time: only an explorer of schedules stops at it. */
  | { readonly kind: 'preempt'; readonly at: string }
  /** A device access that exits to the host; resumes with the host's answer. */
  | { readonly kind: 'access'; readonly message: Message };

export type Kthread<T = void> = Generator<KthreadRequest, T, Message | undefined>;

/** A preemption point; make it once, outside of loops. `at` names it in traces of schedules. */
export function preempt(at: string): KthreadRequest {
  return { kind: 'preempt', at };
}

/** Threads that wait for a condition; the waker makes it true first, the waiter checks it again. */
export class WaitQueue {
  #waiters: (() => void)[] = [];

  get isEmpty(): boolean {
    return this.#waiters.length === 0;
  }

  add(resume: () => void): void {
    this.#waiters.push(resume);
  }

  wake(): void {
    if (this.#waiters.length === 0) return;
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const resume of waiters) resume();
  }
}
