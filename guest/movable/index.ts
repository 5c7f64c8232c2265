export { MappedDriver, type MappedFile } from './mapped-driver.ts';
export { type PageTableSpace, PageTables, PteBits } from './page-tables.ts';
export { type MappedObject, Zspool } from './zspool.ts';
