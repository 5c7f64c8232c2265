/** What a driver or a hinting strategy sees of the kernel it runs in. */
import type { Message } from '../../protocol/index.ts';
import type { Costs, EventLog, Nanoseconds } from '../../shared/index.ts';
import type { Ram } from '../machine/ram.ts';
import type { PageAllocator } from '../mm/index.ts';
import type { Kthread } from './kthread.ts';

export interface Kernel {
  readonly now: Nanoseconds;
  readonly costs: Costs;
  readonly log: EventLog;
  readonly mm: PageAllocator;
  readonly ram: Ram;
  /** Start a kernel thread now, on vCPU 0 (where the device's interrupts arrive). */
  spawn(name: string, body: () => Kthread): void;
  /** Queue a posted message: it goes out with the next frame. */
  post(message: Message): void;
  /** A queue was notified now: the running grant shortens to now plus the notification latency. */
  notify(queueIndex: number): void;
}
