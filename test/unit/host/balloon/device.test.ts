import { describe, expect, test } from 'vitest';
import {
  BALLOON_DEVICE_DEFAULTS,
  BalloonDevice,
  type BalloonDeviceOptions,
} from '../../../../host/balloon/device.ts';
import {
  f64Bytes,
  type Message,
  toUint16,
  toUint32,
  u16Bytes,
  u32Bytes,
} from '../../../../protocol/index.ts';
import { Bitmap, DEFAULT_COSTS } from '../../../../shared/index.ts';

const RAM_PAGES = 1024;
const INFLATE = 0;
const DEFLATE = 1;
const HINT = 2;

interface ChainSketch {
  readonly head?: number;
  readonly out?: Uint8Array;
  readonly in?: readonly (readonly [gpa: number, bytes: number])[];
}

function avail(queue: number, chains: readonly ChainSketch[]): Message<'avail'> {
  const out = chains.flatMap((chain) => [...(chain.out ?? [])]);
  const segments = chains.flatMap((chain) => chain.in ?? []);
  return {
    name: 'avail',
    queue,
    heads: u16Bytes(Uint16Array.from(chains, (chain, i) => chain.head ?? i)),
    at_ns: f64Bytes(Float64Array.from(chains, () => 7)),
    out_bytes: u32Bytes(Uint32Array.from(chains, (chain) => chain.out?.length ?? 0)),
    out: Uint8Array.from(out),
    in_count: u16Bytes(Uint16Array.from(chains, (chain) => chain.in?.length ?? 0)),
    in_gpa: f64Bytes(Float64Array.from(segments, ([gpa]) => gpa)),
    in_bytes: u32Bytes(Uint32Array.from(segments, ([, bytes]) => bytes)),
  };
}

const pfns = (...list: number[]): Uint8Array => u32Bytes(Uint32Array.from(list));

function make(options: Partial<BalloonDeviceOptions> & { inhibited?: boolean } = {}) {
  const posted: Message[] = [];
  const hints: number[][] = [];
  const device = new BalloonDevice(
    { ...BALLOON_DEVICE_DEFAULTS, ramPages: RAM_PAGES, costs: DEFAULT_COSTS, ...options },
    {
      post: (message) => void posted.push(message),
      onHint: (firstPfn, pageCount, { cmdId, queuedAtNs }) =>
        void hints.push([firstPfn, pageCount, cmdId, queuedAtNs]),
      discardInhibited: () => options.inhibited ?? false,
    },
  );
  const handle = (message: Message): Message | null => device.handle(message);
  const ready = (): void => {
    handle({ name: 'setStatus', status: 3 });
    const features = handle({ name: 'getDeviceFeatures' }) as Message<'deviceFeatures'>;
    handle({ ...features, name: 'setDriverFeatures' });
    handle({ name: 'setStatus', status: 11 });
    for (const index of [INFLATE, DEFLATE, HINT]) {
      const { max_size } = handle({ name: 'getQueue', index }) as Message<'queue'>;
      const at = { desc_gpa: 4096, avail_gpa: 8192, used_gpa: 12288 };
      if (max_size > 0) handle({ name: 'setQueue', index, size: max_size, ...at });
    }
    handle({ name: 'setStatus', status: 15 });
  };
  /** Heads that were used. */
  const send = (queue: number, ...chains: ChainSketch[]): number[] => {
    const { used } = device.handleAvail(avail(queue, chains));
    return used.flatMap((one) => (one.name === 'used' ? [...toUint16(one.heads)!] : []));
  };
  const discards = (): number[] =>
    posted.flatMap((one) => (one.name === 'discard' ? [...toUint32(one.ranges)!] : []));
  ready();
  return { device, posted, hints, handle, ready, send, discards, metrics: device.metrics };
}

describe('inflate and deflate', () => {
  test('pages enter, are discarded as ranges, and leave', () => {
    const { device, send, discards, metrics } = make();
    expect(send(INFLATE, { out: pfns(10, 11, 12, 99, 98, 5) })).toEqual([0]);
    expect(discards()).toEqual([10, 3, 98, 2, 5, 1]);
    expect(device.inflatedPages.count()).toBe(6);
    expect(send(DEFLATE, { out: pfns(11, 5) })).toEqual([0]);
    expect(device.inflatedPages.count()).toBe(4);
    expect(metrics).toMatchObject({ inflated_pfns: 6, deflated_pfns: 2, discarded_pages: 6 });
    expect(device.protocolViolations).toBe(0);
  });

  test('discard is inhibited, and pages still count as inflated', () => {
    const { device, send, discards, metrics } = make({ inhibited: true });
    send(INFLATE, { out: pfns(1, 2) });
    expect(discards()).toEqual([]);
    expect(device.inflatedPages.count()).toBe(2);
    expect(metrics.inhibited_discards).toBe(2);
  });

  const many = (count: number): Uint8Array =>
    u32Bytes(Uint32Array.from({ length: count }, (_, i) => i));
  test.each([
    {
      id: 'PFN one past RAM',
      queue: INFLATE,
      chain: { out: pfns(3, 1024) },
      counter: 'bad_pfns',
      entered: 1,
    },
    {
      id: 'PFN 2^32−1',
      queue: INFLATE,
      chain: { out: pfns(0xffff_ffff) },
      counter: 'bad_pfns',
      entered: 0,
    },
    {
      id: 'deflated PFN past RAM',
      queue: DEFLATE,
      chain: { out: pfns(5000) },
      counter: 'bad_pfns',
      entered: 0,
    },
    {
      id: 'length no multiple of 4',
      queue: INFLATE,
      chain: { out: new Uint8Array(7) },
      counter: 'bad_lengths',
      entered: 0,
    },
    { id: 'empty chain', queue: INFLATE, chain: {}, counter: 'bad_lengths', entered: 0 },
    {
      id: 'writable on inflateq',
      queue: INFLATE,
      chain: { in: [[0, 4096]] as const },
      counter: 'bad_directions',
      entered: 0,
    },
    {
      id: 'both on deflateq',
      queue: DEFLATE,
      chain: { out: pfns(1), in: [[0, 4096]] as const },
      counter: 'bad_directions',
      entered: 0,
    },
    {
      id: 'inflated twice',
      queue: INFLATE,
      chain: { out: pfns(8, 8) },
      counter: 'double_inflated_pfns',
      entered: 1,
    },
    {
      id: 'deflated without inflate',
      queue: DEFLATE,
      chain: { out: pfns(8) },
      counter: 'double_deflated_pfns',
      entered: 0,
    },
  ] as const)('$id is counted and acknowledged', ({ queue, chain, counter, entered }) => {
    const { device, send, metrics } = make();
    expect(send(queue, chain)).toEqual([0]);
    expect(metrics[counter]).toBe(1);
    expect(metrics.protocol_violations).toBe(1);
    expect(device.inflatedPages.count()).toBe(entered);
    expect(device.virtio.isLive).toBe(true);
  });

  test('a page that is inflated again is not discarded again', () => {
    const { posted, send, metrics } = make();
    send(INFLATE, { out: pfns(8, 8, 9, 8) });
    send(INFLATE, { out: pfns(9, 8) });
    const discards = posted.filter(({ name }) => name === 'discard');
    expect(discards).toEqual([{ name: 'discard', ranges: pfns(8, 2) }]);
    expect(metrics).toMatchObject({ discarded_pages: 2, double_inflated_pfns: 4 });
  });

  test.each([256, 512])('%s PFNs are fine', (count) => {
    const { device, send } = make();
    send(INFLATE, { out: many(count) });
    expect(device.inflatedPages.count()).toBe(count);
    expect(device.protocolViolations).toBe(0);
  });

  test('costs an element and its PFNs, and interrupts its queue', () => {
    const { device } = make();
    const { costNs, irqVectors } = device.handleAvail(avail(INFLATE, [{ out: pfns(1, 2, 3) }]));
    expect(costNs).toBe(DEFAULT_COSTS.elementNs + 3 * DEFAULT_COSTS.balloonPfnNs);
    expect(irqVectors).toEqual([INFLATE]);
  });
});

describe('messages that make no sense', () => {
  const good = avail(INFLATE, [{ out: pfns(1) }]);
  const cases: { id: string; message: Message<'avail'> }[] = [
    { id: 'no chains', message: avail(INFLATE, []) },
    { id: 'no such queue', message: { ...good, queue: 9 } },
    { id: 'odd heads', message: { ...good, heads: new Uint8Array(3) } },
    { id: 'times too short', message: { ...good, at_ns: new Uint8Array(0) } },
    { id: 'negative time', message: { ...good, at_ns: f64Bytes(Float64Array.of(-1)) } },
    { id: 'NaN time', message: { ...good, at_ns: f64Bytes(Float64Array.of(Number.NaN)) } },
    { id: 'readable bytes missing', message: { ...good, out: new Uint8Array(3) } },
    { id: 'readable bytes too many', message: { ...good, out: new Uint8Array(5) } },
    { id: 'out_bytes too long', message: { ...good, out_bytes: new Uint8Array(8) } },
    { id: 'segments missing', message: { ...good, in_count: u16Bytes(Uint16Array.of(1)) } },
    {
      id: 'segments without a count',
      message: { ...good, in_gpa: new Uint8Array(8), in_bytes: u32Bytes(Uint32Array.of(1)) },
    },
    { id: 'segment of no bytes', message: avail(HINT, [{ in: [[0, 0]] }]) },
    { id: 'segment at a fraction', message: avail(HINT, [{ in: [[0.5, 4096]] }]) },
    { id: 'segment past 2^53', message: avail(HINT, [{ in: [[2 ** 53 - 1, 4096]] }]) },
    {
      id: 'more chains than the ring',
      message: avail(
        INFLATE,
        Array.from({ length: 129 }, () => ({ out: pfns(1) })),
      ),
    },
  ];

  test.each(cases)('$id: counted, nothing used', ({ message }) => {
    const { device, metrics } = make();
    expect(device.handleAvail(message)).toEqual({ used: [], irqVectors: [], costNs: 0 });
    expect(metrics).toMatchObject({ bad_messages: 1, protocol_violations: 1, inflated_pfns: 0 });
  });

  // spec: 2.1.2-device-1, 2.4.1-device-2
  test('chains before DRIVER_OK are not looked at', () => {
    const { device, handle, send, metrics } = make();
    handle({ name: 'setStatus', status: 0 });
    expect(send(INFLATE, { out: pfns(1) })).toEqual([]);
    expect(metrics.bad_messages).toBe(1);
    expect(device.inflatedPages.count()).toBe(0);
  });

  test('a head outside the ring breaks the device; what was used before it is told', () => {
    const { device, send, metrics } = make();
    const chains = [
      { head: 5, out: pfns(2) },
      { head: 128, out: pfns(1) },
      { head: 6, out: pfns(3) },
    ];
    expect(send(INFLATE, ...chains)).toEqual([5]);
    expect(metrics).toMatchObject({ bad_heads: 1, inflated_pfns: 1 });
    expect(device.virtio.needsReset).toBe(true);
  });
});

describe('hinting', () => {
  const id = (value: number): ChainSketch => ({ out: pfns(value) });
  const block = (pfn: number): ChainSketch => ({ in: [[pfn * 4096, 4096]] });

  test('a round accepts what lies between its id and STOP', () => {
    const { device, hints, send } = make();
    device.hintStart();
    const cmdId = device.hintCmdId;
    const heads = send(HINT, id(cmdId), block(3), block(4), id(0), block(5));
    expect(heads).toEqual([0, 1, 2, 3, 4]);
    expect(hints).toEqual([
      [3, 1, cmdId, 7],
      [4, 1, cmdId, 7],
    ]);
    expect(device.metrics).toMatchObject({ hints_accepted: 2, hints_late: 1 });
    expect(device.protocolViolations).toBe(0);
  });

  test.each([
    { title: 'beyond the end of memory', gpa: (RAM_PAGES - 1) * 4096, sizeBytes: 8192 },
    { title: 'outside memory', gpa: RAM_PAGES * 4096, sizeBytes: 4096 },
    { title: 'off a page boundary', gpa: 100, sizeBytes: 4096 },
    { title: 'of half a page', gpa: 4096, sizeBytes: 2048 },
    { title: 'of a page and a half', gpa: 4096, sizeBytes: 6144 },
  ])('a block $title is a violation', ({ gpa, sizeBytes }) => {
    const { device, hints, send } = make();
    device.hintStart();
    expect(send(HINT, id(device.hintCmdId), { in: [[gpa, sizeBytes]] })).toEqual([0, 1]);
    expect(hints).toEqual([]);
    expect(device.metrics).toMatchObject({ bad_hints: 1, protocol_violations: 1 });
  });

  // spec: 5.5.6.5.2-device-3
  test('a block under way when the host stops is late', () => {
    const { device, hints, send } = make();
    device.hintStart();
    send(HINT, id(device.hintCmdId));
    device.hintStop();
    expect(send(HINT, block(1))).toEqual([0]);
    device.hintStart();
    expect(send(HINT, block(2))).toEqual([0]);
    device.hintDone();
    expect(send(HINT, block(3))).toEqual([0]);
    expect(hints).toEqual([]);
    expect(device.metrics.hints_late).toBe(3);
  });

  // spec: 2.1.2-device-2
  test.each([1, 3, 5, 8])('a command of %s bytes breaks the device until reset', (bytes) => {
    const { device, posted, handle, send, ready } = make();
    expect(send(HINT, { out: new Uint8Array(bytes) }, block(1))).toEqual([]);
    expect(handle({ name: 'getStatus' })).toEqual({ name: 'status', status: 15 | 64 });
    expect(posted.at(-1)).toMatchObject({ name: 'configChanged' });
    expect(send(INFLATE, { out: pfns(1) })).toEqual([]);
    handle({ name: 'setStatus', status: 0 });
    ready();
    expect(send(INFLATE, { out: pfns(1) })).toEqual([0]);
    expect(device.inflatedPages.count()).toBe(1);
  });

  test('is not started without FREE_PAGE_HINT', () => {
    const { device, posted } = make({ freePageHint: false });
    expect(device.hintStart()).toBe(false);
    device.hintStop();
    device.hintDone();
    expect(posted).toEqual([]);
  });

  test('each change of state is notified', () => {
    const { device, posted } = make();
    device.hintStart();
    device.hintStop();
    device.hintStop();
    device.hintDone();
    device.hintDone();
    expect(posted.map((one) => one.name)).toEqual(Array(3).fill('configChanged'));
  });
});

describe('configuration', () => {
  const read = (made: ReturnType<typeof make>, offset: number): number => {
    const reply = made.handle({ name: 'getConfig', offset, length: 4 }) as Message<'config'>;
    return new DataView(reply.data.buffer, reply.data.byteOffset).getUint32(0, true);
  };

  test('the target is clamped to RAM and notified once', () => {
    const made = make();
    made.device.setTarget(5000);
    made.device.setTarget(5000);
    expect(read(made, 0)).toBe(RAM_PAGES);
    expect(made.posted).toHaveLength(1);
  });

  test('actual is what the driver wrote', () => {
    const made = make();
    made.handle({ name: 'setConfig', offset: 4, data: pfns(77) });
    expect(read(made, 4)).toBe(77);
    expect(made.device.actualPages).toBe(77);
  });

  test.each([
    { offset: 0, data: pfns(1) },
    { offset: 8, data: pfns(1) },
    { offset: 12, data: pfns(1) },
    { offset: 4, data: new Uint8Array(2) },
    { offset: 5, data: pfns(1) },
  ])('the driver may not write $data.length bytes at $offset', ({ offset, data }) => {
    const made = make();
    made.handle({ name: 'setConfig', offset, data });
    expect(made.device.protocolViolations).toBe(1);
    expect(read(made, 4)).toBe(0);
  });

  test.each([
    { freePageHint: false, bytes: 8 },
    { freePageHint: true, bytes: 12 },
  ])('has $bytes bytes with FREE_PAGE_HINT $freePageHint', ({ freePageHint, bytes }) => {
    const { handle } = make({ freePageHint });
    const info = handle({ name: 'getDeviceInfo' });
    expect(info).toMatchObject({ device_id: 5, config_size: bytes });
  });

  test('reset keeps the target and the ids, and empties the balloon', () => {
    const made = make();
    made.device.setTarget(9);
    made.device.hintStart();
    made.send(INFLATE, { out: pfns(1) });
    made.handle({ name: 'setStatus', status: 0 });
    expect(made.device.targetPages).toBe(9);
    expect(made.device.hintCmdId).toBe(0x8000_0001);
    expect(read(made, 8)).toBe(0);
    expect(made.device.inflatedPages.count()).toBe(0);
  });

  test.each([
    { numbering: 'dense-by-offered' as const, index: 2 },
    { numbering: 'spec-fixed' as const, index: 3 },
  ])('free_page_vq is queue $index if numbered $numbering', ({ numbering, index }) => {
    const { handle } = make({ numbering });
    expect(handle({ name: 'getQueue', index })).toMatchObject({ max_size: 1024 });
  });
});

test('a hole below 4 GiB is not RAM: its frames are bad PFNs, and no target asks for them', () => {
  const ram = new Bitmap(RAM_PAGES);
  ram.setRange(0, 100);
  const { device, send, discards } = make({ ram });
  device.setTarget(RAM_PAGES);
  expect(device.targetPages).toBe(100);
  send(INFLATE, { out: pfns(99, 100) });
  expect([device.metrics.bad_pfns, device.metrics.inflated_pfns]).toEqual([1, 1]);
  expect(discards()).toEqual([99, 1]);
});

describe('hints that are discarded', () => {
  const start = (device: BalloonDevice, send: ReturnType<typeof make>['send']): void => {
    device.hintStart();
    send(HINT, { out: pfns(device.hintCmdId) });
  };

  test('are discarded when they are accepted, and go on their way as well', () => {
    const { device, send, discards, hints, metrics } = make({ discardHints: true });
    start(device, send);
    const blocks = [
      [16 * 4096, 8192],
      [18 * 4096, 4096],
      [40 * 4096, 4096],
    ] as const;
    expect(send(HINT, { head: 0, in: blocks })).toEqual([0]);
    expect(discards()).toEqual([16, 3, 40, 1]);
    expect([hints.length, metrics.discarded_pages]).toEqual([3, 4]);
  });

  test.each([
    ['without the option', {}, [16 * 4096, 4096]],
    ['outside of guest memory', { discardHints: true }, [RAM_PAGES * 4096, 4096]],
    ['while discards are inhibited', { discardHints: true, inhibited: true }, [16 * 4096, 4096]],
  ] as const)('are not discarded %s', (_what, options, block) => {
    const { device, send, discards } = make(options);
    start(device, send);
    expect(send(HINT, { in: [block] })).toEqual([0]);
    expect(discards()).toEqual([]);
  });

  test('are not discarded once the round is over', () => {
    const { device, send, discards, metrics } = make({ discardHints: true });
    start(device, send);
    device.hintStop();
    send(HINT, { in: [[16 * 4096, 4096]] });
    expect([discards(), metrics.hint_pages_late]).toEqual([[], 1]);
  });

  test('leave out what is a hole', () => {
    const ram = new Bitmap(RAM_PAGES);
    ram.setRange(0, 100);
    ram.setRange(200, 50);
    const { device, send, discards } = make({ discardHints: true, ram });
    start(device, send);
    send(HINT, { in: [[90 * 4096, 120 * 4096]] });
    expect(discards()).toEqual([90, 10, 200, 10]);
  });

  test('name no page twice in one message', () => {
    const { device, send, posted } = make({ discardHints: true });
    start(device, send);
    const all = { in: [[0, RAM_PAGES * 4096]] } as const;
    send(HINT, { head: 0, ...all }, { head: 1, ...all }, { head: 2, ...all });
    const messages = posted.flatMap((one) => (one.name === 'discard' ? [one] : []));
    expect(messages.map(({ ranges }) => [...toUint32(ranges)!])).toEqual([[0, RAM_PAGES]]);
  });
});
