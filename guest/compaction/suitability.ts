/** Whether to compact a zone, and when to stop (linux mm/compaction.c: compaction_suitable, scores). */
import {
  AllocFlag,
  fragmentationIndex,
  fragmentationScore,
  PAGE_ALLOC_COSTLY_ORDER,
  type Zone,
  type ZoneType,
} from '../mm/index.ts';
import { CompactResult } from './result.ts';

/** vm.extfrag_threshold: up to here, what is missing is memory and not contiguity. */
const EXTFRAG_THRESHOLD = 500;
/** fragmentation_score_wmark: proactive compaction runs from the high mark down to the low one. */
export function scoreMarks(proactiveness: number): { readonly low: number; readonly high: number } {
  const low = Math.max(100 - proactiveness, 5);
  return { low, high: Math.min(low + Math.min(10, low >> 1), 100) };
}

/** compact_gap: pages that are isolated as targets while others are not free yet. */
function compactGap(order: number): number {
  return 2 << order;
}

/**
 * compaction_suit_allocation_order: SUCCESS if the block can be had without compaction, SKIPPED if
 * that could not help, otherwise CONTINUE.
 */
export function suitOrder(
  zone: Zone,
  order: number,
  highestZone: ZoneType,
  allocFlags: number,
): CompactResult {
  const low = zone.watermarkPages[AllocFlag.WMARK_LOW]!;
  const min = zone.watermarkPages[AllocFlag.WMARK_MIN]!;
  const mark = (allocFlags & AllocFlag.WMARK_LOW) !== 0 ? low : min;
  if (zone.watermarkOk(order, mark, highestZone, allocFlags)) return CompactResult.SUCCESS;
  const isCostly = order > PAGE_ALLOC_COSTLY_ORDER;
  const enough = (isCostly ? low : min) + compactGap(order);
  // CMA pages are good targets, whoever asks.
  if (!zone.watermarkOk(0, enough, highestZone, AllocFlag.CMA)) return CompactResult.SKIPPED;
  if (isCostly) {
    const index = fragmentationIndex(zone, order);
    if (index >= 0 && index <= EXTFRAG_THRESHOLD) return CompactResult.SKIPPED;
  }
  return CompactResult.CONTINUE;
}

/** fragmentation_score_node: scores of the zones by their share of memory, 0 to 100. */
export function nodeScore(zones: readonly Zone[]): number {
  let presentPages = 0;
  for (const zone of zones) presentPages += zone.endPfn - zone.startPfn;
  let score = 0;
  for (const zone of zones) {
    const share = (zone.endPfn - zone.startPfn) / (presentPages + 1);
    score += Math.floor(share * fragmentationScore(zone));
  }
  return score;
}
