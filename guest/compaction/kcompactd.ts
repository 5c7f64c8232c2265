/**
 * kcompactd of the node (linux mm/compaction.c): compacts for whoever has woken it, and twice a
 * second looks whether free memory is too fragmented for huge pages (vm.compaction_proactiveness).
 */
import type { Nanoseconds } from '../../shared/index.ts';
import { NS_PER_MS } from '../../shared/index.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { ZoneType } from '../mm/index.ts';
import { type Kthread, WaitQueue } from '../sched/kthread.ts';
import type { Compaction } from './compaction.ts';
import { MAX_DEFER_SHIFT } from './zone-state.ts';

/** HPAGE_FRAG_CHECK_INTERVAL_MSEC */
const CHECK_INTERVAL_NS = 500 * NS_PER_MS;
/** After a run that did not help. */
const DEFERRED_INTERVAL_NS = CHECK_INTERVAL_NS * 2 ** MAX_DEFER_SHIFT;

export class Kcompactd {
  readonly #kernel: Kernel;
  readonly #compaction: Compaction;
  readonly #work = new WaitQueue();
  /** kcompactd_max_order, kcompactd_highest_zoneidx: of all wake-ups since it last slept. */
  #maxOrder = 0;
  #highestZone: ZoneType = ZoneType.MOVABLE;
  /** Number of the present sleep: a timer of another one does not end it. */
  #sleep = 0;
  #isWaiting = false;

  constructor(kernel: Kernel, compaction: Compaction) {
    this.#kernel = kernel;
    this.#compaction = compaction;
  }

  /** wakeup_kcompactd: a block of that order will be needed. Does nothing where that cannot help. */
  wake(order: number, highestZone: ZoneType = ZoneType.MOVABLE): void {
    if (order === 0) return;
    if (order > this.#maxOrder) this.#maxOrder = order;
    this.#highestZone = highestZone;
    if (!this.#isWaiting || !this.#compaction.isSuitable(order, highestZone)) return;
    this.#work.wake();
  }

  /** The thread; it does not end. */
  *run(): Kthread {
    let intervalNs = CHECK_INTERVAL_NS;
    for (;;) {
      const isWoken = yield* this.#wait(intervalNs);
      intervalNs = CHECK_INTERVAL_NS;
      if (isWoken) yield* this.#doWork();
      else if (!(yield* this.#compactProactively())) intervalNs = DEFERRED_INTERVAL_NS;
    }
  }

  *#doWork(): Kthread {
    const order = this.#maxOrder;
    yield* this.#compaction.compactFor(order, this.#highestZone);
    // Somebody may have asked for more meanwhile.
    if (this.#maxOrder <= order) this.#maxOrder = 0;
  }

  /** False: it ran, and the score is no better. */
  *#compactProactively(): Kthread<boolean> {
    const before = this.#compaction.nodeScore;
    if (before <= this.#compaction.proactiveScore) return true;
    const { vmstat } = this.#kernel.mm;
    const migratedBefore = vmstat.pgmigrate_success;
    yield* this.#compaction.compactProactively();
    const after = this.#compaction.nodeScore;
    const migrated = vmstat.pgmigrate_success - migratedBefore;
    this.#kernel.log.add(this.#kernel.now, 'compact_proactive', { before, after, migrated });
    return after < before;
  }

  /** wait_event_timeout: true if it was woken. */
  *#wait(ns: Nanoseconds): Kthread<boolean> {
    if (this.#maxOrder > 0 && this.#compaction.isSuitable(this.#maxOrder, this.#highestZone)) {
      return true;
    }
    const sleep = ++this.#sleep;
    const queue = this.#work;
    let isOver = false;
    const onTimeout = (): void => {
      if (this.#sleep !== sleep) return;
      isOver = true;
      queue.wake();
    };
    this.#kernel.spawn('kcompactd timer', function* (): Kthread {
      yield { kind: 'sleep', ns };
      onTimeout();
    });
    this.#isWaiting = true;
    yield { kind: 'wait', queue };
    this.#isWaiting = false;
    this.#sleep++;
    return !isOver;
  }
}
