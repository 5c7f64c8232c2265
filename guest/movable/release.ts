/** Giving up a movable page that may be moved at the same time. */
import type { Pfn } from '../../shared/index.ts';
import type { MovableGeneration } from '../page-migration/index.ts';
import type { Kthread } from '../sched/kthread.ts';

/**
 * Releases the page that `pfnNow` names, also if it moves while we wait; returns which frame it was
 * in the end. Nobody else has run since it was released. The caller holds no lock of its driver.
 */
export function* releaseWhereItIs(generation: MovableGeneration, pfnNow: () => Pfn): Kthread<Pfn> {
  for (;;) {
    const pfn = pfnNow();
    if (generation.tryRelease(pfn) || (yield* generation.release(pfn))) return pfn;
  }
}
