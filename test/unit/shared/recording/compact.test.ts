import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { BallastError, Bitmap } from '../../../../shared/index.ts';
import {
  decodeRecording,
  EventColumns,
  EventKind,
  encodeRecording,
  parseGfp,
  type Recording,
} from '../../../../shared/recording/index.ts';

const FRAMES = 1100;
const GFP_TEXTS = ['GFP_KERNEL', 'GFP_HIGHUSER_MOVABLE|__GFP_ZERO'];

interface EventInput {
  readonly deltaNs: number;
  readonly kind: 0 | 1;
  readonly order: number;
  readonly block: number;
  readonly gfpClass: number;
  readonly cpu: number;
  readonly migratetype: number;
}

function recordingOf(inputs: readonly EventInput[], setBits: readonly number[]): Recording {
  const events = new EventColumns(0);
  let atNs = 0;
  for (const input of inputs) {
    atNs += input.deltaNs;
    const pfn = ((input.block << input.order) % (FRAMES - 1024)) & ~((1 << input.order) - 1);
    const i = events.push(atNs, input.kind, pfn, input.order, input.cpu);
    if (input.kind === EventKind.FREE) continue;
    events.gfpClass[i] = input.gfpClass;
    events.migratetype[i] = input.migratetype;
  }
  const set = (shift: number): Bitmap => {
    const bitmap = new Bitmap(FRAMES);
    for (const bit of setBits) bitmap.set((bit + shift) % FRAMES);
    return bitmap;
  };
  return {
    header: {
      name: 'synthetic',
      memMiB: 4,
      frameCount: FRAMES,
      vcpus: 4,
      kernel: 'Linux 6.1',
      kernelParameters: '',
      initOnAlloc: true,
      freshBoot: false,
      workload: 'none – ünïcode',
      hypervisor: 'none',
      recordedWithFreePageHint: false,
      bandwidthBytesPerS: 1e8,
      downtimeLimitMs: 300,
      traceStartNs: 17,
      traceEndNs: atNs,
      migrateAtNs: 5,
      migratedAtNs: 6,
      inPlaceDirty: { pagesPerSecond: 10, setPages: 20 },
      measured: [],
      gfpClasses: GFP_TEXTS.map(parseGfp),
      consistency: {
        allocs: 0,
        frees: 0,
        failedAllocs: 0,
        freeBatched: 0,
        batchedWithoutFree: 0,
        otherEvents: 0,
        lostEvents: 0,
        malformedLines: 0,
        timeReversals: 0,
        onPcpPages: 0,
        doubleAllocPages: 0,
        doubleFreePages: 0,
        endMismatchPages: 0,
      },
    },
    start: {
      free: set(0),
      onPcp: set(1),
      reserved: set(2),
      noPage: set(3),
      zero: set(4),
      neverTouched: set(5),
      pageblockMigratetype: Uint8Array.of(1, 0, 2),
    },
    zeroAtMigrate: set(6),
    freeAtEnd: set(7),
    events: events.trimmed(),
  };
}

const eventArbitrary: fc.Arbitrary<EventInput> = fc.record({
  // Up to a day between two events, whole microseconds or not.
  deltaNs: fc.oneof(
    fc.nat(3000),
    fc.nat(86_400_000).map((ms) => ms * 1_000_000),
  ),
  kind: fc.constantFrom(0, 1),
  order: fc.nat(10),
  block: fc.nat(FRAMES),
  gfpClass: fc.nat(GFP_TEXTS.length - 1),
  cpu: fc.nat(3),
  migratetype: fc.nat(5),
});

const example = recordingOf(
  Array.from({ length: 40 }, (_, i) => ({
    deltaNs: 1000 * i,
    kind: (i & 1) as 0 | 1,
    order: i % 3,
    block: i,
    gfpClass: i & 1,
    cpu: i & 3,
    migratetype: 1,
  })),
  [0, 5, 1099],
);

/** What a reader says of these bytes: undefined if it takes them. */
function refusal(bytes: Uint8Array): BallastError | undefined {
  try {
    decodeRecording(bytes, 'x.ballast');
    return undefined;
  } catch (error) {
    if (error instanceof BallastError) return error;
    throw error;
  }
}

describe('compact recording', () => {
  test('is read as it was written', () => {
    fc.assert(
      fc.property(
        fc.array(eventArbitrary, { maxLength: 60 }),
        fc.array(fc.nat(FRAMES - 1)),
        (inputs, bits) => {
          const recording = recordingOf(inputs, bits);
          expect(decodeRecording(encodeRecording(recording), 'x')).toEqual(recording);
        },
      ),
      { numRuns: 60 },
    );
  });

  test('is the same bytes every time', () => {
    expect(encodeRecording(example)).toEqual(encodeRecording(example));
  });

  test('is refused in one line wherever it is cut off', () => {
    const bytes = encodeRecording(example);
    for (let length = 0; length < bytes.length; length += length < 200 ? 1 : 100) {
      const error = refusal(bytes.subarray(0, length));
      expect(error?.code, `cut at ${length}`).toBe('RECORDING_MALFORMED');
      expect(error?.message).toMatch(/^x\.ballast: expected [^\n]+, found [^\n]+$/);
    }
    expect(refusal(Buffer.concat([bytes, Buffer.alloc(1)]))?.code).toBe('RECORDING_MALFORMED');
  });

  test('is refused whichever bit is flipped', () => {
    const bytes = encodeRecording(example);
    for (let at = 0; at < bytes.length; at += at < 64 ? 1 : 37) {
      const flipped = bytes.slice();
      flipped[at]! ^= 1 << (at & 7);
      expect(refusal(flipped)?.code, `bit of byte ${at}`).toBe('RECORDING_MALFORMED');
    }
  });

  test('counts from the time of the first event, held at microseconds where the trace has no more', () => {
    const { events } = decodeRecording(encodeRecording(example), 'x');
    expect([...events.atNs.subarray(0, 4)]).toEqual([0, 1000, 3000, 6000]);
  });

  test('is refused if what it says is impossible, though its digest is right', () => {
    type Forgery = [what: string, expected: RegExp, forge: (recording: Recording) => Recording];
    const withHeader = (recording: Recording, header: object): Recording => ({
      ...recording,
      header: { ...recording.header, ...header },
    });
    const forgeries: Forgery[] = [
      ['no CPU', /header\.vcpus: expected an integer/, (r) => withHeader(r, { vcpus: 0 })],
      ['a CPU beyond the last', /signatures/, (r) => withHeader(r, { vcpus: 2 })],
      ['fewer frames', /section free/, (r) => withHeader(r, { frameCount: 64 })],
      ['frames without end', /header\.frameCount/, (r) => withHeader(r, { frameCount: 2 ** 40 })],
      ['a text as time', /header\.migrateAtNs/, (r) => withHeader(r, { migrateAtNs: '5' })],
      ['no classes', /signatures/, (r) => withHeader(r, { gfpClasses: [] })],
      ['no consistency', /header\.consistency/, (r) => withHeader(r, { consistency: {} })],
      [
        'a pfn beyond the last frame',
        /40 valid events/,
        (r) => ({ ...r, events: { ...r.events, pfn: r.events.pfn.map((pfn) => pfn + 2048) } }),
      ],
      [
        'a set beyond the last frame',
        /set free/,
        (r) => {
          const free = r.start.free.clone();
          free.words[free.words.length - 1] = -1;
          return { ...r, start: { ...r.start, free } };
        },
      ],
      [
        'an unknown migrate type',
        /migrate type/,
        (r) => ({ ...r, start: { ...r.start, pageblockMigratetype: Uint8Array.of(1, 0, 9) } }),
      ],
    ];
    for (const [what, expected, forge] of forgeries) {
      const error = refusal(encodeRecording(forge(example)));
      expect(error?.message, what).toMatch(expected);
      expect(error?.code, what).toBe('RECORDING_MALFORMED');
    }
  });
});
