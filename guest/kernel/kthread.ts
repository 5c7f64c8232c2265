/**
 * Kernel threads are generators: they run until they ask for something that takes virtual time.
 * Plain code between two requests is atomic.
 */
import type { Message } from '../../protocol/index.ts';
import type { Nanoseconds } from '../../shared/index.ts';

export type KthreadRequest =
  /** Uninterrupted CPU time on the thread's vCPU: whoever else wants that vCPU waits. */
  | { readonly kind: 'cpu'; readonly ns: Nanoseconds }
  | { readonly kind: 'sleep'; readonly ns: Nanoseconds }
  | { readonly kind: 'wait'; readonly queue: WaitQueue }
  /** A device access that exits to the host; resumes with the host's answer. */
  | { readonly kind: 'access'; readonly message: Message };

export type Kthread<T = void> = Generator<KthreadRequest, T, Message | undefined>;

/** Threads that wait for a condition; the waker makes it true first, the waiter checks it again. */
export class WaitQueue {
  #waiters: (() => void)[] = [];

  add(resume: () => void): void {
    this.#waiters.push(resume);
  }

  wake(): void {
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const resume of waiters) resume();
  }
}
