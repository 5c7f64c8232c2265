export { Folios } from './folios.ts';
export type { Gup } from './gup.ts';
export { LruList, type Lruvec } from './lruvec.ts';
export type { Mapping, Mappings } from './mappings.ts';
export type { AddressSpace } from './page-cache.ts';
export type { PageLocks } from './page-lock.ts';
export { Process } from './process.ts';
export { VfioContainer } from './vfio.ts';
