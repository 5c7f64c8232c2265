export { canStealBlock } from './fallback.ts';
export { fragmentationIndex, fragmentationScore } from './fragmentation.ts';
export * from './free-page-iterator.ts';
export { Gfp, type GfpMask, gfpFromText, highestZoneOf, migratetypeOf } from './gfp.ts';
export { holdFrozen, isolateFreePage, putbackIsolatedPage } from './isolate-free-page.ts';
export { MIGRATE_TYPES, MigrateType } from './migratetype.ts';
export * from './page-allocator.ts';
export type { PageAllocatorHooks, PageAllocatorOptions } from './page-allocator-options.ts';
export {
  GUP_PIN_COUNTING_BIAS,
  MAPPING_INDEX_MAX,
  MAX_PAGE_ORDER,
  METADATA_BYTES_PER_PAGE,
  PAGEBLOCK_NR_PAGES,
  PAGEBLOCK_ORDER,
  PageFlag,
  PageOwner,
  type Pages,
} from './pages.ts';
export { PAGE_ALLOC_COSTLY_ORDER } from './pcp.ts';
export * from './record-unused-pages.ts';
export { AllocFlag, freeListIndex, type Zone } from './zone.ts';
export { ZoneType } from './zone-type.ts';
