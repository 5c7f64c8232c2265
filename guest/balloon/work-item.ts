/**
 * A work item of a workqueue (linux kernel/workqueue.c), as a kernel thread: queueing it while it
 * is pending does nothing, queueing it while it runs makes it run once more.
 */
import type { Nanoseconds } from '../../shared/index.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { type Kthread, WaitQueue } from '../sched/kthread.ts';

export class WorkItem {
  readonly #kernel: Kernel;
  readonly #body: () => Kthread;
  readonly #queued = new WaitQueue();
  #pending = false;
  #dueAtNs: Nanoseconds = 0;

  constructor(kernel: Kernel, body: () => Kthread) {
    this.#kernel = kernel;
    this.#body = body;
  }

  /** Run not before `dueAtNs`. */
  queue(dueAtNs: Nanoseconds): void {
    if (this.#pending) return;
    this.#pending = true;
    this.#dueAtNs = dueAtNs;
    this.#queued.wake();
  }

  /** The thread that serves it; never ends. */
  *loop(): Kthread {
    for (;;) {
      while (!this.#pending) yield { kind: 'wait', queue: this.#queued };
      const delayNs = this.#dueAtNs - this.#kernel.now;
      if (delayNs > 0) yield { kind: 'sleep', ns: delayNs };
      this.#pending = false;
      yield* this.#body();
    }
  }
}
