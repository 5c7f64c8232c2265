export { Folios } from './folios.ts';
export { LruList, type Lruvec } from './lruvec.ts';
export type { Mapping } from './mappings.ts';
export type { Memory, PageSource, ReferenceHolder } from './memory.ts';
