/**
 * An allocation that may wait (linux mm/page_alloc.c: __alloc_pages_slowpath, mm/oom_kill.c): kswapd
 * and reclaim are not here, so a small one that finds nothing ends with the OOM notifiers, by
 * priority, and then the OOM killer.
 */
import { Errno, type Pfn } from '../../shared/index.ts';
import type { Compaction, Kcompactd } from '../compaction/index.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { Gfp, type GfpMask, PAGE_ALLOC_COSTLY_ORDER } from '../mm/index.ts';
import type { Kthread } from '../sched/kthread.ts';

interface OomNotifier {
  readonly priority: number;
  /** Returns the pages that it has freed. */
  notify(): Kthread<number>;
}

export class SlowPath {
  readonly counters = { oom_kill: 0 };
  /** oom_kill_process: ends the process with most pages. False: there is none. */
  killProcess: (() => Kthread<boolean>) | null = null;
  readonly #kernel: Kernel;
  readonly #compaction: Compaction;
  readonly #kcompactd: Kcompactd;
  readonly #notifiers: OomNotifier[] = [];

  constructor(kernel: Kernel, compaction: Compaction, kcompactd: Kcompactd) {
    this.#kernel = kernel;
    this.#compaction = compaction;
    this.#kcompactd = kcompactd;
  }

  /** register_oom_notifier: those of a higher priority are asked first. */
  registerOomNotifier(priority: number, notify: () => Kthread<number>): void {
    this.#notifiers.push({ priority, notify });
    this.#notifiers.sort((a, b) => b.priority - a.priority);
  }

  /** A block of that order, or ENOMEM. */
  *allocPages(order: number, gfp: GfpMask, cpu: number): Kthread<Pfn | Errno> {
    const { mm } = this.#kernel;
    const fast = mm.alloc(order, gfp & ~Gfp.__GFP_DIRECT_RECLAIM, cpu);
    if (fast >= 0) return fast;
    if (order > 0) {
      this.#kcompactd.wake(order);
      yield* this.#compaction.directCompact(order, gfp, cpu);
    }
    for (;;) {
      const pfn = mm.alloc(order, gfp, cpu);
      const mayKill = order <= PAGE_ALLOC_COSTLY_ORDER && (gfp & Gfp.__GFP_NORETRY) === 0;
      if (pfn >= 0 || !mayKill) return pfn;
      if (!(yield* this.#outOfMemory())) return Errno.ENOMEM;
    }
  }

  /** out_of_memory. True: something was freed. */
  *#outOfMemory(): Kthread<boolean> {
    let freedPages = 0;
    for (const { notify } of this.#notifiers) freedPages += yield* notify();
    if (freedPages > 0) return true;
    if (!this.killProcess || !(yield* this.killProcess())) return false;
    this.counters.oom_kill++;
    this.#kernel.log.add(this.#kernel.now, 'oom_kill', { killed: this.counters.oom_kill });
    return true;
  }
}
