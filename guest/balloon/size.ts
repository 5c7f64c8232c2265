/**
 * Inflating and deflating (linux fill_balloon, leak_balloon, tell_host), one request at a time.
 * What differs between operating systems comes from `DriverBehaviour`: whether the host is told
 * before pages are used again, how long its answer is waited for, what one request is.
 */
import { BALLOON_PFN_BYTES } from '../../protocol/index.ts';
import { assert, Errno, type Pfn } from '../../shared/index.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { startMemoryCost } from '../kernel/memory-cost.ts';
import type { Kthread } from '../sched/kthread.ts';
import { Mutex } from '../sched/locks.ts';
import type { DriverQueue } from '../virtio/queue.ts';
import type { DriverBehaviour } from './behaviour.ts';
import type { BalloonPages } from './pages.ts';
import type { BalloonQueues } from './queues.ts';

export interface SizeCounters {
  /** Times that an allocation failed. */
  balloon_out_of_puff: number;
  /** Requests that the host did not acknowledge in time, and that did not fit into the ring. */
  balloon_ack_timeouts: number;
  balloon_untold_requests: number;
}

export interface BalloonSizeOptions {
  readonly kernel: Kernel;
  readonly behaviour: DriverBehaviour;
  readonly counters: SizeCounters;
  readonly pages: BalloonPages;
  /** IsLowMemory of Windows. */
  readonly isLowMemory: () => boolean;
}

export class BalloonSize {
  /** Pages told to the host: grows before an inflate is told, shrinks before a deflate is. */
  numPages = 0;
  /** null: no device. */
  queues: BalloonQueues | null = null;
  readonly #kernel: Kernel;
  readonly #behaviour: DriverBehaviour;
  readonly #options: BalloonSizeOptions;
  /** balloon_lock: who holds it has the buffer of PFNs, and tells the host alone. */
  readonly lock = new Mutex('balloon_lock');
  /** What `fill` has allocated before it takes the lock. */
  readonly #allocated: Int32Array;
  /** What `leak` has dequeued, while the host is told. Under the lock. */
  readonly #dequeued: Int32Array;
  /** The page that is told to the host while one moves. Under the lock. */
  readonly #moved = new Int32Array(1);
  /** Pages of each inflate request whose pages are in the balloon, with `wholeRequests`. */
  readonly #requests: number[] = [];

  constructor(options: BalloonSizeOptions) {
    this.#options = options;
    this.#kernel = options.kernel;
    this.#behaviour = options.behaviour;
    this.#allocated = new Int32Array(options.behaviour.pfnsMax);
    this.#dequeued = new Int32Array(options.behaviour.pfnsMax);
  }

  /** Returns how many pages went into the balloon: at most one request. */
  *fill(wanted: number): Kthread<number> {
    // Without the lock: an allocation may reclaim, and the OOM notifier takes it.
    const count = yield* this.#allocate(Math.min(wanted, this.#behaviour.pfnsMax));
    if (count === 0) return 0;
    yield* this.lock.lock();
    yield* this.#options.pages.enqueue(this.#allocated, count);
    this.numPages += count;
    if (this.#behaviour.wholeRequests) this.#requests.push(count);
    yield* this.#tellHost('inflateq', this.#allocated, count);
    this.lock.unlock();
    return count;
  }

  /** Returns how many pages left the balloon: at most one request, and none that is isolated. */
  *leak(wanted: number): Kthread<number> {
    yield* this.lock.lock();
    const { pages } = this.#options;
    const count = yield* pages.dequeue(this.#dequeued, this.#leakTarget(wanted));
    if (count > 0) {
      this.numPages -= count;
      if (this.#behaviour.freesBeforeTelling) {
        yield* this.#release(count);
        yield* this.#tellHost('deflateq', this.#dequeued, count);
      } else {
        // The host first, the allocator second: until the ack the page may still be discarded.
        yield* this.#tellHost('deflateq', this.#dequeued, count);
        yield* this.#release(count);
      }
    }
    this.lock.unlock();
    return count;
  }

  /**
   * virtballoon_migratepage: the host takes the new page before it gives back the old one. EAGAIN:
   * the balloon is inflating, deflating or moving another page, perhaps to make room for this move.
   */
  *migratePage(dst: Pfn, src: Pfn): Kthread<Errno> {
    if (!this.lock.tryLock()) return Errno.EAGAIN;
    this.#moved[0] = dst;
    yield* this.#tellHost('inflateq', this.#moved, 1);
    this.#moved[0] = src;
    yield* this.#tellHost('deflateq', this.#moved, 1);
    this.lock.unlock();
    return Errno.OK;
  }

  *#allocate(target: number): Kthread<number> {
    const { pages, counters, isLowMemory } = this.#options;
    const { allOrNothing, outOfPuffNs } = this.#behaviour;
    const memoryCostNs = startMemoryCost(this.#kernel);
    let count = 0;
    while (count < target && !(allOrNothing && isLowMemory())) {
      const pfn = pages.alloc();
      if (pfn < 0) break;
      this.#allocated[count++] = pfn;
    }
    const isShort = count < target;
    const allocNs = Math.max(1, count) * this.#kernel.costs.allocNs;
    if (isShort && allOrNothing) {
      while (count > 0) this.#kernel.mm.free(this.#allocated[--count]!, 0);
    }
    yield { kind: 'cpu', ns: allocNs + memoryCostNs() };
    if (isShort) {
      counters.balloon_out_of_puff++;
      this.#kernel.log.add(this.#kernel.now, 'balloon_out_of_puff', { pages: this.numPages });
      if (outOfPuffNs > 0) yield { kind: 'sleep', ns: outOfPuffNs };
    }
    return count;
  }

  #leakTarget(wanted: number): number {
    if (this.#behaviour.wholeRequests) return this.#requests.pop() ?? 0;
    return Math.min(wanted, this.#behaviour.pfnsMax, this.numPages);
  }

  *#release(count: number): Kthread {
    yield* this.#options.pages.release(this.#dequeued, count);
    yield { kind: 'cpu', ns: count * this.#kernel.costs.allocNs };
  }

  /** One readable buffer, one kick, and an uninterruptible wait. Under the lock. */
  *#tellHost(name: 'inflateq' | 'deflateq', pfns: Int32Array, count: number): Kthread {
    const { queues } = this;
    if (!queues || queues.isLost) return;
    const queue = queues[name];
    const mayBeFull = this.#behaviour.ackTimeoutNs !== null;
    // Requests that were given up before.
    if (mayBeFull) while (queue.getUsed() >= 0);
    const gpa = queues.writePfns(pfns, count);
    const head = queue.addChain({ out: [{ gpa, lengthBytes: count * BALLOON_PFN_BYTES }] });
    if (head < 0) {
      assert(mayBeFull, 'at most one balloon buffer is outstanding');
      this.#options.counters.balloon_untold_requests++;
      return;
    }
    yield* queues.transport.notify(queue);
    yield { kind: 'cpu', ns: this.#kernel.costs.queueElementNs };
    yield* this.#acknowledged(queues, queue, head);
  }

  *#acknowledged(queues: BalloonQueues, queue: DriverQueue, head: number): Kthread {
    const { ackTimeoutNs } = this.#behaviour;
    const deadlineNs = this.#kernel.now + (ackTimeoutNs ?? Number.POSITIVE_INFINITY);
    if (ackTimeoutNs !== null) this.#wakeAfter(queues, ackTimeoutNs);
    for (;;) {
      const used = queue.getUsed();
      if (used === head || queues.isLost) return;
      if (used >= 0) continue;
      if (this.#kernel.now >= deadlineNs) {
        this.#options.counters.balloon_ack_timeouts++;
        return;
      }
      yield { kind: 'wait', queue: queues.acked };
    }
  }

  #wakeAfter(queues: BalloonQueues, ns: number): void {
    this.#kernel.spawn('balloon_ack_timeout', function* () {
      yield { kind: 'sleep', ns };
      queues.acked.wake();
    });
  }
}
