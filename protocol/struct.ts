import { assert } from '../shared/index.ts';

/**
 * One table per wire structure: type, size, offsets and codec derive from it. Fields are packed in
 * the order of the table, little-endian, without padding, as every structure of virtio 1.4 is.
 */
export interface FieldType<V> {
  readonly sizeBytes: number;
  read(view: DataView, offset: number): V;
  write(view: DataView, offset: number, value: V): void;
}

type Fields = Readonly<Record<string, FieldType<unknown>>>;

type ValueOf<F extends Fields> = {
  readonly [K in keyof F]: F[K] extends FieldType<infer V> ? V : never;
};

export interface Struct<F extends Fields> {
  readonly sizeBytes: number;
  /** Byte offset of each field, for code that reads a view directly. */
  readonly offsets: { readonly [K in keyof F]: number };
  read(view: DataView, offset: number): ValueOf<F>;
  write(view: DataView, offset: number, value: ValueOf<F>): void;
}

/** The plain value of a structure: `{num_pages: number, …}`. */
export type StructValue<S> = S extends Struct<infer F> ? ValueOf<F> : never;

export const u8: FieldType<number> = {
  sizeBytes: 1,
  read: (view, offset) => view.getUint8(offset),
  write: (view, offset, value) => view.setUint8(offset, checked(value, 0xff)),
};

export const le16: FieldType<number> = {
  sizeBytes: 2,
  read: (view, offset) => view.getUint16(offset, true),
  write: (view, offset, value) => view.setUint16(offset, checked(value, 0xffff), true),
};

export const le32: FieldType<number> = {
  sizeBytes: 4,
  read: (view, offset) => view.getUint32(offset, true),
  write: (view, offset, value) => view.setUint32(offset, checked(value, 0xffff_ffff), true),
};

/** 64 bits as a bigint: exact, for cold paths. Ring code uses `readLe64` and `writeLe64`. */
export const le64: FieldType<bigint> = {
  sizeBytes: 8,
  read: (view, offset) => view.getBigUint64(offset, true),
  write: (view, offset, value) => {
    assert(value >= 0n && value < 1n << 64n, 'a le64 value fits 64 unsigned bits');
    view.setBigUint64(offset, value, true);
  },
};

/** A fixed number of bytes; read gives a copy. */
export function bytes(count: number): FieldType<Uint8Array> {
  return {
    sizeBytes: count,
    read: (view, offset) =>
      new Uint8Array(view.buffer, view.byteOffset, view.byteLength).slice(offset, offset + count),
    write: (view, offset, value) => {
      assert(value.length === count, 'a bytes field is written whole');
      new Uint8Array(view.buffer, view.byteOffset, view.byteLength).set(value, offset);
    },
  };
}

export function struct<F extends Fields>(fields: F): Struct<F> {
  const entries = Object.entries(fields);
  const offsets: Record<string, number> = {};
  let sizeBytes = 0;
  for (const [name, type] of entries) {
    offsets[name] = sizeBytes;
    sizeBytes += type.sizeBytes;
  }
  return {
    sizeBytes,
    offsets: offsets as Struct<F>['offsets'],
    read(view, offset) {
      const value: Record<string, unknown> = {};
      let at = offset;
      for (const [name, type] of entries) {
        value[name] = type.read(view, at);
        at += type.sizeBytes;
      }
      return value as ValueOf<F>;
    },
    write(view, offset, value) {
      let at = offset;
      for (const [name, type] of entries) {
        type.write(view, at, value[name]);
        at += type.sizeBytes;
      }
    },
  };
}

/**
 * 64 bits as a number, without a bigint: guest addresses in ring code.
 * −1 when the value is above 2^53−1: the field came from the other side and is refused as data.
 */
export function readLe64(view: DataView, offset: number): number {
  const high = view.getUint32(offset + 4, true);
  return high > 0x1f_ffff ? -1 : high * 0x1_0000_0000 + view.getUint32(offset, true);
}

export function writeLe64(view: DataView, offset: number, value: number): void {
  assert(Number.isSafeInteger(value) && value >= 0, 'an address is an integer in 0 … 2^53−1');
  view.setUint32(offset, value >>> 0, true);
  view.setUint32(offset + 4, Math.floor(value / 0x1_0000_0000), true);
}

function checked(value: number, max: number): number {
  assert(Number.isInteger(value) && value >= 0 && value <= max, `a field is in 0 … ${max}`);
  return value;
}
