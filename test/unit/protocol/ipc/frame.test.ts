import fc from 'fast-check';
import { Packr, pack } from 'msgpackr';
import { describe, expect, test } from 'vitest';
import type { FieldKind } from '../../../../protocol/field-kind.ts';
import { MESSAGES, type Message } from '../../../../protocol/index.ts';
import {
  decodeFrame,
  encodeFrame,
  encodeFrameParts,
  FrameReader,
  MAX_FRAME_BYTES,
} from '../../../../protocol/ipc/frame.ts';
import { BallastError } from '../../../../shared/index.ts';

const anyOf: Readonly<Record<FieldKind, fc.Arbitrary<unknown>>> = {
  u8: fc.nat(255),
  u16: fc.nat(65535),
  u32: fc.nat(0xffff_ffff),
  u53: fc.maxSafeNat(),
  bool: fc.boolean(),
  str: fc.string({ unit: 'grapheme', maxLength: 200 }),
  bin: fc.uint8Array({ maxLength: 300 }),
  counters: fc
    .array(fc.tuple(fc.string({ maxLength: 20 }), fc.maxSafeInteger()), { maxLength: 20 })
    .map((pairs) => pairs.flat()),
  lines: fc.array(fc.string({ unit: 'grapheme', maxLength: 40 }), { maxLength: 20 }),
};

/** Any message that the guest may send. */
const guestMessage: fc.Arbitrary<Message> = fc.oneof(
  ...Object.entries(MESSAGES)
    .filter(([, { from }]) => from === 'guest' || from === 'both')
    .map(([name, { fields }]) =>
      fc.record({
        name: fc.constant(name),
        ...Object.fromEntries(Object.entries(fields).map(([f, kind]) => [f, anyOf[kind]])),
      }),
    ),
) as unknown as fc.Arbitrary<Message>;
const frame = fc.array(guestMessage, { maxLength: 12 });

/** Encodes what the channel refuses. */
const rich = new Packr({ useRecords: false, structuredClone: true, moreTypes: true });

function decode(payload: Uint8Array): Message[] {
  return decodeFrame(payload, 0, payload.length, 'guest', 'copy');
}

/** Pushes `stream` through a reader, cut at these sizes, over and over. */
function readAll(stream: Uint8Array, cuts: readonly number[]): Message[][] {
  const frames: Message[][] = [];
  const reader = new FrameReader((bytes, start, end) => {
    frames.push(decodeFrame(bytes, start, end, 'guest', 'copy'));
  });
  // One scratch buffer for all chunks, as a static read buffer: nothing may be kept of it.
  const scratch = new Uint8Array(4000);
  for (let at = 0, i = 0; at < stream.length; i++) {
    const size = cuts[i % cuts.length] ?? 1;
    const chunk = scratch.subarray(0, Math.min(size, stream.length - at));
    chunk.set(stream.subarray(at, at + size));
    reader.push(chunk);
    at += size;
  }
  expect(reader.pendingBytes).toBe(0);
  return frames;
}

const cuts = fc.array(fc.oneof(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 4000 })), {
  minLength: 1,
  maxLength: 6,
});

test.each([
  { id: 'small', bytes: 300, parts: 1 },
  { id: 'just below a piece of its own', bytes: 65_535, parts: 1 },
  { id: 'large', bytes: 65_536, parts: 2 },
])('a frame in pieces has the same bytes: $id', ({ bytes, parts }) => {
  const messages: Message[] = [
    { name: 'history', lines: ['x'] },
    { name: 'records', data: new Uint8Array(bytes).map((_, i) => i) },
  ];
  const pieces = encodeFrameParts(messages);
  expect(pieces.length).toBe(parts);
  expect(Buffer.concat(pieces).equals(encodeFrame(messages))).toBe(true);
});

describe('FrameReader', () => {
  test('gives back every frame, wherever the stream is cut', () => {
    fc.assert(
      fc.property(fc.array(frame, { maxLength: 5 }), cuts, (frames, sizes) => {
        const stream = Buffer.concat(frames.map((messages) => encodeFrame(messages)));
        expect(readAll(new Uint8Array(stream), sizes)).toEqual(frames);
      }),
      { numRuns: 150 },
    );
  });

  test('answers random bytes and bent frames with messages or a clear error, never else', () => {
    const bent = fc
      .tuple(frame, fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 4 }))
      .map(([messages, changes]) => {
        const bytes = encodeFrame(messages).slice();
        for (const [at, value] of changes) bytes[at % bytes.length] = value;
        return bytes;
      });
    let refused = 0;
    fc.assert(
      fc.property(fc.oneof(fc.uint8Array({ maxLength: 200 }), bent), cuts, (stream, sizes) => {
        const reader = new FrameReader((bytes, start, end) => {
          for (const message of decodeFrame(bytes, start, end, 'guest', 'view')) {
            expect(MESSAGES[message.name].from).not.toBe('host');
          }
        });
        try {
          for (let at = 0, i = 0; at < stream.length; i++) {
            const size = sizes[i % sizes.length] ?? 1;
            reader.push(stream.subarray(at, at + size));
            at += size;
          }
        } catch (error) {
          if (!(error instanceof BallastError)) throw error;
          expect(error.message).not.toContain('\n');
          refused++;
        }
        expect(reader.bufferBytes).toBeLessThanOrEqual(2 * stream.length);
      }),
      { numRuns: 3000 },
    );
    expect(refused).toBeGreaterThan(500);
  });

  test('refuses a length above the maximum before it allocates', () => {
    const reader = new FrameReader(() => {});
    const claim = Uint8Array.of(1, 0, 0, 4); // 64 MiB + 1
    expect(() => reader.push(claim)).toThrow(
      'frame of 67108865 bytes: at most 67108864 are accepted',
    );
    expect(reader.bufferBytes).toBe(0);
  });

  test('holds what has arrived of a large frame, not what is claimed', () => {
    const reader = new FrameReader(() => {});
    reader.push(Uint8Array.of(0, 0, 0, 4)); // exactly 64 MiB: allowed
    for (let i = 0; i < 100; i++) reader.push(new Uint8Array(1000));
    expect(reader.pendingBytes).toBe(100_004);
    expect(reader.bufferBytes).toBeLessThan(256 * 1024);
  });

  test('gives the buffer of a very large frame back', () => {
    let frames = 0;
    const reader = new FrameReader(() => {
      frames++;
    });
    const big = new Uint8Array(8 * 1024 * 1024);
    new DataView(big.buffer).setUint32(0, big.length - 4, true);
    reader.push(big.subarray(0, 5));
    reader.push(big.subarray(5));
    expect(frames).toBe(1);
    expect(reader.bufferBytes).toBe(0);
  });

  test('refuses an empty frame', () => {
    expect(() => new FrameReader(() => {}).push(new Uint8Array(4))).toThrow(BallastError);
  });
});

describe('a frame', () => {
  test('carries a view where views are wanted, and a copy elsewhere', () => {
    const bytes = encodeFrame([{ name: 'records', data: Uint8Array.of(1, 2, 3) }]).slice();
    const of = (bins: 'view' | 'copy') => {
      const [message] = decodeFrame(bytes, 4, bytes.length, 'guest', bins);
      return message?.name === 'records' ? message.data : new Uint8Array(0);
    };
    const view = of('view');
    const copy = of('copy');
    bytes.fill(9);
    expect(view).toEqual(Uint8Array.of(9, 9, 9));
    expect(copy).toEqual(Uint8Array.of(1, 2, 3));
    // One copy of the frame, and no more than that.
    expect(copy.buffer.byteLength).toBe(bytes.length - 4);
  });

  test('that would be too large is not sent', () => {
    const data = new Uint8Array(MAX_FRAME_BYTES);
    expect(() => encodeFrame([{ name: 'records', data }])).toThrow(/^frame of 6710\d+ bytes/);
  });

  // Expected text beside each: the first thing that is wrong, in words.
  const nested = (depth: number) => Uint8Array.of(...Array(depth).fill(0x91), 0x01);
  test.each([
    { id: 'nothing', bytes: [], says: 'claims 1 more bytes where 0 are left' },
    { id: 'a number', bytes: [0x05], says: 'expected an array of messages, found an integer' },
    { id: 'a map', bytes: pack({ a: 1 }), says: 'found a map' },
    { id: 'a map as message', bytes: pack([{ a: 1 }]), says: 'a message as an array, found a map' },
    { id: 'a map as field', bytes: pack([[53, { a: 1 }]]), says: 'found a map' },
    { id: 'a map in a list', bytes: pack([[53, [{}]]]), says: 'found a map' },
    { id: 'a list in a list', bytes: pack([[53, [[]]]]), says: 'found an array' },
    { id: '100000 arrays in each other', bytes: nested(100_000), says: 'found an array' },
    { id: 'a date', bytes: pack([[11, new Date(0), 0]]), says: 'found an extension' },
    { id: 'a regular expression', bytes: rich.pack([[11, /x/, 0]]), says: 'found an extension' },
    { id: 'a set', bytes: rich.pack([[11, new Set([1]), 0]]), says: 'found an extension' },
    {
      id: 'an error object',
      bytes: rich.pack([[11, new Error('x'), 0]]),
      says: 'found an extension',
    },
    { id: 'undefined', bytes: pack([[11, undefined, 0]]), says: 'found an extension' },
    {
      id: 'a record definition',
      bytes: [0x91, 0xd4, 0x72, 0x40, 0x91, 0xa1, 0x61, 1],
      says: 'found an extension',
    },
    { id: 'ext 8', bytes: [0x91, 0x92, 11, 0xc7, 0, 0x65], says: 'found an extension' },
    { id: 'ext 32', bytes: [0x91, 0x92, 11, 0xc9, 0, 0, 0, 0, 0x65], says: 'found an extension' },
    { id: 'the token that msgpack never uses', bytes: [0x91, 0x91, 0xc1], says: '0xc1' },
    { id: 'an array of 2^32−1 messages', bytes: [0xdd, 255, 255, 255, 255], says: 'at most 4096' },
    { id: '4097 messages', bytes: pack(Array(4097).fill([2])), says: 'at most 4096, found 4097' },
    { id: 'a message of 2^16−1 fields', bytes: [0x91, 0xdc, 255, 255], says: 'at most 32' },
    {
      id: 'a list of 2^32−1',
      bytes: [0x91, 0x92, 53, 0xdd, 255, 255, 255, 255],
      says: 'at most 1024',
    },
    { id: 'a list of 1025', bytes: pack([[53, Array(1025).fill('')]]), says: 'at most 1024' },
    {
      id: 'too many values in all',
      bytes: pack(Array(140).fill([53, Array(1000).fill(1)])),
      says: 'at most 131072 values',
    },
    {
      id: 'bytes of 4 GiB',
      bytes: [0x91, 0x92, 41, 0xc6, 255, 255, 255, 255],
      says: 'claims 4294967295',
    },
    {
      id: 'a string of 4 GiB',
      bytes: [0x91, 0x92, 3, 0xdb, 255, 255, 255, 255],
      says: 'at most 16384 bytes',
    },
    { id: 'a string cut short', bytes: [0x91, 0x92, 3, 0xa5, 0x61], says: 'claims 5' },
    { id: 'a length cut short', bytes: [0x91, 0x92, 41, 0xc6, 255], says: 'claims 4' },
    { id: 'a number cut short', bytes: [0x91, 0x92, 11, 0xcf, 1], says: 'claims 8' },
    { id: 'bytes after its end', bytes: [0x90, 0x90], says: '1 bytes after its array' },
  ])('that is or holds $id is malformed', ({ bytes, says }) => {
    const attempt = () => decode(Uint8Array.from(bytes));
    expect(attempt).toThrow(BallastError);
    expect(attempt).toThrow(says);
    expect(attempt).toThrow(/^frame: /);
  });

  test('is cut short nowhere without being refused', () => {
    const whole = encodeFrame([
      { name: 'statistics', counters: ['a', 1, 'b', 2.5] },
      { name: 'history', lines: ['x', 'y'.repeat(300)] },
      { name: 'records', data: new Uint8Array(300) },
    ]).slice(4);
    expect(decode(whole)).toHaveLength(3);
    for (let length = 0; length < whole.length; length++) {
      expect(() => decode(whole.subarray(0, length))).toThrow(BallastError);
    }
  });
});
