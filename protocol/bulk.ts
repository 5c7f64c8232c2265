import { assert } from '../shared/index.ts';

/**
 * Bulk fields: a `bin` of a message that is an array of one number type, little-endian. Outgoing,
 * a typed array is viewed as bytes; incoming, the bytes are copied, because a received `bin` may
 * be a view of the receive buffer and need not be aligned.
 */

assert(new Uint8Array(Uint16Array.of(1).buffer)[0] === 1, 'the processor is little-endian');

/** The bytes of `array`, a view. */
export function u16Bytes(array: Uint16Array): Uint8Array {
  return viewOf(array);
}

/** The bytes of `array`, a view. */
export function u32Bytes(array: Uint32Array): Uint8Array {
  return viewOf(array);
}

/** The bytes of `array`, a view. */
export function f64Bytes(array: Float64Array): Uint8Array {
  return viewOf(array);
}

/** A copy of `bytes` as u16 values, or null if its length is no multiple of 2. */
export function toUint16(bytes: Uint8Array): Uint16Array | null {
  if (bytes.length % 2 !== 0) return null;
  const array = new Uint16Array(bytes.length / 2);
  viewOf(array).set(bytes);
  return array;
}

/** A copy of `bytes` as u32 values, or null if its length is no multiple of 4. */
export function toUint32(bytes: Uint8Array): Uint32Array | null {
  if (bytes.length % 4 !== 0) return null;
  const array = new Uint32Array(bytes.length / 4);
  viewOf(array).set(bytes);
  return array;
}

/** A copy of `bytes` as f64 values, or null if its length is no multiple of 8. Values are data: check them. */
export function toFloat64(bytes: Uint8Array): Float64Array | null {
  if (bytes.length % 8 !== 0) return null;
  const array = new Float64Array(bytes.length / 8);
  viewOf(array).set(bytes);
  return array;
}

function viewOf(array: Uint16Array | Uint32Array | Float64Array): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}
