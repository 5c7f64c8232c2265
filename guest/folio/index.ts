export { Folios } from './folios.ts';
export { LruList } from './lruvec.ts';
export type { Mapping } from './mappings.ts';
export { MemInfo } from './meminfo.ts';
export { MemoryUsers } from './memory-users.ts';
export type { AddressSpace } from './page-cache.ts';
export { PageReporting } from './page-reporting.ts';
export type { Process } from './process.ts';
