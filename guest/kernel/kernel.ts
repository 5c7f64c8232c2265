/** What a driver or a hinting strategy sees of the kernel it runs in. */
import type { Message } from '../../protocol/index.ts';
import type { Costs, EventLog, Nanoseconds, Pfn, Plants } from '../../shared/index.ts';
import type { Ram } from '../machine/ram.ts';
import type { PageAllocator } from '../mm/index.ts';
import type { Kthread } from '../sched/kthread.ts';

/** What happens to single pages, for who wants to know each step; nobody does in a normal run. */
export interface PageTracer {
  /** `what` in the words of the kernel function, `pfn` the page that it is about. */
  note(what: string, pfn: Pfn): void;
}

export interface Kernel {
  readonly now: Nanoseconds;
  readonly costs: Costs;
  readonly log: Pick<EventLog, 'add'>;
  /** Planted bugs: all off except in the schedule explorer. */
  readonly plants: Plants;
  readonly tracer: PageTracer | null;
  /** True: hot loops too pass their preemption points, since somebody picks schedules. */
  readonly isExplored: boolean;
  readonly mm: PageAllocator;
  readonly ram: Ram;
  /** Start a kernel thread now; by default on vCPU 0, where the device's interrupts arrive. */
  spawn(name: string, body: () => Kthread, cpu?: number): void;
  /** Queue a posted message: it goes out with the next frame. */
  post(message: Message): void;
  /** A queue was notified now: the running grant shortens to now plus the notification latency. */
  notify(queueIndex: number): void;
}
