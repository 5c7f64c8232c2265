export { Folios } from './folios.ts';
export { LruList, type Lruvec } from './lruvec.ts';
export type { Mapping, Mappings } from './mappings.ts';
export { MemoryUsers } from './memory-users.ts';
export type { AddressSpace } from './page-cache.ts';
export type { PageLocks } from './page-lock.ts';
export type { Process } from './process.ts';
