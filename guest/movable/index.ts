export { MappedDriver } from './mapped-driver.ts';
export { PageTables, PteBits } from './page-tables.ts';
export { type MappedObject, Zspool } from './zspool.ts';
