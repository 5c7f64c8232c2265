/**
 * Bytes on the wire, in both directions: a frame of right messages, damaged in one way that is known
 * to be wrong or in random ways, cut into chunks as a stream may cut it. What comes out must be
 * messages of the table, or one error of the right code and nothing allocated for a promise.
 */
import type { FieldKind } from '../protocol/field-kind.ts';
import { MESSAGES, type Message } from '../protocol/index.ts';
import { decodeFrame, FrameReader, MAX_FRAME_BYTES } from '../protocol/ipc/frame.ts';
import type { BallastErrorCode } from '../shared/index.ts';
import {
  ANY,
  type Direction,
  endOf,
  judge,
  type Kind,
  type Outcome,
  type Session,
  type Verdict,
} from './case.ts';
import type { Draw } from './draw.ts';
import { packFrame, type Raw, rawToken } from './raw.ts';
import { anyMessage, kindsOf, NAMES, namesOf, wrong } from './values.ts';

type Side = 'host' | 'guest';

interface Damage {
  /** Bytes for the stream. */
  readonly bytes: Uint8Array;
  readonly allowed: readonly Outcome[];
  /** Of an end, if it must have one of these. */
  readonly codes?: readonly BallastErrorCode[];
}

const ENDED: readonly Outcome[] = ['ended'];
const WAITING: readonly Outcome[] = ['ignored'];
const MALFORMED: readonly BallastErrorCode[] = ['FRAME_MALFORMED'];
const INVALID: readonly BallastErrorCode[] = ['MESSAGE_INVALID'];
const FRAME_OR_MESSAGE: readonly BallastErrorCode[] = ['FRAME_MALFORMED', 'MESSAGE_INVALID'];
/** What a frame may be refused with before anybody asks what it means. */
const REFUSALS: readonly BallastErrorCode[] = [
  'FRAME_MALFORMED',
  'FRAME_TOO_LARGE',
  'MESSAGE_INVALID',
  'MESSAGE_UNEXPECTED',
];

/** Tokens of msgpack that no field of ours may hold: maps, extensions, the token that never is. */
const ALIEN: readonly (readonly number[])[] = [
  [0xc1],
  [0x80],
  [0x81, 0xa1, 0x61, 0x01],
  [0xde, 0x00, 0x00],
  [0xdf, 0xff, 0xff, 0xff, 0xff],
  // Extensions: undefined, records, big integers, errors, references, regular expressions, sets, …
  ...[0x00, 0x42, 0x62, 0x65, 0x69, 0x70, 0x72, 0x73, 0x74, 0x78, 0xff].map((type) => [
    0xd4,
    type,
    0x00,
  ]),
  [0xd5, 0x72, 0x40, 0x40],
  [0xd6, 0xff, 0x00, 0x00, 0x00, 0x00],
  [0xc7, 0x08, 0x42, 1, 2, 3, 4, 5, 6, 7, 8],
  [0xc9, 0xff, 0xff, 0xff, 0xff, 0x42],
];
/** Values that promise more than there is. */
const PROMISES: readonly (readonly number[])[] = [
  [0xc6, 0xff, 0xff, 0xff, 0xff],
  [0xc6, 0x00, 0x10, 0x00, 0x00],
  [0xc5, 0xff, 0xff],
  [0xdb, 0xff, 0xff, 0xff, 0xff],
  [0xda, 0x40, 0x01],
  [0xdd, 0x00, 0x00, 0x03, 0xff],
  [0xdd, 0xff, 0xff, 0xff, 0xff],
  [0xdc, 0xff, 0xff],
];

/** Lists inside lists, so deep that a decoder which follows them runs out of stack. */
const DEEP: readonly Raw[] = [2, 3, 16, 1000, 20_000].map((depth) =>
  rawToken(...new Uint8Array(depth).fill(0x91), 0x01),
);

interface Frame {
  readonly messages: Raw[][];
  readonly names: readonly (keyof typeof MESSAGES)[];
}

function someFrame(draw: Draw, side: Side): Frame {
  const may = namesOf(side, true);
  const names = Array.from({ length: 1 + draw.pick([0, 1, 2, 5]) }, () => draw.pick(may));
  return { names, messages: names.map((name) => anyMessage(draw, name)) };
}

/** A place among the fields of a frame that has at least one. */
function somePlace(
  draw: Draw,
  frame: Frame,
): { message: Raw[]; field: number; kind: FieldKind } | null {
  const first = draw.below(frame.names.length);
  for (let i = 0; i < frame.names.length; i++) {
    const at = (first + i) % frame.names.length;
    const kinds = kindsOf(frame.names[at]!);
    if (kinds.length === 0) continue;
    const field = draw.below(kinds.length);
    return { message: frame.messages[at]!, field: field + 1, kind: kinds[field]! };
  }
  return null;
}

function put(draw: Draw, frame: Frame, value: Raw): void {
  const place = somePlace(draw, frame);
  if (place) place.message[place.field] = value;
  else frame.messages[0]!.push(value);
}

function setLength(bytes: Uint8Array, length: number): Uint8Array {
  new DataView(bytes.buffer).setUint32(0, length, true);
  return bytes;
}

/** Each way of being wrong, by what it is called in the table of results. */
const DAMAGE: Readonly<Record<string, (draw: Draw, side: Side) => Damage>> = {
  none: (draw, side) => ({
    bytes: packFrame(someFrame(draw, side).messages),
    allowed: ['served'],
  }),
  'empty frame': () => ({ bytes: packFrame([]), allowed: ['served'] }),
  'length 0': () => ({ bytes: new Uint8Array(4), allowed: ENDED, codes: MALFORMED }),
  'length beyond the limit': (draw, side) => ({
    bytes: setLength(
      packFrame(someFrame(draw, side).messages),
      MAX_FRAME_BYTES + 1 + draw.below(2 ** 31),
    ),
    allowed: ENDED,
    codes: ['FRAME_TOO_LARGE'],
  }),
  'length too large': (draw, side) => {
    const bytes = packFrame(someFrame(draw, side).messages);
    return {
      bytes: setLength(bytes, bytes.length - 4 + 1 + draw.below(1 << 20)),
      allowed: WAITING,
    };
  },
  'length too small': (draw, side) => {
    const bytes = packFrame(someFrame(draw, side).messages);
    const length = 1 + draw.below(bytes.length - 4 - 1 || 1);
    const short = length < bytes.length - 4;
    return {
      bytes: setLength(bytes, length),
      allowed: short ? ENDED : ['served'],
      codes: REFUSALS,
    };
  },
  'bytes after the array': (draw, side) => {
    const frame = packFrame(someFrame(draw, side).messages);
    const bytes = new Uint8Array(frame.length + 1 + draw.below(16));
    bytes.set(frame);
    return { bytes: setLength(bytes, bytes.length - 4), allowed: ENDED, codes: MALFORMED };
  },
  'no array of messages': (draw) => ({
    bytes: packedToken(
      draw.pick([[0x01], [0xc0], [0xa1, 0x61], [0xc4, 0x00], [0x80], [0xd4, 0, 0]]),
    ),
    allowed: ENDED,
    codes: MALFORMED,
  }),
  'message is no array': (draw) => ({
    bytes: packFrame([draw.pick<Raw>([1, null, 'x', true, new Uint8Array(3)])]),
    allowed: ENDED,
    codes: MALFORMED,
  }),
  'too many messages': (draw) => ({
    bytes: packFrame(Array.from({ length: 4097 + draw.below(64) }, () => [MESSAGES.bye.id])),
    allowed: ENDED,
    codes: MALFORMED,
  }),
  'too many values': () => ({
    bytes: packFrame(
      Array.from({ length: 4096 }, () => [3, Array.from({ length: 48 }, () => 1), '']),
    ),
    allowed: ENDED,
    codes: MALFORMED,
  }),
  'nested too deep': (draw, side) => {
    const frame = someFrame(draw, side);
    put(draw, frame, draw.pick(DEEP));
    return { bytes: packFrame(frame.messages), allowed: ENDED, codes: MALFORMED };
  },
  'alien token': (draw, side) => {
    const frame = someFrame(draw, side);
    put(draw, frame, rawToken(...draw.pick(ALIEN)));
    return { bytes: packFrame(frame.messages), allowed: ENDED, codes: MALFORMED };
  },
  'length that lies': (draw, side) => {
    const frame = someFrame(draw, side);
    put(draw, frame, rawToken(...draw.pick(PROMISES)));
    return { bytes: packFrame(frame.messages), allowed: ENDED, codes: FRAME_OR_MESSAGE };
  },
  'unknown message': (draw, side) => {
    const frame = someFrame(draw, side);
    const ids: readonly number[] = NAMES.map((name) => MESSAGES[name].id);
    const unknown = [0, 4, 255, 9999, -1, 1.5, 2 ** 40].filter((id) => !ids.includes(id));
    frame.messages[draw.below(frame.messages.length)]![0] = draw.pick<Raw>([
      ...unknown,
      null,
      'run',
      [],
    ]);
    return { bytes: packFrame(frame.messages), allowed: ENDED, codes: FRAME_OR_MESSAGE };
  },
  'message without id': (draw, side) => {
    const frame = someFrame(draw, side);
    frame.messages[draw.below(frame.messages.length)]!.length = 0;
    return { bytes: packFrame(frame.messages), allowed: ENDED, codes: INVALID };
  },
  "other side's message": (draw, side) => {
    const name = draw.pick(namesOf(side, false));
    const messages = [...someFrame(draw, side).messages, anyMessage(draw, name)];
    return { bytes: packFrame(messages), allowed: ENDED, codes: ['MESSAGE_UNEXPECTED'] };
  },
  'field missing': (draw, side) => {
    const name = draw.pick(namesOf(side, true).filter((one) => kindsOf(one).length > 0));
    return {
      bytes: packFrame([anyMessage(draw, name).slice(0, -1)]),
      allowed: ENDED,
      codes: INVALID,
    };
  },
  'field too many': (draw, side) => {
    const message = [...anyMessage(draw, draw.pick(namesOf(side, true))), 0];
    return { bytes: packFrame([message]), allowed: ENDED, codes: INVALID };
  },
  'field of a wrong kind': (draw, side) => {
    const frame = someFrame(draw, side);
    const place = somePlace(draw, frame);
    if (!place) return { bytes: packFrame(frame.messages), allowed: ['served'] };
    place.message[place.field] = wrong(draw, place.kind);
    return { bytes: packFrame(frame.messages), allowed: ENDED, codes: FRAME_OR_MESSAGE };
  },
  'flipped bytes': (draw, side) => {
    const bytes = packFrame(someFrame(draw, side).messages);
    for (let i = draw.pick([1, 2, 4, 16]); i > 0; i--)
      bytes[draw.below(bytes.length)] = draw.below(256);
    return { bytes, allowed: ANY, codes: REFUSALS };
  },
  'bytes inserted or removed': (draw, side) => {
    const frame = packFrame(someFrame(draw, side).messages);
    const at = draw.below(frame.length);
    const extra = draw.bytes(draw.pick([0, 1, 4, 9]));
    const rest = frame.subarray(Math.min(frame.length, at + draw.pick([1, 0, 4, 9])));
    const bytes = new Uint8Array([...frame.subarray(0, at), ...extra, ...rest]);
    if (bytes.length > 4 && draw.chance(1, 2)) setLength(bytes, bytes.length - 4);
    return { bytes, allowed: ANY, codes: REFUSALS };
  },
  noise: (draw) => {
    const bytes = draw.bytes(draw.pick([5, 0, 1, 3, 4, 16, 64]));
    if (bytes.length > 4 && draw.chance(3, 4)) setLength(bytes, bytes.length - 4);
    return { bytes, allowed: ANY, codes: REFUSALS };
  },
};
/** These take as long as some hundred others. */
const HEAVY: readonly string[] = ['too many messages', 'too many values'];
const LABELS = Object.keys(DAMAGE).flatMap((label) =>
  HEAVY.includes(label) ? [label] : Array.from({ length: 64 }, () => label),
);

function packedToken(token: readonly number[]): Uint8Array {
  const bytes = Uint8Array.from([0, 0, 0, 0, ...token]);
  return setLength(bytes, token.length);
}

/** A reader that has unfinished frames holds at most twice what arrived. */
const HELD_FACTOR = 2;

class FrameSession implements Session {
  trace: string[] = [];
  readonly #side: Side;

  constructor(side: Side) {
    this.#side = side;
  }

  next(draw: Draw): Verdict {
    const label = draw.pick(LABELS);
    const { bytes, allowed, codes } = DAMAGE[label]!(draw, this.#side);
    this.trace = [`${bytes.length} bytes: ${hex(bytes)}`];
    const received: Message[] = [];
    const mode = this.#side === 'host' ? 'view' : 'copy';
    const reader = new FrameReader((frame, start, end) => {
      received.push(...decodeFrame(frame, start, end, this.#side, mode));
    });
    let frames = 0;
    let code: BallastErrorCode | null = null;
    try {
      for (const chunk of chunks(draw, bytes)) reader.push(chunk);
      frames = reader.pendingBytes === 0 ? 1 : 0;
    } catch (error) {
      code = endOf(error).code;
    }
    if (reader.bufferBytes > HELD_FACTOR * bytes.length) {
      return failed(label, 'served', `holds ${reader.bufferBytes} bytes of ${bytes.length}`);
    }
    const outcome = code !== null ? 'ended' : frames > 0 ? 'served' : 'ignored';
    if (code !== null && codes && !codes.includes(code)) {
      return failed(label, outcome, `ended with ${code}, expected ${codes.join(' or ')}`);
    }
    const bad = received.find((message) => !isOfTheTable(message, this.#side));
    if (bad) return failed(label, outcome, `let ${bad.name} pass with fields of a wrong kind`);
    return judge(label, outcome, allowed);
  }

  close(): null {
    return null;
  }
}

function failed(label: string, outcome: Outcome, what: string): Verdict {
  return { label, outcome, problem: `${label}: ${what}` };
}

/** As a stream cuts it: whole, in two, or byte by byte. */
function chunks(draw: Draw, bytes: Uint8Array): Uint8Array[] {
  const how = draw.below(8);
  if (how < 5 || bytes.length < 2) return [bytes];
  if (how < 7) {
    const at = 1 + draw.below(bytes.length - 1);
    return [bytes.slice(0, at), bytes.slice(at)];
  }
  const pieces: Uint8Array[] = [];
  for (let at = 0; at < bytes.length; at += at < 16 ? 1 : 64) {
    pieces.push(bytes.slice(at, at + (at < 16 ? 1 : 64)));
  }
  return pieces;
}

/** A check that shares nothing with the one that it checks but the table. */
function isOfTheTable(message: Message, side: Side): boolean {
  const shape = MESSAGES[message.name];
  if (shape.from !== 'both' && shape.from !== side) return false;
  const values = message as unknown as Readonly<Record<string, unknown>>;
  return Object.entries<FieldKind>(shape.fields).every(([field, kind]) =>
    isOfKind(values[field], kind),
  );
}

function isOfKind(value: unknown, kind: FieldKind): boolean {
  switch (kind) {
    case 'bool':
      return value === true || value === false;
    case 'str':
      return typeof value === 'string' && value.length <= 4096;
    case 'bin':
      return value instanceof Uint8Array;
    case 'lines':
      return (
        Array.isArray(value) && value.length <= 256 && value.every((line) => isOfKind(line, 'str'))
      );
    case 'counters':
      return Array.isArray(value) && value.length <= 1024 && value.length % 2 === 0;
    default: {
      const limits = { u8: 2 ** 8, u16: 2 ** 16, u32: 2 ** 32, u53: 2 ** 53 };
      return Number.isInteger(value) && (value as number) >= 0 && (value as number) < limits[kind];
    }
  }
}

function hex(bytes: Uint8Array): string {
  const shown = Buffer.from(bytes.subarray(0, 96)).toString('hex');
  return bytes.length > 96 ? `${shown}…` : shown;
}

export function framesOf(direction: Direction): Kind {
  const side = direction === 'guest-to-host' ? 'guest' : 'host';
  return {
    name: 'frames',
    direction,
    about: `bytes that a ${side} sends, before they are messages`,
    weight: 25,
    casesPerSession: 64,
    open: () => new FrameSession(side),
  };
}
