/** Mobility of a pageblock and of the free lists, numbered as in Linux (enum migratetype). */
export const MigrateType = {
  UNMOVABLE: 0,
  MOVABLE: 1,
  RECLAIMABLE: 2,
  HIGHATOMIC: 3,
  CMA: 4,
  ISOLATE: 5,
} as const;
export type MigrateType = (typeof MigrateType)[keyof typeof MigrateType];

export const MIGRATE_TYPES = 6;
/** Types that have per-CPU lists, and whose blocks may merge with one another. */
export const MIGRATE_PCPTYPES = 3;

/** Where an empty type looks for memory, in order (Linux 6.1 `fallbacks`). */
export const FALLBACKS: readonly (readonly MigrateType[])[] = [
  [MigrateType.RECLAIMABLE, MigrateType.MOVABLE],
  [MigrateType.RECLAIMABLE, MigrateType.UNMOVABLE],
  [MigrateType.UNMOVABLE, MigrateType.MOVABLE],
  [],
  [],
  [],
];

/** Blocks of these types merge across pageblocks; CMA, HIGHATOMIC and ISOLATE keep to themselves. */
export function isMergeable(type: number): boolean {
  return type < MIGRATE_PCPTYPES;
}
