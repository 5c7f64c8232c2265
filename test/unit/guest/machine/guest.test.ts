/** What a hostile or mistaken host may send: refused as bad messages are, or ignored; nothing grows. */
import { describe, expect, test } from 'vitest';
import { Guest } from '../../../../guest/machine/guest.ts';
import {
  DEFAULT_KERNEL_OPTIONS,
  type GuestConfig,
  type Message,
  u32Bytes,
} from '../../../../protocol/index.ts';
import {
  BallastError,
  type BallastErrorCode,
  Bitmap,
  DEFAULT_COSTS,
  NS_PER_MS,
} from '../../../../shared/index.ts';
import { tinyRecording } from '../../../support/tiny-recording.ts';
import { NO_INIT } from '../mm/machine.ts';

const FRAMES = 4096;
const MS = NS_PER_MS;

function machine(config: Partial<GuestConfig> = {}) {
  const recording = tinyRecording({
    frameCount: FRAMES,
    free: [[1024, 3072]],
    events: [
      { atNs: 0, kind: 'alloc', pfn: 2000 },
      { atNs: 10 * MS, kind: 'alloc', pfn: 2001 },
    ],
  });
  const lines: string[] = [];
  const guest = new Guest(
    {
      seed: 1,
      ramPages: FRAMES,
      vcpus: 1,
      mm: NO_INIT,
      kernel: DEFAULT_KERNEL_OPTIONS,
      strategy: 'iterate',
      iterate: { budgetNodes: 100, minOrder: 0 },
      recordingPath: null,
      costs: DEFAULT_COSTS,
      auditEveryEvents: 0,
      logPath: null,
      ...config,
    },
    recording,
    (line) => lines.push(line),
  );
  return { guest, lines };
}

function run(until_ns: number): Message {
  return { name: 'run', until_ns, notify_ns: 20_000 };
}

const NO_DEVICE: readonly Message[] = [
  { name: 'deviceInfo', device_id: 0, queue_count: 0, config_size: 0 },
  { name: 'deviceFeatures', low: 0, high: 0 },
  { name: 'status', status: 0 },
];

/** Nothing sits on the transport: the driver's probe ends. */
function pastProbe(guest: Guest): void {
  for (let accesses = 0; accesses < 10; accesses++) {
    const frame = guest.handle([run(MS)]);
    if (frame.at(-1)?.name === 'exit' && guest.statistics()['now_ns'] === MS) return;
    const asked = frame.at(-2)?.name.replace('get', '').toLowerCase();
    guest.handle(NO_DEVICE.filter(({ name }) => name.toLowerCase() === asked));
  }
  expect.fail('the probe ends');
}

function refusal(guest: Guest, frame: Message[]): BallastErrorCode | null {
  try {
    guest.handle(frame);
    return null;
  } catch (error) {
    expect(error).toBeInstanceOf(BallastError);
    expect((error as Error).message).toMatch(/^[^\n]{1,200}$/);
    return (error as BallastError).code;
  }
}

const ranges = (...pairs: number[]) => u32Bytes(Uint32Array.of(...pairs));
const bytes = (count: number) => new Uint8Array(count).fill(0xff);

describe('a guest refuses', () => {
  test('to run while a device access waits for its answer', () => {
    const { guest } = machine();
    expect(guest.handle([run(MS)]).map(({ name }) => name)).toEqual(['getDeviceInfo', 'exit']);
    expect(refusal(guest, [run(2 * MS)])).toBe('MESSAGE_UNEXPECTED');
  });

  test.each<Message>([
    { name: 'deviceInfo', device_id: 5, queue_count: 5, config_size: 16 },
    { name: 'deviceFeatures', low: 0, high: 1 },
    { name: 'status', status: 0 },
    { name: 'config', generation: 0, data: bytes(4) },
    { name: 'queue', index: 0, max_size: 128, enabled: false },
  ])('$name that answers no device access', (message) => {
    const { guest } = machine();
    expect(refusal(guest, [message])).toBe('MESSAGE_UNEXPECTED');
    guest.handle([run(MS)]);
    const answer: Message = { name: 'deviceInfo', device_id: 0, queue_count: 0, config_size: 0 };
    expect(refusal(guest, [answer, message])).toBe('MESSAGE_UNEXPECTED');
  });

  test('an answer of another kind than its driver asked for', () => {
    const { guest } = machine();
    guest.handle([run(MS)]);
    expect(refusal(guest, [{ name: 'status', status: 0xff }, run(2 * MS)])).toBe(
      'MESSAGE_UNEXPECTED',
    );
  });

  test.each<Message>([
    {
      name: 'hello',
      version: 1,
      layout: 0,
      role: 'host',
      page_size: 4096,
      record_size: 0,
      ram_pages: 0,
      ram_segments: bytes(0),
      vcpus: 0,
      plan_sha256: '',
      plan: [],
    },
    exitOfAGuest(),
    { name: 'getDeviceInfo' },
    { name: 'setStatus', status: 0 },
    { name: 'records', data: bytes(4) },
    { name: 'freeSet', bits: bytes(4) },
    { name: 'error', code: 'X', message: 'x' },
  ])('$name: it is not for it', (message) => {
    const { guest } = machine();
    pastProbe(guest);
    expect(refusal(guest, [message])).toBe('MESSAGE_UNEXPECTED');
  });

  const bad: readonly [what: string, ranges: Uint8Array][] = [
    ['beyond RAM', ranges(FRAMES, 1)],
    ['across the end of RAM', ranges(FRAMES - 1, 2)],
    ['that wrap around 2^32', ranges(0xffff_ffff, 2)],
    ['of 2^32−1 frames', ranges(0, 0xffff_ffff)],
    ['that are together more than RAM', ranges(0, FRAMES, 0, 1)],
    ['of one number', u32Bytes(Uint32Array.of(1, 2, 3))],
    ['of half a number', bytes(6)],
  ];
  const askers: readonly ((of: Uint8Array) => Message)[] = [
    (of) => ({ name: 'read', ranges: of }),
    (of) => ({ name: 'write', ranges: of, data: bytes(8) }),
    (of) => ({ name: 'discard', ranges: of }),
    (of) => ({ name: 'countFree', ranges: of }),
  ];
  test.each(bad)('ranges %s, and touches nothing', (_what, of) => {
    const { guest } = machine();
    pastProbe(guest);
    guest.handle([
      { name: 'dirtyLogEnable', enabled: true, initially_set: false, ring_entries: 0 },
    ]);
    const tags = guest.system.ram.tags.slice();
    const untouched = guest.system.ram.untouched.clone();
    for (const ask of askers) expect(refusal(guest, [ask(of)])).toBe('MESSAGE_INVALID');
    expect(guest.system.ram.tags).toEqual(tags);
    expect(guest.system.ram.untouched.words).toEqual(untouched.words);
    expect(guest.system.ram.dirtyLog.bits.count()).toBe(0);
  });

  test('no range at the limits of RAM', () => {
    const { guest } = machine();
    for (const of of [ranges(), ranges(FRAMES, 0), ranges(0, FRAMES), ranges(FRAMES - 1, 1)]) {
      expect(refusal(guest, [{ name: 'read', ranges: of }])).toBeNull();
    }
  });

  test.each([
    ['not at a multiple of 32', 8, 4],
    ['beyond the end', FRAMES, 4],
    ['across the end', FRAMES - 32, 5],
    ['longer than the log', 0, FRAMES / 8 + 1],
    ['at the far end of the numbers', 0xffff_ffe0, 4],
  ])('a piece of the dirty log %s, and clears nothing', (_what, first_pfn, length) => {
    const { guest } = machine();
    guest.handle([
      { name: 'dirtyLogEnable', enabled: true, initially_set: false, ring_entries: 0 },
    ]);
    for (let pfn = 0; pfn < FRAMES; pfn++) guest.system.ram.write(pfn);
    const clear: Message = { name: 'clearDirtyLog', first_pfn, bits: bytes(length) };
    expect(refusal(guest, [clear])).toBe('MESSAGE_INVALID');
    expect(guest.system.ram.dirtyLog.bits.count()).toBe(FRAMES);
  });
});

describe('a guest takes', () => {
  test('a piece of the dirty log at the end, and clears that and no more', () => {
    const { guest } = machine();
    guest.handle([
      { name: 'dirtyLogEnable', enabled: true, initially_set: false, ring_entries: 0 },
    ]);
    for (let pfn = 0; pfn < FRAMES; pfn++) guest.system.ram.write(pfn);
    guest.handle([{ name: 'clearDirtyLog', first_pfn: FRAMES - 32, bits: bytes(4) }]);
    expect(guest.system.ram.dirtyLog.bits.nextClear(0)).toBe(FRAMES - 32);
  });

  test('fewer records than ranges, and writes only those', () => {
    const { guest } = machine();
    const before = guest.system.ram.tags[12];
    expect(before).not.toBe(0);
    guest.handle([{ name: 'write', ranges: ranges(10, 3), data: u32Bytes(Uint32Array.of(7, 8)) }]);
    expect(guest.system.ram.tags[10]).toBe(7);
    expect(guest.system.ram.tags[11]).toBe(8);
    expect(guest.system.ram.tags[12]).toBe(before);
  });

  test.each<Message>([
    { name: 'irq', vector: 0 },
    { name: 'irq', vector: 0xfffe },
    { name: 'configChanged', generation: 7 },
    { name: 'used', queue: 2, heads: bytes(2), written_bytes: bytes(4) },
    { name: 'used', queue: 0xffff, heads: bytes(7), written_bytes: bytes(1) },
  ])('$name that nobody waits for, ten thousand times, and sleeps on', (message) => {
    const { guest, lines } = machine();
    pastProbe(guest);
    guest.handle([run(2 * MS)]);
    const before = { free: guest.system.mm.freePages(), lines: lines.length };
    for (let i = 0; i < 100; i++) guest.handle(new Array<Message>(100).fill(message));
    expect({ free: guest.system.mm.freePages(), lines: lines.length }).toEqual(before);
    expect(guest.handle([run(3 * MS)])).toHaveLength(1);
    expect(guest.system.audit()).toEqual([]);
  });

  test('a run into the past as one of no time', () => {
    const { guest } = machine();
    pastProbe(guest);
    guest.handle([run(5 * MS)]);
    expect(guest.handle([run(3 * MS)])).toMatchObject([{ name: 'exit', at_ns: 5 * MS }]);
  });

  test('a page that is not there as one without history', () => {
    const { guest } = machine();
    for (const pfn of [FRAMES, 0xffff_ffff]) {
      expect(guest.handle([{ name: 'getHistory', pfn }])).toEqual([{ name: 'history', lines: [] }]);
    }
  });
});

describe('the console', () => {
  test('starts the replay once', () => {
    const { guest, lines } = machine();
    pastProbe(guest);
    const replay: Message = { name: 'console', line: 'replay' };
    guest.handle([replay, replay, run(2 * MS)]);
    guest.handle([replay, run(20 * MS), replay]);
    expect(lines.filter((line) => / replay /.test(line)).length).toBe(1);
    expect(guest.statistics()['replay_events']).toBe(2);
    const free = new Bitmap(FRAMES);
    guest.system.mm.writeFreeSet(free);
    expect([free.get(2000), free.get(2001), free.count()]).toEqual([false, false, 3070]);
  });

  test.each(['', 'Replay', 'replay ', 'x'.repeat(4096)])(
    'logs a line that it does not know, shortened: "%.10s"',
    (line) => {
      const { guest, lines } = machine();
      pastProbe(guest);
      const before = lines.length;
      guest.handle([{ name: 'console', line }]);
      expect(lines.length).toBe(before + 1);
      expect(lines.at(-1)).toContain(` console_unknown line=${line.slice(0, 64)}`);
      expect(lines.at(-1)?.length).toBeLessThan(110);
      expect(guest.statistics()['replay_events']).toBeUndefined();
    },
  );
});

function exitOfAGuest(): Message {
  return { name: 'exit', at_ns: 0, reason: 0, idle_until_ns: 0 };
}
