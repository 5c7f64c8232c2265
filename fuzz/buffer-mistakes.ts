/**
 * Buffers of a hostile driver as they arrive at our device: `avail` messages whose fields disagree,
 * chains of the wrong direction, length or content, on queues of every kind and in every state.
 */
import type { BalloonQueueName } from '../protocol/index.ts';
import { type AvailFields, availOf, type Chain, fieldsOf, u32sOf } from './avail.ts';
import { ANY, type Outcome } from './case.ts';
import type { Draw } from './draw.ts';
import { COUNTED, IGNORED, isLive, type Maker, type Mistake, SERVED } from './driver-mistakes.ts';
import { type HostMachine, RAM_PAGES, type State } from './host-machine.ts';
import type { Raw } from './raw.ts';
import { u32 } from './values.ts';

const PAGE = 4096;
/** Of the queues that the machine sets up. */
const QUEUE_SIZE = 16;
/** Counted, or DEVICE_NEEDS_RESET: which one it is differs between devices. */
const REFUSED: readonly Outcome[] = ['counted', 'broken'];
const BROKEN: readonly Outcome[] = ['broken'];
const ENDED: readonly Outcome[] = ['ended'];

function chain(machine: HostMachine, parts: Omit<Chain, 'head' | 'atNs'>): Chain {
  return { head: machine.freshHead(), atNs: machine.vmm.now, ...parts };
}

/** A right chain of that queue; null where what is right depends on more than the chain. */
function rightChain(draw: Draw, machine: HostMachine, name: BalloonQueueName): Chain {
  switch (name) {
    case 'inflateq':
    case 'deflateq': {
      const first = draw.below(RAM_PAGES - 256);
      const pfns = Array.from({ length: draw.pick([1, 2, 16, 256]) }, (_, i) => first + i);
      return chain(machine, { out: u32sOf(...pfns) });
    }
    case 'statsq':
      return chain(machine, { out: statistics(draw) });
    default: {
      const order = draw.pick([0, 1, 3, 9]);
      const pfn = draw.below(RAM_PAGES >> order) << order;
      return chain(machine, { in: [[pfn * PAGE, PAGE << order]] });
    }
  }
}

/** le16 tag, le64 value. */
function statistics(draw: Draw): Uint8Array {
  const count = draw.pick([10, 16, 0, 1, 32]);
  const bytes = new Uint8Array(10 * count);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < count; i++) {
    view.setUint16(10 * i, i, true);
    view.setUint32(10 * i + 2, draw.u32(), true);
  }
  return bytes;
}

/** Right fields of a message for some queue of the machine. */
function someFields(draw: Draw, machine: HostMachine): AvailFields {
  const { name, index } = draw.pick(machine.queues);
  const count = draw.pick([1, 1, 2, 3]);
  return fieldsOf(
    index,
    Array.from({ length: count }, () => rightChain(draw, machine, name)),
  );
}

/** Where queues are served, one of `allowed`; elsewhere what the state makes of the message. */
function refused(fields: AvailFields | Raw, state: State, allowed: readonly Outcome[]): Mistake {
  const raw = Array.isArray(fields) ? (fields as Raw) : availOf(fields as AvailFields);
  return { posted: [raw], allowed: isLive(state) ? allowed : elsewhere(state, allowed) };
}

/** As `refused`, for what is wrong with the message itself: also seen before DRIVER_OK. */
function unreadable(fields: AvailFields | Raw, state: State): Mistake {
  const { posted } = refused(fields, state, REFUSED);
  return { posted, allowed: waits(state) ? REFUSED : elsewhere(state, REFUSED) };
}

function elsewhere(state: State, allowed: readonly Outcome[]): readonly Outcome[] {
  if (isLive(state)) return allowed;
  // A broken device looks at nothing.
  return state === 'needs-reset' || waits(state) ? IGNORED : COUNTED;
}

/** What becomes available now is looked at when the device runs. */
function waits(state: State): boolean {
  return state === 'queues' || state === 'suspended';
}

/** The same with one field of the message in other bytes. */
function withField(
  fields: AvailFields,
  at: number,
  change: (bytes: Uint8Array) => Uint8Array,
): Raw {
  const raw = availOf(fields);
  raw[at] = change(raw[at] as Uint8Array);
  return raw;
}

/** Places and element sizes of the list fields in the message. */
const LISTS = [
  [2, 2],
  [3, 8],
  [4, 4],
  [6, 2],
  [7, 8],
  [8, 4],
] as const;

function indexOf(machine: HostMachine, name: BalloonQueueName): number | null {
  return machine.queues.find((queue) => queue.name === name)?.index ?? null;
}

/** One chain on that queue; null where the device does not have it. */
function onQueue(
  machine: HostMachine,
  state: State,
  name: BalloonQueueName,
  parts: Omit<Chain, 'head' | 'atNs'>,
  allowed: readonly Outcome[],
): Mistake | null {
  const index = indexOf(machine, name);
  if (index === null) return null;
  return refused(fieldsOf(index, [chain(machine, parts)]), state, allowed);
}

const PFN_QUEUES = ['inflateq', 'deflateq'] as const;

export const BUFFER_MISTAKES: Readonly<Record<string, Maker>> = {
  'avail: nothing wrong': (draw, machine, state) => {
    const fields = someFields(draw, machine);
    if (!isLive(state)) return refused(fields, state, SERVED);
    // Deflating what is not in the balloon, or a stale hint, is for others to judge.
    const name = machine.queues.find(({ index }) => index === fields.queue)?.name;
    const plain = name === 'inflateq' && fields.heads.length === 1;
    return { posted: [availOf(fields)], allowed: plain ? SERVED : ANY };
  },
  'avail: a list with half an element': (draw, machine, state) => {
    const fields = someFields(draw, machine);
    const [at, size] = draw.pick(LISTS);
    const extra = 1 + draw.below(size - 1);
    const grow = (bytes: Uint8Array) => Uint8Array.from([...bytes, ...new Uint8Array(extra)]);
    return unreadable(withField(fields, at, grow), state);
  },
  'avail: a list with an element too many': (draw, machine, state) => {
    const fields = someFields(draw, machine);
    const [at, size] = draw.pick(LISTS);
    const grow = (bytes: Uint8Array) => Uint8Array.from([...bytes, ...new Uint8Array(size)]);
    return unreadable(withField(fields, at, grow), state);
  },
  'avail: a list with an element too few': (draw, machine, state) => {
    const fields = someFields(draw, machine);
    const full = LISTS.filter(([at]) => (availOf(fields)[at] as Uint8Array).length > 0);
    const [at, size] = draw.pick(full);
    return unreadable(
      withField(fields, at, (bytes) => bytes.slice(size)),
      state,
    );
  },
  'avail: readable bytes too many or too few': (draw, machine, state) => {
    const fields = someFields(draw, machine);
    const more = fields.out.length === 0 || draw.chance(1, 2);
    fields.out = more ? Uint8Array.from([...fields.out, 0]) : fields.out.slice(1);
    return unreadable(fields, state);
  },
  'avail: readable bytes of 4 GiB': (draw, machine, state) => {
    const fields = someFields(draw, machine);
    fields.outBytes[draw.below(fields.outBytes.length)] = 0xffff_ffff;
    return unreadable(fields, state);
  },
  'avail: more segments than there are': (draw, machine, state) => {
    const fields = someFields(draw, machine);
    fields.inCount[draw.below(fields.inCount.length)] = draw.pick([0xffff, 1000]);
    return unreadable(fields, state);
  },
  'avail: no chain': (draw, machine, state) =>
    unreadable(fieldsOf(draw.pick(machine.queues).index, []), state),
  'avail: more chains than the ring holds': (draw, machine, state) => {
    const count = draw.pick([QUEUE_SIZE + 1, 200, 5000]);
    const chains = Array.from({ length: count }, (_, i) => ({ head: i % QUEUE_SIZE, atNs: 0 }));
    return unreadable(fieldsOf(draw.pick(machine.queues).index, chains), state);
  },
  'avail: more messages than the rings hold chains': (draw, machine, state) => {
    if (!isLive(state) || !draw.chance(1, 8)) return null;
    const message = availOf(
      fieldsOf(machine.queues[0]!.index, [chain(machine, { out: u32sOf(7) })]),
    );
    return { posted: Array.from({ length: 1281 }, () => message), allowed: ENDED };
  },
  'avail: a time that is none': (draw, machine, state) => {
    const fields = someFields(draw, machine);
    const bad = [Number.NaN, -1, 0.5, Number.POSITIVE_INFINITY, 2 ** 60];
    fields.atNs[draw.below(fields.atNs.length)] = draw.pick(bad);
    return unreadable(fields, state);
  },
  'avail: times that go back': (_draw, machine, state) => {
    const { index } = machine.queues[0]!;
    const chains = [5, 4].map((atNs) => ({ head: machine.freshHead(), atNs, out: u32sOf(7) }));
    return unreadable(fieldsOf(index, chains), state);
  },
  'avail: a time long gone or far ahead': (draw, machine, state) => {
    const fields = fieldsOf(machine.queues[0]!.index, [
      chain(machine, { out: u32sOf(draw.below(RAM_PAGES)) }),
    ]);
    fields.atNs[0] = draw.pick([0, 1, 2 ** 53 - 1, 2 ** 52]);
    return refused(fields, state, SERVED);
  },
  'avail: no such queue': (draw, machine, state) => {
    const fields = someFields(draw, machine);
    fields.queue = draw.pick([9, 255, 0x7fff, 0xffff]);
    return { posted: [availOf(fields)], allowed: state === 'needs-reset' ? IGNORED : COUNTED };
  },
  'avail: a head outside the ring': (draw, machine, state) => {
    const fields = someFields(draw, machine);
    fields.heads[draw.below(fields.heads.length)] = draw.pick([QUEUE_SIZE, 0x7fff, 0xffff]);
    return refused(fields, state, BROKEN);
  },
  'avail: an address that is none': (draw, machine, state) => {
    const name = draw.pick(machine.queues).index;
    const bad = [Number.NaN, -PAGE, 0.5, Number.POSITIVE_INFINITY, 2 ** 60, -0.5];
    const fields = fieldsOf(name, [chain(machine, { in: [[draw.pick(bad), PAGE]] })]);
    return unreadable(fields, state);
  },
  'avail: a segment of no bytes': (draw, machine, state) => {
    const { index } = draw.pick(machine.queues);
    return unreadable(fieldsOf(index, [chain(machine, { in: [[PAGE, 0]] })]), state);
  },
  'pfns: outside RAM': (draw, machine, state) => {
    const pfn = draw.pick([RAM_PAGES, 0x7fff_ffff, 0xffff_ffff, 1 << 20]);
    return onQueue(machine, state, draw.pick(PFN_QUEUES), { out: u32sOf(pfn, pfn) }, COUNTED);
  },
  'pfns: part of one': (draw, machine, state) => {
    const out = draw.bytes(draw.pick([1, 2, 3, 1021]));
    return onQueue(machine, state, draw.pick(PFN_QUEUES), { out }, COUNTED);
  },
  'pfns: none': (draw, machine, state) =>
    onQueue(machine, state, draw.pick(PFN_QUEUES), {}, COUNTED),
  'pfns: more than 256': (draw, machine, state) => {
    const out = new Uint8Array(draw.pick([1028, 4096, 1 << 20]));
    return onQueue(machine, state, draw.pick(PFN_QUEUES), { out }, COUNTED);
  },
  'pfns: more than a message carries': (draw, machine, state) => {
    if (!draw.chance(1, 64)) return null;
    const out = new Uint8Array((1 << 20) + 4);
    const index = indexOf(machine, draw.pick(PFN_QUEUES));
    return index === null ? null : unreadable(fieldsOf(index, [chain(machine, { out })]), state);
  },
  'pfns: the same one twice': (draw, machine, state) => {
    const pfn = draw.below(RAM_PAGES);
    return onQueue(machine, state, 'inflateq', { out: u32sOf(pfn, pfn) }, COUNTED);
  },
  'pfns: deflated and never inflated': (draw, machine, state) =>
    onQueue(machine, state, 'deflateq', { out: u32sOf(draw.below(RAM_PAGES)) }, COUNTED),
  'pfns: any': (draw, machine, state) => {
    const pfns = Array.from({ length: draw.pick([1, 8, 256]) }, () => u32(draw));
    return onQueue(machine, state, draw.pick(PFN_QUEUES), { out: u32sOf(...pfns) }, ANY);
  },
  'pfns: in a writable buffer': (draw, machine, state) =>
    onQueue(machine, state, draw.pick(PFN_QUEUES), { out: u32sOf(1), in: [[PAGE, PAGE]] }, COUNTED),
  'hint: command too short': (draw, machine, state) => {
    const out = draw.bytes(draw.pick([1, 2, 3]));
    return onQueue(machine, state, 'free_page_vq', { out }, BROKEN);
  },
  'hint: command too long': (draw, machine, state) => {
    const out = draw.bytes(draw.pick([5, 8, 4096]));
    return onQueue(machine, state, 'free_page_vq', { out }, REFUSED);
  },
  'hint: any command': (draw, machine, state) =>
    onQueue(machine, state, 'free_page_vq', { out: u32sOf(u32(draw)) }, SERVED),
  'hint: outside RAM': (draw, machine, state) => {
    const gpa = draw.pick([RAM_PAGES, 1 << 20, 2 ** 32, 2 ** 40]) * PAGE;
    return onQueue(machine, state, 'free_page_vq', { in: [[gpa, PAGE]] }, REFUSED);
  },
  'hint: no whole pages': (draw, machine, state) => {
    const segment = draw.pick([
      [PAGE, 1],
      [PAGE + 1, PAGE],
      [PAGE, PAGE + 1],
      [0x800, 0x2800],
    ] as const);
    return onQueue(machine, state, 'free_page_vq', { in: [segment] }, REFUSED);
  },
  'hint: all of memory, in every segment': (draw, machine, state) => {
    const segments = Array.from(
      { length: draw.pick([1, 8, 16]) },
      () => [0, RAM_PAGES * PAGE] as const,
    );
    return onQueue(machine, state, 'free_page_vq', { in: segments }, ANY);
  },
  'hint: any segment': (draw, machine, state) =>
    onQueue(
      machine,
      state,
      'free_page_vq',
      { in: [[draw.below(2 * RAM_PAGES) * draw.pick([PAGE, 2048]), Math.max(1, u32(draw))]] },
      ANY,
    ),
  'stats: no whole entries': (draw, machine, state) => {
    const out = draw.bytes(draw.pick([9, 0, 1, 11, 159]));
    return onQueue(machine, state, 'statsq', { out }, COUNTED);
  },
  'stats: two buffers': (draw, machine, state) => {
    const index = indexOf(machine, 'statsq');
    if (index === null) return null;
    const chains = [0, 1].map(() => chain(machine, { out: statistics(draw) }));
    return refused(fieldsOf(index, chains), state, COUNTED);
  },
  'stats: any length': (draw, machine, state) =>
    onQueue(
      machine,
      state,
      'statsq',
      { out: draw.bytes(draw.pick([9, 0, 1, 11, 160, 1000])) },
      ANY,
    ),
  'stats: any content': (draw, machine, state) => {
    const out = draw.bytes(10 * draw.pick([1, 2, 16, 100]));
    return onQueue(machine, state, 'statsq', { out }, ANY);
  },
  'report: outside RAM': (draw, machine, state) => {
    const gpa = draw.pick([RAM_PAGES, 1 << 20, 2 ** 40]) * PAGE;
    return onQueue(machine, state, 'reporting_vq', { in: [[gpa, PAGE]] }, COUNTED);
  },
  'report: readable or empty': (draw, machine, state) => {
    const out = draw.bytes(draw.pick([4, 0, 1, 4096]));
    return onQueue(machine, state, 'reporting_vq', { out }, COUNTED);
  },
  'report: no whole pages': (draw, machine, state) => {
    const segment = draw.pick([
      [PAGE, 1],
      [PAGE + 1, PAGE],
      [0x800, 0x2800],
    ] as const);
    return onQueue(machine, state, 'reporting_vq', { in: [segment] }, COUNTED);
  },
  'report: any segments': (draw, machine, state) => {
    const segments = Array.from(
      { length: draw.pick([1, 4, 16]) },
      () => [draw.below(2 * RAM_PAGES) * draw.pick([PAGE, 2048]), Math.max(1, u32(draw))] as const,
    );
    return onQueue(machine, state, 'reporting_vq', { in: segments }, ANY);
  },
};
