/** What a field may hold; the bounds are checked before anything looks at the value. */
export type FieldKind =
  | 'u8'
  | 'u16'
  | 'u32'
  | 'bool'
  /** Integer in 0 … 2^53−1: virtual nanoseconds or a guest physical address. */
  | 'u53'
  /** At most 4096 characters. */
  | 'str'
  /** Bytes; a view of the receive buffer: copy what is kept. */
  | 'bin'
  /** Flat list `[name, number, name, number, …]`, at most 512 pairs. */
  | 'counters'
  /** At most 256 strings. */
  | 'lines';

/** As code sees it. */
export interface ValueOf {
  u8: number;
  u16: number;
  u32: number;
  u53: number;
  bool: boolean;
  str: string;
  bin: Uint8Array;
  counters: (string | number)[];
  lines: string[];
}
