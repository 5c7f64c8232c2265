import { BallastError } from '../../shared/index.ts';

/**
 * The one shape a frame may have, checked on the raw bytes before msgpack is decoded: an array of
 * arrays of scalars, strings, byte strings and flat lists of scalars and strings. Maps, extension
 * types (some construct objects, one redefines the decoder's record structures) and deeper nesting
 * never reach the decoder, and neither does a length that claims more than the frame holds.
 */

export const MAX_MESSAGES_PER_FRAME = 4096;
/** More than the longest message of the table has fields, id included. */
const MAX_FIELDS = 32;
/** Pairs or lines of the longest list field, twice over. */
const MAX_LIST = 1024;
/** 4096 characters in UTF-8. */
const MAX_STRING_BYTES = 4 * 4096;
/** Values of all messages of a frame: bounds what decoding a frame can allocate beside its bytes. */
const MAX_VALUES = 1 << 17;

let source: Uint8Array = new Uint8Array(0);
let position = 0;
let end = 0;
let values = 0;

/** Throws BallastError FRAME_MALFORMED; allocates nothing when the frame is well-formed. */
export function checkShape(bytes: Uint8Array, start: number, stop: number): void {
  source = bytes;
  position = start;
  end = stop;
  values = 0;
  const messages = arrayLength('an array of messages', MAX_MESSAGES_PER_FRAME);
  for (let m = 0; m < messages; m++) {
    const fields = arrayLength('a message as an array', MAX_FIELDS);
    for (let f = 0; f < fields; f++) skipField();
  }
  if (position !== end) {
    throw new BallastError('FRAME_MALFORMED', `frame: ${end - position} bytes after its array`);
  }
}

function skipField(): void {
  const token = peek();
  if ((token & 0xf0) !== 0x90 && token !== 0xdc && token !== 0xdd) {
    skipScalar();
    return;
  }
  const count = arrayLength('a list', MAX_LIST);
  for (let i = 0; i < count; i++) skipScalar();
}

/** Length of the array that begins here; `what` is what the frame should hold. */
function arrayLength(what: string, max: number): number {
  const token = peek();
  position++;
  let length: number;
  if ((token & 0xf0) === 0x90) length = token & 0x0f;
  else if (token === 0xdc) length = unsigned(2);
  else if (token === 0xdd) length = unsigned(4);
  else throw refused(what, token);
  if (length > max) {
    throw new BallastError(
      'FRAME_MALFORMED',
      `frame: expected ${what} of at most ${max}, found ${length}`,
    );
  }
  values += length;
  if (values > MAX_VALUES) {
    throw new BallastError('FRAME_MALFORMED', `frame: expected at most ${MAX_VALUES} values`);
  }
  return length;
}

function skipScalar(): void {
  const token = peek();
  position++;
  skip(scalarBytes(token));
}

/** Bytes of the scalar after its token and length; the length is consumed. */
function scalarBytes(token: number): number {
  if (token < 0x80 || token >= 0xe0) return 0;
  if (token >= 0xa0 && token < 0xc0) return token & 0x1f;
  switch (token) {
    case 0xc0: // nil
    case 0xc2: // false
    case 0xc3: // true
      return 0;
    case 0xcc: // uint 8
    case 0xd0: // int 8
      return 1;
    case 0xcd:
    case 0xd1:
      return 2;
    case 0xca: // float 32
    case 0xce:
    case 0xd2:
      return 4;
    case 0xcb: // float 64
    case 0xcf:
    case 0xd3:
      return 8;
    case 0xc4: // bin 8 … 32
      return unsigned(1);
    case 0xc5:
      return unsigned(2);
    case 0xc6:
      return unsigned(4);
    case 0xd9: // str 8 … 32
      return stringBytes(unsigned(1));
    case 0xda:
      return stringBytes(unsigned(2));
    case 0xdb:
      return stringBytes(unsigned(4));
    default:
      throw refused('a number, a boolean, a string or bytes', token);
  }
}

function stringBytes(length: number): number {
  if (length <= MAX_STRING_BYTES) return length;
  throw new BallastError(
    'FRAME_MALFORMED',
    `frame: expected a string of at most ${MAX_STRING_BYTES} bytes, found ${length}`,
  );
}

function skip(count: number): void {
  if (count > end - position) throw truncated(count);
  position += count;
}

function peek(): number {
  if (position >= end) throw truncated(1);
  return source[position]!;
}

function unsigned(width: number): number {
  if (width > end - position) throw truncated(width);
  let value = 0;
  for (let i = 0; i < width; i++) value = value * 256 + source[position++]!;
  return value;
}

function truncated(wanted: number): BallastError {
  return new BallastError(
    'FRAME_MALFORMED',
    `frame: a value claims ${wanted} more bytes where ${end - position} are left`,
  );
}

function refused(what: string, token: number): BallastError {
  return new BallastError('FRAME_MALFORMED', `frame: expected ${what}, found ${tokenName(token)}`);
}

function tokenName(token: number): string {
  if (token < 0x80 || token >= 0xe0) return 'an integer';
  if (token < 0x90 || token === 0xde || token === 0xdf) return 'a map';
  if (token < 0xa0 || token === 0xdc || token === 0xdd) return 'an array';
  if (token < 0xc0 || (token >= 0xd9 && token <= 0xdb)) return 'a string';
  if (token >= 0xc4 && token <= 0xc6) return 'bytes';
  if ((token >= 0xc7 && token <= 0xc9) || (token >= 0xd4 && token <= 0xd8)) return 'an extension';
  return `msgpack token 0x${token.toString(16)}`;
}
