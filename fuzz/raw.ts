/**
 * A msgpack writer of its own, so that a frame can hold what ours refuses to write: values of a wrong
 * kind, lengths that lie, extension types, tokens that do not exist.
 */
import { MESSAGES, type Message } from '../protocol/index.ts';

/** Bytes that stand where a value is expected. */
export interface Token {
  readonly token: Uint8Array;
}
export type Raw = number | boolean | null | string | Uint8Array | Token | readonly Raw[];

const text = new TextEncoder();
let buffer = new Uint8Array(1 << 16);
let view = new DataView(buffer.buffer);
let at = 0;

/** A message as it travels: `[id, field, …]`. */
export function positional(message: Message): Raw[] {
  const { id, fields } = MESSAGES[message.name];
  const values = message as unknown as Readonly<Record<string, Raw>>;
  return [id, ...Object.keys(fields).map((field) => values[field]!)];
}

/** A frame with its length prefix. */
export function packFrame(messages: readonly Raw[]): Uint8Array {
  at = 4;
  write(messages);
  view.setUint32(0, at - 4, true);
  return buffer.slice(0, at);
}

export function rawToken(...bytes: readonly number[]): Token {
  return { token: Uint8Array.from(bytes) };
}

function write(value: Raw): void {
  reserve(16);
  if (typeof value === 'number') writeNumber(value);
  else if (typeof value === 'boolean') buffer[at++] = value ? 0xc3 : 0xc2;
  else if (value === null) buffer[at++] = 0xc0;
  else if (typeof value === 'string') writeString(value);
  else if (value instanceof Uint8Array) writeBin(value);
  else if (isToken(value)) append(value.token);
  else {
    writeArrayHeader(value.length);
    for (const item of value) write(item);
  }
}

function isToken(value: Token | readonly Raw[]): value is Token {
  return 'token' in value;
}

function writeNumber(value: number): void {
  if (Number.isInteger(value) && value >= 0 && value < 0x80) buffer[at++] = value;
  else if (Number.isInteger(value) && value >= 0 && value <= 0xffff_ffff) {
    buffer[at++] = 0xce;
    view.setUint32(at, value);
    at += 4;
  } else {
    buffer[at++] = 0xcb;
    view.setFloat64(at, value);
    at += 8;
  }
}

function writeString(value: string): void {
  const bytes = text.encode(value);
  buffer[at++] = 0xdb;
  view.setUint32(at, bytes.length);
  at += 4;
  append(bytes);
}

function writeBin(bytes: Uint8Array): void {
  buffer[at++] = 0xc6;
  view.setUint32(at, bytes.length);
  at += 4;
  append(bytes);
}

function writeArrayHeader(length: number): void {
  if (length < 16) {
    buffer[at++] = 0x90 | length;
    return;
  }
  buffer[at++] = 0xdd;
  view.setUint32(at, length);
  at += 4;
}

function append(bytes: Uint8Array): void {
  reserve(bytes.length);
  buffer.set(bytes, at);
  at += bytes.length;
}

function reserve(count: number): void {
  if (at + count <= buffer.length) return;
  const grown = new Uint8Array(Math.max(at + count, 2 * buffer.length));
  grown.set(buffer.subarray(0, at));
  buffer = grown;
  view = new DataView(buffer.buffer);
}
