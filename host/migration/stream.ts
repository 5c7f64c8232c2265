/** What the migration thread writes: pages in the order in which they go out, and where passes begin. */
import type { Pfn } from '../../shared/index.ts';

export interface MigrationStream {
  /** A page goes out with the record that was read of it last; `tag` 0: a zero page. */
  page(pfn: Pfn, tag: number): void;
  /** A dirty sync: pages may come again from here on. */
  mark(pass: number): void;
}

/** State of one device as it travels: a JSON object that its version defines. */
export interface DeviceState {
  readonly device: string;
  readonly version: number;
  readonly state: Uint8Array;
}
