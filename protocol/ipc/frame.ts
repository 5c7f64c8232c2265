import { Packr, RESERVE_START_SPACE, Unpackr } from 'msgpackr';
import { assert, BallastError } from '../../shared/index.ts';
import type { Sender } from '../message-shape.ts';
import type { Message } from '../messages.ts';
import { checkShape, MAX_MESSAGES_PER_FRAME } from './shape.ts';
import { decodeMessage, encodeMessage } from './validate.ts';

/**
 * A frame: its length as u32, little-endian, then one msgpack array of positional messages. The
 * length is checked before anything is allocated, and the buffer of an unfinished frame grows with
 * the bytes that arrive, never with the bytes that are promised.
 */

export const MAX_FRAME_BYTES = 64 * 1024 * 1024;
const PREFIX_BYTES = 4;
/** A buffer that a large frame has grown beyond this is given back after it. */
const KEEP_BYTES = 4 * 1024 * 1024;
/** From here on a copy costs more than a second piece to write. */
const OWN_PIECE_BYTES = 64 * 1024;
const EMPTY = new Uint8Array(0);
/** msgpack: bin 8 and bin 32, and the size of a bin 8 that holds nothing. */
const BIN_8 = 0xc4;
const BIN_32 = 0xc6;
const EMPTY_BIN_BYTES = 2;

const packr = new Packr({ useRecords: false });
const unpackr = new Unpackr({ useRecords: false, int64AsType: 'number' });

/** What becomes of a decoded `bin`: a view of the frame's bytes, or of a copy that may be kept. */
export type BinMode = 'view' | 'copy';

/** A whole frame, length prefix included, ready to be written. */
export function encodeFrame(messages: readonly Message[]): Uint8Array {
  assert(messages.length <= MAX_MESSAGES_PER_FRAME, 'a frame holds at most 4096 messages');
  return packFrame(messages.map(encodeMessage), 0);
}

/**
 * The same frame in pieces to be written one after the other. A large `bin` at its very end (every
 * bulk reply of a guest has one) is a piece of its own, not a copy: it must not change any more.
 */
export function encodeFrameParts(messages: readonly Message[]): Uint8Array[] {
  assert(messages.length <= MAX_MESSAGES_PER_FRAME, 'a frame holds at most 4096 messages');
  const encoded = messages.map(encodeMessage);
  const fields = encoded.at(-1);
  const tail = fields?.at(-1);
  if (!fields || !(tail instanceof Uint8Array) || tail.length < OWN_PIECE_BYTES) {
    return [packFrame(encoded, 0)];
  }
  fields[fields.length - 1] = EMPTY;
  const head = packFrame(encoded, tail.length);
  return [head, tail];
}

/** `tailBytes` > 0: the frame ends in an empty `bin`, whose header is made that of so many bytes. */
function packFrame(encoded: readonly unknown[], tailBytes: number): Uint8Array {
  const packed = packr.pack(encoded, RESERVE_START_SPACE | PREFIX_BYTES);
  // A plain Uint8Array, so that `slice` of what is decoded from it copies; Buffer's does not.
  let frame = new Uint8Array(packed.buffer, packed.byteOffset, packed.length);
  if (tailBytes > 0) {
    const at = frame.length - EMPTY_BIN_BYTES;
    assert(frame[at] === BIN_8 && frame[at + 1] === 0, 'the frame ends in an empty bin');
    const head = new Uint8Array(at + 1 + 4);
    head.set(frame.subarray(0, at));
    head[at] = BIN_32;
    new DataView(head.buffer).setUint32(at + 1, tailBytes);
    frame = head;
  }
  const length = frame.length - PREFIX_BYTES + tailBytes;
  if (length > MAX_FRAME_BYTES) throw tooLarge(length);
  for (let i = 0; i < PREFIX_BYTES; i++) frame[i] = (length >>> (8 * i)) & 0xff;
  return frame;
}

/**
 * The messages of a frame's payload, `bytes[start … end)`. Throws BallastError FRAME_MALFORMED,
 * MESSAGE_INVALID or MESSAGE_UNEXPECTED.
 */
export function decodeFrame(
  bytes: Uint8Array,
  start: number,
  end: number,
  sender: Sender,
  bins: BinMode,
): Message[] {
  checkShape(bytes, start, end);
  // One copy of the whole frame is cheaper than one of each field.
  const own = bins === 'view' ? bytes : bytes.slice(start, end);
  const decoded: unknown[] =
    bins === 'view' ? unpackr.unpack(own, { start, end }) : unpackr.unpack(own);
  return decoded.map((message) => decodeMessage(message, sender));
}

export type FrameSink = (bytes: Uint8Array, start: number, end: number) => void;

/**
 * Cuts a byte stream into frames. A frame that lies whole in a chunk is handed on in place; the
 * rest is gathered in one buffer that is used again. Bytes are valid until the sink returns.
 */
export class FrameReader {
  readonly #sink: FrameSink;
  readonly #maxFrameBytes: number;
  #buffer = new Uint8Array(0);
  #used = 0;

  constructor(sink: FrameSink, maxFrameBytes = MAX_FRAME_BYTES) {
    this.#sink = sink;
    this.#maxFrameBytes = maxFrameBytes;
  }

  /** Bytes of a frame that has not arrived whole. */
  get pendingBytes(): number {
    return this.#used;
  }

  /** Bytes held for unfinished frames, used or not. */
  get bufferBytes(): number {
    return this.#buffer.length;
  }

  /** Throws BallastError FRAME_TOO_LARGE or FRAME_MALFORMED, or what the sink throws: the stream is lost. */
  push(chunk: Uint8Array): void {
    let at = this.#used === 0 ? 0 : this.#complete(chunk, 0);
    while (this.#used === 0 && chunk.length - at >= PREFIX_BYTES) {
      const start = at + PREFIX_BYTES;
      const end = start + this.#lengthAt(chunk, at);
      if (end > chunk.length) break;
      this.#sink(chunk, start, end);
      at = end;
    }
    if (at < chunk.length) this.#gather(chunk, at, chunk.length);
  }

  /** Finishes the frame in the buffer, if the chunk has enough; returns where the next one begins. */
  #complete(chunk: Uint8Array, from: number): number {
    let at = from;
    if (this.#used < PREFIX_BYTES) {
      at = Math.min(chunk.length, at + PREFIX_BYTES - this.#used);
      this.#gather(chunk, from, at);
      if (this.#used < PREFIX_BYTES) return at;
    }
    const frameBytes = PREFIX_BYTES + this.#lengthAt(this.#buffer, 0);
    const rest = at;
    at = Math.min(chunk.length, at + frameBytes - this.#used);
    this.#gather(chunk, rest, at);
    if (this.#used < frameBytes) return at;
    this.#used = 0;
    const buffer = this.#buffer;
    if (buffer.length > KEEP_BYTES) this.#buffer = new Uint8Array(0);
    this.#sink(buffer, PREFIX_BYTES, frameBytes);
    return at;
  }

  #lengthAt(bytes: Uint8Array, at: number): number {
    const length =
      (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)) >>> 0;
    if (length > this.#maxFrameBytes) throw tooLarge(length, this.#maxFrameBytes);
    if (length === 0)
      throw new BallastError('FRAME_MALFORMED', 'frame: expected bytes, found none');
    return length;
  }

  #gather(chunk: Uint8Array, from: number, to: number): void {
    const needed = this.#used + (to - from);
    if (needed > this.#buffer.length) {
      const grown = new Uint8Array(Math.max(needed, 2 * this.#buffer.length));
      grown.set(this.#buffer.subarray(0, this.#used));
      this.#buffer = grown;
    }
    this.#buffer.set(chunk.subarray(from, to), this.#used);
    this.#used = needed;
  }
}

function tooLarge(length: number, max = MAX_FRAME_BYTES): BallastError {
  return new BallastError(
    'FRAME_TOO_LARGE',
    `frame of ${length} bytes: at most ${max} are accepted`,
  );
}
