/**
 * Memory statistics, driver side (virtio 1.4 §5.5.6.3; linux stats_handle_request): the device
 * asks by using the one buffer that there is, and gets it back with fresh figures.
 */
import { BalloonStat } from '../../protocol/index.ts';
import { assert } from '../../shared/index.ts';
import type { Kernel } from '../kernel/kernel.ts';
import type { Kthread } from '../sched/kthread.ts';
import type { DriverQueue } from '../virtio/queue.ts';
import type { BalloonQueues, MemoryStatistic } from './queues.ts';

export interface StatisticsQueueOptions {
  readonly kernel: Kernel;
  readonly queues: BalloonQueues;
  readonly queue: DriverQueue;
  /** The same tags each time. */
  readonly read: () => readonly MemoryStatistic[];
}

export class StatisticsQueue {
  readonly #options: StatisticsQueueOptions;

  constructor(options: StatisticsQueueOptions) {
    this.#options = options;
  }

  /** The first buffer, in init_vqs; the caller kicks. */
  prime(): void {
    this.#queueBuffer();
  }

  *kick(): Kthread {
    const { queues, queue, kernel } = this.#options;
    yield* queues.transport.notify(queue);
    yield { kind: 'cpu', ns: kernel.costs.queueElementNs };
  }

  /** update_balloon_stats_func. False: the device had not asked. */
  *work(): Kthread<boolean> {
    const { queues, queue } = this.#options;
    if (queues.isLost || queue.getUsed() < 0) return false;
    this.#queueBuffer();
    yield* this.kick();
    return true;
  }

  #queueBuffer(): void {
    const { queues, queue, read } = this.#options;
    const statistics = read();
    const gpa = queues.writeStatistics(statistics);
    const lengthBytes = statistics.length * BalloonStat.sizeBytes;
    const head = queue.addChain({ out: [{ gpa, lengthBytes }] });
    assert(head >= 0, 'at most one statistics buffer is outstanding');
  }
}
