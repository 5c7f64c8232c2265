export { Folios } from './folios.ts';
export { LruList, type Lruvec } from './lruvec.ts';
export type { Mapping, Mappings } from './mappings.ts';
export type { PageLocks } from './page-lock.ts';
