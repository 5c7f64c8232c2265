export { ListGeneration } from './list-generation.ts';
export { MemoryFailure } from './memory-failure.ts';
export type { IsolatedSet } from './migrate-pages.ts';
export { PageMigration } from './migrate-pages.ts';
export { MigrateMode, type MigrateRequest, type MigrateTarget } from './modes.ts';
export type { MovableGeneration, MovableOps } from './movable-ops.ts';
export { PfnGeneration } from './pfn-generation.ts';
