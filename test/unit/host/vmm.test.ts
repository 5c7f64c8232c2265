import { describe, expect, test } from 'vitest';
import { Vmm } from '../../../host/vmm.ts';
import {
  ExitReason,
  f64Bytes,
  type GuestLink,
  type Message,
  u16Bytes,
  u32Bytes,
} from '../../../protocol/index.ts';
import {
  BallastError,
  type BallastErrorCode,
  Bitmap,
  DEFAULT_COSTS,
  EventLog,
  NS_PER_MS,
  NS_PER_S,
} from '../../../shared/index.ts';
import { inProcess } from '../../support/in-process.ts';

const MS = NS_PER_MS;
const RAM_PAGES = 1024;
const NEVER = Number.MAX_SAFE_INTEGER;

type Answer = (frame: readonly Message[]) => Message[];

/** A guest that answers each frame as a test says, and remembers what it was sent. */
class PlayedGuest implements GuestLink {
  readonly closed = Promise.resolve(null);
  readonly frames: (readonly Message[])[] = [];
  answer: Answer;

  constructor(answer: Answer) {
    this.answer = answer;
  }

  async exchange(frame: readonly Message[]): Promise<Message[]> {
    this.frames.push(frame);
    // A host that asks for ever is a failure, and not a test that never ends.
    if (this.frames.length > 1000) throw new Error('the host asks for ever');
    return this.answer(frame);
  }

  async close(): Promise<void> {}
}

function exit(at_ns: number, idle_until_ns = 0, reason: ExitReason = ExitReason.UNTIL): Message {
  return { name: 'exit', at_ns, reason, idle_until_ns };
}

/** What a well-behaved guest says that has nothing to do until then. */
function idleUntil(idleNs: number): Answer {
  return (frame) =>
    frame.flatMap((message) => {
      if (message.name === 'run') return [exit(message.until_ns, idleNs)];
      if (message.name === 'getDirtyLog') {
        return [{ name: 'dirtyLog', bits: new Uint8Array(RAM_PAGES / 8) } as const];
      }
      return [];
    });
}

function machine(answer: Answer) {
  const ram = new Bitmap(RAM_PAGES);
  ram.setAll();
  const guest = new PlayedGuest(answer);
  const options = {
    ramPages: RAM_PAGES,
    ram,
    recordSizeBytes: 4,
    costs: DEFAULT_COSTS,
    device: { freePageHint: true, mustTellHost: false, acceptLateHints: false },
  };
  const vmm = new Vmm(guest, options, new EventLog());
  return { guest, vmm };
}

/** One chain without buffers, in each field as given. */
function avail(fields: Partial<Message<'avail'>> = {}): Message<'avail'> {
  const none = new Uint8Array();
  return {
    name: 'avail',
    queue: 0,
    heads: u16Bytes(Uint16Array.of(0)),
    at_ns: f64Bytes(Float64Array.of(MS)),
    out_bytes: u32Bytes(Uint32Array.of(0)),
    out: none,
    in_count: u16Bytes(Uint16Array.of(0)),
    in_gpa: none,
    in_bytes: none,
    ...fields,
  };
}

describe('a guest that is idle', () => {
  /** The host has an event each millisecond. */
  async function steps(vmm: Vmm, count: number): Promise<void> {
    for (let i = 0; i < count; i++) await vmm.advanceFor(MS);
  }

  test('gets no frame until it said it has something to do', async () => {
    const { guest, vmm } = machine(idleUntil(50 * MS));
    await steps(vmm, 1);
    expect(guest.frames.length).toBe(1);
    await steps(vmm, 48);
    expect([vmm.now, guest.frames.length]).toEqual([49 * MS, 1]);
    // The time at which something happens is not idle any more.
    await steps(vmm, 1);
    expect(guest.frames.length).toBe(2);
    const run = (until_ns: number) => ({ name: 'run', until_ns, notify_ns: 20_000 });
    expect(guest.frames[1]).toEqual([run(49 * MS), run(50 * MS)]);
  });

  test('that is busy gets one frame for each step', async () => {
    const { guest, vmm } = machine(idleUntil(0));
    await steps(vmm, 10);
    expect(guest.frames.length).toBe(10);
  });

  test.each<Message>([
    { name: 'console', line: 'replay' },
    { name: 'irq', vector: 0 },
    { name: 'configChanged', generation: 1 },
    {
      name: 'used',
      queue: 0,
      heads: u16Bytes(Uint16Array.of(0)),
      written_bytes: u32Bytes(Uint32Array.of(0)),
    },
  ])('is woken by $name', async (message) => {
    const { guest, vmm } = machine(idleUntil(NEVER));
    await steps(vmm, 5);
    vmm.post(message);
    await steps(vmm, 1);
    expect(guest.frames.length).toBe(2);
    // Posted at 5 ms: the guest reaches that time before it sees the message.
    expect(guest.frames[1]?.map(({ name }) => name)).toEqual(['run', message.name, 'run']);
    expect(guest.frames[1]?.[0]).toMatchObject({ until_ns: 5 * MS });
    expect(guest.frames[1]?.[2]).toMatchObject({ until_ns: 6 * MS });
  });

  test.each<Message>([
    { name: 'discard', ranges: u32Bytes(Uint32Array.of(0, 1)) },
    { name: 'dirtyLogEnable', enabled: true, initially_set: false, ring_entries: 0 },
  ])('sleeps on through $name', async (message) => {
    const { guest, vmm } = machine(idleUntil(NEVER));
    await steps(vmm, 5);
    vmm.post(message);
    await steps(vmm, 5);
    expect(guest.frames.length).toBe(1);
    await vmm.getDirtyLog(false);
    const sent = guest.frames[1]?.map(({ name }) => name);
    expect(sent).toEqual(['run', message.name, 'run', 'getDirtyLog']);
  });

  test('is granted time again once a request may have woken it', async () => {
    const { guest, vmm } = machine(idleUntil(NEVER));
    await steps(vmm, 2);
    vmm.post({ name: 'irq', vector: 0 });
    await vmm.getDirtyLog(false);
    const before = guest.frames.length;
    await steps(vmm, 1);
    expect(guest.frames.length).toBe(before + 1);
  });
});

describe('a guest that answers nonsense', () => {
  const RUN_AT = 5 * MS;
  const advance = (vmm: Vmm) => vmm.advanceTo(RUN_AT);
  const access = exit(RUN_AT, 0, ExitReason.ACCESS);

  async function rejection(answer: Answer, what: (vmm: Vmm) => Promise<unknown>) {
    const { vmm } = machine(answer);
    const error: unknown = await what(vmm).then(
      () => null,
      (reason: unknown) => reason,
    );
    expect(error).toBeInstanceOf(BallastError);
    return error as BallastError;
  }

  const runs: readonly [what: string, frame: Message[]][] = [
    ['nothing', []],
    ['a time later than granted', [exit(RUN_AT + 1)]],
    ['no exit', [avail()]],
    ['an exit and then more', [exit(RUN_AT), avail()]],
    ['an access that is none', [avail(), access]],
    ['a posted message as an access', [{ name: 'setStatus', status: 0 }, access]],
    ['an access that waits for nobody', [{ name: 'getStatus' }, exit(RUN_AT)]],
    ['a memory reply', [{ name: 'records', data: new Uint8Array() }]],
  ];
  test.each(runs)('to run: %s', async (_what, frame) => {
    const { code, message } = await rejection(() => frame, advance);
    expect(code).toBe('MESSAGE_UNEXPECTED');
    expect(message).toMatch(/^[^\n]{1,200}$/);
  });

  test('a second exit is counted, and the last one holds', async () => {
    const { vmm } = machine(() => [exit(MS), exit(RUN_AT)]);
    await advance(vmm);
    expect([vmm.now, vmm.device.protocolViolations]).toEqual([RUN_AT, 1]);
  });

  test('an exit that goes backwards', async () => {
    const times = [4 * MS, 3 * MS];
    const { code, message } = await rejection(
      () => [exit(times.shift() ?? RUN_AT)],
      (vmm) => vmm.advanceTo(RUN_AT),
    );
    expect(code).toBe('MESSAGE_UNEXPECTED');
    expect(message).toContain('expected exit between 4000000 and 5000000 ns');
  });

  test('an idle guest that has something to say', async () => {
    let first = true;
    const { code } = await rejection(
      (frame) => {
        if (!first) return [avail(), ...idleUntil(0)(frame)];
        first = false;
        return [exit(MS, NEVER)];
      },
      async (vmm) => {
        await vmm.advanceTo(MS);
        await vmm.advanceTo(2 * MS);
        await vmm.getDirtyLog(false);
      },
    );
    expect(code).toBe('MESSAGE_UNEXPECTED');
  });

  const getDirtyLog = (vmm: Vmm) => vmm.getDirtyLog(true);
  const getFreeSet = (vmm: Vmm) => vmm.getFreeSet();
  const read = (vmm: Vmm) => vmm.readRecords(Uint32Array.of(0, 2, 9, 1));
  const bytes = (count: number) => new Uint8Array(count);
  type Request = (vmm: Vmm) => Promise<unknown>;
  test.each<[string, Request, Message[], BallastErrorCode]>([
    ['nothing to getDirtyLog', getDirtyLog, [], 'MESSAGE_UNEXPECTED'],
    ['another reply', getDirtyLog, [{ name: 'freeSet', bits: bytes(128) }], 'MESSAGE_UNEXPECTED'],
    [
      'a dirty log too short',
      getDirtyLog,
      [{ name: 'dirtyLog', bits: bytes(124) }],
      'MESSAGE_INVALID',
    ],
    [
      'a dirty log too long',
      getDirtyLog,
      [{ name: 'dirtyLog', bits: bytes(132) }],
      'MESSAGE_INVALID',
    ],
    ['an odd dirty log', getDirtyLog, [{ name: 'dirtyLog', bits: bytes(127) }], 'MESSAGE_INVALID'],
    ['a free set too short', getFreeSet, [{ name: 'freeSet', bits: bytes(0) }], 'MESSAGE_INVALID'],
    ['too few records', read, [{ name: 'records', data: bytes(8) }], 'MESSAGE_INVALID'],
    ['too many records', read, [{ name: 'records', data: bytes(16) }], 'MESSAGE_INVALID'],
    ['half a record', read, [{ name: 'records', data: bytes(13) }], 'MESSAGE_INVALID'],
  ])('%s', async (_what, request, frame, code) => {
    const error = await rejection(() => frame, request);
    expect([error.code, /^[^\n]{1,200}$/.test(error.message)]).toEqual([code, true]);
  });

  test.each<[string, Partial<Message<'avail'>>]>([
    ['of a queue that is not there', { queue: 9 }],
    ['of half a head', { heads: bytes(3) }],
    ['of more heads than times', { heads: bytes(4) }],
    ['without times', { at_ns: bytes(0) }],
    ['in no time', { at_ns: f64Bytes(Float64Array.of(Number.NaN)) }],
    ['never', { at_ns: f64Bytes(Float64Array.of(Number.POSITIVE_INFINITY)) }],
    ['long ago', { at_ns: f64Bytes(Float64Array.of(-1e300)) }],
    ['in the far future', { at_ns: f64Bytes(Float64Array.of(2 ** 52)) }],
    ['with bytes that are not there', { out_bytes: u32Bytes(Uint32Array.of(0xffff_ffff)) }],
    ['with segments that are not there', { in_count: u16Bytes(Uint16Array.of(0xffff)) }],
  ])('an avail %s is counted, and the machine goes on', async (_what, fields) => {
    let sent = false;
    const { guest, vmm } = machine((frame) => {
      const exits = idleUntil(0)(frame);
      if (sent) return exits;
      sent = true;
      return [avail(fields), ...exits];
    });
    await vmm.advanceTo(MS);
    await vmm.advanceTo(2 * MS);
    expect([vmm.now, vmm.device.protocolViolations]).toEqual([2 * MS, 1]);
    // Nothing went to the guest for it.
    expect(guest.frames.flat().every(({ name }) => name === 'run')).toBe(true);
  });
});

describe('a guest that would keep the host busy for ever', () => {
  const refused = (vmm: Vmm) =>
    expect(vmm.advanceTo(MS)).rejects.toMatchObject({
      code: 'MESSAGE_UNEXPECTED',
      message: expect.stringMatching(/^[^\n]{1,200}$/),
    });

  test('with more notifications than its rings hold is refused in one line', async () => {
    const notifications = Array.from({ length: 4000 }, () => avail());
    const { vmm } = machine((frame) => [...notifications, ...idleUntil(0)(frame)]);
    await refused(vmm);
  });

  test('may notify as often as it likes, if it waits for the answers', async () => {
    const notifications = Array.from({ length: 1000 }, () => avail());
    const { vmm } = machine((frame) => {
      const exits = idleUntil(0)(frame);
      const last = exits.at(-1);
      const atMs = last?.name === 'exit' && last.at_ns % MS === 0;
      return atMs ? [...notifications, ...exits] : exits;
    });
    for (let i = 1; i <= 5; i++) await vmm.advanceTo(i * MS);
    // The chains are of a queue that was not set up; what counts is that the machine goes on.
    expect(vmm.now).toBe(5 * MS);
  });

  test('with exits that let no time pass is refused in one line', async () => {
    const { vmm, guest } = machine(() => []);
    let exits = 0;
    guest.exchange = async () => {
      // A host that goes on with it is a failure, and not a test that never ends.
      if (++exits > 2_000_000) throw new Error('the host asks for ever');
      return [exit(0)];
    };
    await refused(vmm);
  });
});

describe('a machine that is stopped', () => {
  const NOTIFY_NS = 40 * MS;

  /** The guest has notified hints or an inflate buffer, and the device has not looked yet. */
  async function behind(what: 'hints' | 'inflate') {
    const { guest, hypervisor } = await inProcess({
      guest: { strategy: 'iterate' },
      costs: { notifyNs: NOTIFY_NS, configWorkNs: MS },
    });
    const { vmm } = hypervisor;
    await vmm.advanceTo(NS_PER_S);
    if (what === 'hints') vmm.device.hintStart();
    else hypervisor.setBalloon(4096);
    const queued = () => guest.system.transport.counters.avail_chains;
    const before = queued();
    for (let i = 0; i < 1000 && queued() === before; i++) await vmm.advanceFor(MS);
    expect(queued()).toBeGreaterThan(before);
    return { guest, hypervisor, vmm };
  }

  test.each(['hints', 'inflate'] as const)('has its %s left for later', async (what) => {
    const { guest, hypervisor, vmm } = await behind(what);
    await vmm.request({ name: 'getDirtyLog', clear: true }, 'dirtyLog');
    vmm.post({ name: 'dirtyLogEnable', enabled: true, initially_set: false, ring_entries: 0 });
    await vmm.getDirtyLog(true);
    vmm.running = false;
    const tags = guest.system.ram.tags.slice();
    const metrics = { ...vmm.device.metrics };
    await vmm.advanceFor(10 * NOTIFY_NS);
    expect((await vmm.getDirtyLog(false)).count()).toBe(0);
    expect(guest.system.ram.tags).toEqual(tags);
    expect(vmm.device.metrics).toEqual(metrics);

    vmm.running = true;
    await vmm.advanceFor(NS_PER_S);
    const { hints_accepted, discarded_pages } = vmm.device.metrics;
    expect(what === 'hints' ? hints_accepted : discarded_pages).toBeGreaterThan(0);
    const { protocol_violations } = await hypervisor.status();
    expect([protocol_violations, await hypervisor.verify()]).toEqual([0, []]);
  });

  test('has what its device had taken completed later', async () => {
    const { guest, vmm } = await behind('inflate');
    // The device has looked at the buffer, but its work takes some time yet.
    while (vmm.device.metrics.discarded_pages === 0) await vmm.advanceFor(1000);
    vmm.running = false;
    const tags = guest.system.ram.tags.slice();
    await vmm.advanceFor(NS_PER_S);
    // What it had posted takes effect; the used ring stays as it is.
    await vmm.getDirtyLog(false);
    const written = [...tags.keys()].filter(
      (pfn) => guest.system.ram.tags[pfn] !== tags[pfn] && guest.system.ram.tags[pfn] !== 0,
    );
    expect(written).toEqual([]);
    vmm.running = true;
    await vmm.advanceFor(NS_PER_S);
    expect(vmm.device.actualPages).toBeGreaterThan(256);
  });

  test('tells observers once that it stops and once that it goes on', async () => {
    const { vmm } = machine(idleUntil(0));
    const seen: string[] = [];
    vmm.events.on('STOP', ({ at_ns }) => seen.push(`STOP ${at_ns}`));
    vmm.events.on('RESUME', ({ at_ns }) => seen.push(`RESUME ${at_ns}`));
    await vmm.advanceTo(MS);
    for (const running of [true, false, false]) vmm.running = running;
    await vmm.advanceTo(2 * MS);
    for (const running of [true, true]) vmm.running = running;
    expect(seen).toEqual([`STOP ${MS}`, `RESUME ${2 * MS}`]);
  });

  test('gets no time', async () => {
    const { guest, vmm } = machine(idleUntil(0));
    await vmm.advanceTo(MS);
    vmm.running = false;
    await vmm.advanceTo(9 * MS);
    expect([vmm.now, guest.frames.length]).toEqual([9 * MS, 1]);
  });
});
