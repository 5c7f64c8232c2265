import { type Nanoseconds, NS_PER_S } from '../../shared/index.ts';
import type { Kernel } from './kernel.ts';

/**
 * Starts counting what memory costs beside the work that is done with it: clearing pages
 * (init_on_alloc, init_on_free, poison), host faults of first touches, and faults of the dirty log. The
 * result tells how much it was since.
 */
export function startMemoryCost({ costs, ram }: Kernel): () => Nanoseconds {
  const { dirtyLog } = ram;
  const filledBefore = ram.filledPageCount;
  const faultsBefore = ram.hostFaultCount;
  const dirtyBefore = dirtyLog.faultCount;
  return () => {
    const dirtied = dirtyLog.faultCount - dirtyBefore;
    const { limitPagesPerS } = dirtyLog;
    const limitedNs = limitPagesPerS > 0 ? Math.round((dirtied * NS_PER_S) / limitPagesPerS) : 0;
    dirtyLog.limitedNs += limitedNs;
    return (
      (ram.filledPageCount - filledBefore) * costs.clearPageNs +
      (ram.hostFaultCount - faultsBefore) * costs.hostFaultNs +
      dirtied * costs.dirtyFaultNs +
      limitedNs
    );
  };
}
