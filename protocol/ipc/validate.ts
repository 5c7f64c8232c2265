import { assert, BallastError } from '../../shared/index.ts';
import type { FieldKind } from '../field-kind.ts';
import type { Sender } from '../message-shape.ts';
import { MESSAGES, type Message, type MessageName } from '../messages.ts';

/**
 * Messages to and from their positional arrays `[id, field, …]`. Everything here derives from the
 * table of messages: what each field may hold, how many there are, who may send the message.
 */

interface Kind {
  readonly expected: string;
  accepts(value: unknown): boolean;
}

const MAX_STRING = 4096;
const MAX_COUNTER_PAIRS = 512;
const MAX_LINES = 256;

const KINDS: Readonly<Record<FieldKind, Kind>> = {
  u8: unsigned(0xff, '255'),
  u16: unsigned(0xffff, '65535'),
  u32: unsigned(0xffff_ffff, '2^32−1'),
  u53: unsigned(Number.MAX_SAFE_INTEGER, '2^53−1'),
  bool: { expected: 'a boolean', accepts: (value) => typeof value === 'boolean' },
  str: { expected: `a string of at most ${MAX_STRING} characters`, accepts: isString },
  bin: { expected: 'bytes', accepts: (value) => value instanceof Uint8Array },
  counters: {
    expected: `a list of at most ${MAX_COUNTER_PAIRS} pairs of name and number`,
    accepts: isCounters,
  },
  lines: {
    expected: `a list of at most ${MAX_LINES} strings`,
    accepts: (value) => Array.isArray(value) && value.length <= MAX_LINES && value.every(isString),
  },
};

interface Layout {
  readonly name: MessageName;
  readonly id: number;
  readonly from: Sender | 'both';
  readonly fields: readonly string[];
  readonly kindNames: readonly FieldKind[];
  readonly kinds: readonly Kind[];
}

const layouts: readonly Layout[] = (Object.keys(MESSAGES) as MessageName[]).map((name) => {
  const { id, from, fields } = MESSAGES[name];
  const kindNames: FieldKind[] = Object.values(fields);
  const kinds = kindNames.map((kind) => KINDS[kind]);
  return { name, id, from, fields: Object.keys(fields), kindNames, kinds };
});
const byName = new Map<MessageName, Layout>(layouts.map((layout) => [layout.name, layout]));
const byId: (Layout | undefined)[] = [];
for (const layout of layouts) {
  assert(byId[layout.id] === undefined, 'every message has its own id');
  byId[layout.id] = layout;
}

/** The positional array of a message of our own; a field out of its bounds is our error. */
export function encodeMessage(message: Message): unknown[] {
  const layout = byName.get(message.name);
  assert(layout !== undefined, 'a message has a name of the table');
  const values: Readonly<Record<string, unknown>> = message;
  const encoded: unknown[] = [layout.id];
  for (let i = 0; i < layout.fields.length; i++) {
    const value = values[layout.fields[i] as string];
    const kind = layout.kinds[i] as Kind;
    if (!kind.accepts(value)) assert(false, wrong(layout, i, kind, value));
    encoded.push(value);
  }
  return encoded;
}

/**
 * The message that a decoded array is. Throws BallastError MESSAGE_INVALID (not of the table) or
 * MESSAGE_UNEXPECTED (of the table, but not for this sender).
 */
export function decodeMessage(value: unknown, sender: Sender): Message {
  if (!Array.isArray(value)) {
    throw new BallastError('MESSAGE_INVALID', `expected a message, found ${describe(value)}`);
  }
  const id: unknown = value[0];
  const layout = typeof id === 'number' ? byId[id] : undefined;
  if (layout === undefined) {
    throw new BallastError('MESSAGE_INVALID', `expected a message id, found ${describe(id)}`);
  }
  if (layout.from !== 'both' && layout.from !== sender) {
    throw new BallastError('MESSAGE_UNEXPECTED', `${layout.name}: the ${sender} may not send it`);
  }
  const { fields, kinds } = layout;
  if (value.length !== fields.length + 1) {
    throw new BallastError(
      'MESSAGE_INVALID',
      `${layout.name}: expected ${fields.length} fields, found ${value.length - 1}`,
    );
  }
  const message: Record<string, unknown> = { name: layout.name };
  for (let i = 0; i < fields.length; i++) {
    const field: unknown = value[i + 1];
    const kind = kinds[i] as Kind;
    if (!kind.accepts(field)) {
      throw new BallastError('MESSAGE_INVALID', wrong(layout, i, kind, field));
    }
    message[fields[i] as string] = field;
  }
  // Shape and kinds were checked against the same table that the type derives from.
  return message as unknown as Message;
}

/** 32-bit FNV-1a of the table: ids, names, senders, field names and kinds, in order of id. */
export function layoutHash(): number {
  const text = [...layouts]
    .sort((a, b) => a.id - b.id)
    .map(({ id, name, from, fields, kindNames }) => {
      return `${id} ${name} ${from} ${fields.map((field, i) => `${field}:${kindNames[i]}`).join(' ')}\n`;
    })
    .join('');
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return hash >>> 0;
}

/** `text` shortened to what a `str` field holds. */
export function clipString(text: string): string {
  return text.length <= MAX_STRING ? text : `${text.slice(0, MAX_STRING - 1)}…`;
}

function unsigned(max: number, maxText: string): Kind {
  return {
    expected: `an integer in 0 … ${maxText}`,
    accepts: (value) =>
      Number.isInteger(value) && (value as number) >= 0 && (value as number) <= max,
  };
}

function isString(value: unknown): boolean {
  return typeof value === 'string' && value.length <= MAX_STRING;
}

function isCounters(value: unknown): boolean {
  if (!Array.isArray(value) || value.length % 2 !== 0 || value.length > 2 * MAX_COUNTER_PAIRS) {
    return false;
  }
  return value.every((item, i) => (i % 2 === 0 ? isString(item) : Number.isFinite(item)));
}

function wrong(layout: Layout, index: number, kind: Kind, value: unknown): string {
  return `${layout.name}.${layout.fields[index]}: expected ${kind.expected}, found ${describe(value)}`;
}

function describe(value: unknown): string {
  if (typeof value === 'string') return `a string of ${value.length} characters`;
  if (value instanceof Uint8Array) return `${value.length} bytes`;
  if (Array.isArray(value)) return `a list of ${value.length}`;
  return typeof value === 'object' && value !== null ? 'an object' : String(value);
}
