/** What compaction of a zone has come to, and how hard it tries: linux include/linux/compaction.h. */

/** enum compact_result: of several zones, the greatest counts. */
export const CompactResult = {
  NOT_SUITABLE_ZONE: 0,
  /** Not tried: too little free memory, or fragmentation is not what is missing. */
  SKIPPED: 1,
  /** Not tried: it has failed too often. */
  DEFERRED: 2,
  NO_SUITABLE_PAGE: 3,
  CONTINUE: 4,
  /** The scanners have met after the whole zone. */
  COMPLETE: 5,
  /** The scanners have met, but did not begin at the ends of the zone. */
  PARTIAL_SKIPPED: 6,
  /** Ended before its time: no targets, a busy lock, too many isolated pages. */
  CONTENDED: 7,
  SUCCESS: 8,
} as const;
export type CompactResult = (typeof CompactResult)[keyof typeof CompactResult];

/** enum compact_priority of direct compaction, from the gentlest to the hardest. */
export const CompactPriority = { ASYNC: 2, SYNC_LIGHT: 1, SYNC_FULL: 0 } as const;
export type CompactPriority = (typeof CompactPriority)[keyof typeof CompactPriority];
