import type { Nanoseconds } from '../../shared/index.ts';
import type { Kernel } from './kernel.ts';

/**
 * Starts counting what clearing pages costs (init_on_alloc, init_on_free, poison), host faults of
 * first touches included. The result tells how much it was since.
 */
export function startMemoryCost({ costs, ram }: Kernel): () => Nanoseconds {
  const filledBefore = ram.filledPageCount;
  const faultsBefore = ram.hostFaultCount;
  return () =>
    (ram.filledPageCount - filledBefore) * costs.clearPageNs +
    (ram.hostFaultCount - faultsBefore) * costs.hostFaultNs;
}
