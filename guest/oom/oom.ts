/**
 * Out of memory (linux mm/oom_kill.c): first whoever has registered gives back what it can, then the
 * process that uses most memory is killed.
 */
import type { Kernel } from '../kernel/kernel.ts';
import { Gfp, type GfpMask } from '../mm/index.ts';
import type { Process } from '../process/process.ts';
import type { Kthread } from '../sched/kthread.ts';
import { Mutex } from '../sched/locks.ts';

const OOM_SCORE_ADJ_MIN = -1000;
/** oom_score_adj is a share of memory in thousandths. */
const ADJ_UNIT = 1000;

interface Notifier {
  readonly priority: number;
  readonly notify: () => Kthread<number>;
}

export class Oom {
  /** oom_lock: whoever finds it taken hopes for what its holder frees. */
  readonly lock = new Mutex('oom_lock');
  readonly #kernel: Kernel;
  readonly #processes: () => Iterable<Process>;
  readonly #notifiers: Notifier[] = [];

  /** `processes`: those that could be killed, in a fixed order. */
  constructor(kernel: Kernel, processes: () => Iterable<Process>) {
    this.#kernel = kernel;
    this.#processes = processes;
  }

  /**
   * register_oom_notifier: the highest priority is asked first; it returns the pages that it freed.
   * The result unregisters it.
   */
  registerOomNotifier(priority: number, notify: () => Kthread<number>): () => void {
    const notifier = { priority, notify };
    this.#notifiers.push(notifier);
    this.#notifiers.sort((a, b) => b.priority - a.priority);
    return () => {
      const index = this.#notifiers.indexOf(notifier);
      if (index >= 0) this.#notifiers.splice(index, 1);
    };
  }

  /** out_of_memory, with the lock held. True: it makes sense to try again. */
  *outOfMemory(gfp: GfpMask): Kthread<boolean> {
    let freedPages = 0;
    for (const { notify } of [...this.#notifiers]) freedPages += yield* notify();
    if (freedPages > 0) return true;
    // Who must not enter a filesystem has not been able to reclaim what others can.
    if ((gfp & Gfp.__GFP_FS) === 0) return false;
    const victim = this.#selectBadProcess();
    if (!victim) return false;
    this.#kill(victim);
    return true;
  }

  /** oom_kill_process; the reaper frees its memory at once. */
  #kill(victim: Process): void {
    const { mm, log } = this.#kernel;
    mm.vmstat.oom_kill++;
    log.add(this.#kernel.now, 'oom_kill', { name: victim.name, rss_pages: victim.rssPages });
    victim.exit();
  }

  #selectBadProcess(): Process | null {
    let chosen: Process | null = null;
    let chosenPoints = Number.NEGATIVE_INFINITY;
    for (const process of this.#processes()) {
      if (!process.isAlive || process.oomScoreAdj <= OOM_SCORE_ADJ_MIN) continue;
      const points = this.#badness(process);
      if (points <= chosenPoints) continue;
      chosen = process;
      chosenPoints = points;
    }
    return chosen;
  }

  /** oom_badness, in pages. */
  #badness({ rssPages, oomScoreAdj }: Process): number {
    return rssPages + (oomScoreAdj * this.#kernel.mm.pages.ramPages) / ADJ_UNIT;
  }
}
