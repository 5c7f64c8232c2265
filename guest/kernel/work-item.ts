/**
 * A work item of a workqueue (linux kernel/workqueue.c), as a kernel thread: queueing it while it
 * is pending does nothing, queueing it while it runs makes it run once more.
 */
import type { Nanoseconds } from '../../shared/index.ts';
import { type Kthread, WaitQueue } from '../sched/kthread.ts';
import type { Kernel } from './kernel.ts';

export class WorkItem {
  readonly #kernel: Kernel;
  readonly #name: string;
  readonly #body: () => Kthread;
  readonly #queued = new WaitQueue();
  readonly #finished = new WaitQueue();
  #isStarted = false;
  #pending = false;
  #isRunning = false;
  #dueAtNs: Nanoseconds = 0;

  constructor(kernel: Kernel, name: string, body: () => Kthread) {
    this.#kernel = kernel;
    this.#name = name;
    this.#body = body;
  }

  /** Starts the thread that serves it, once; it never ends. */
  start(): void {
    if (this.#isStarted) return;
    this.#isStarted = true;
    this.#kernel.spawn(this.#name, () => this.#loop());
  }

  /** Run not before `dueAtNs`. */
  queue(dueAtNs: Nanoseconds): void {
    if (this.#pending) return;
    this.#pending = true;
    this.#dueAtNs = dueAtNs;
    this.#queued.wake();
  }

  /** cancel_work_sync: it is not pending any more, and what was running has ended. */
  *cancel(): Kthread {
    this.#pending = false;
    while (this.#isRunning) yield { kind: 'wait', queue: this.#finished };
    this.#pending = false;
  }

  *#loop(): Kthread {
    for (;;) {
      while (!this.#pending) yield { kind: 'wait', queue: this.#queued };
      const delayNs = this.#dueAtNs - this.#kernel.now;
      if (delayNs > 0) {
        yield { kind: 'sleep', ns: delayNs };
        // Cancelled meanwhile, and perhaps queued again.
        continue;
      }
      this.#pending = false;
      this.#isRunning = true;
      yield* this.#body();
      this.#isRunning = false;
      this.#finished.wake();
    }
  }
}
