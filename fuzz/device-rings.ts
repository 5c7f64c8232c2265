/**
 * The device's hand on rings that a hostile driver writes: descriptors, indices, indirect tables and
 * flags of split and packed rings, of many sizes, with every ring feature on and off.
 */
import { createDeviceRing } from '../guest/virtio/device-ring.ts';
import type { DeviceRing } from '../guest/virtio/queue.ts';
import { AvailCursor } from '../host/virtio/queue.ts';
import {
  AvailHeader,
  DescFlag,
  encodeFrame,
  Feature,
  type FeatureSet,
  featureMask,
  hasFeature,
  type Message,
  toUint16,
  u16Bytes,
  u32Bytes,
} from '../protocol/index.ts';
import { ANY, judge, type Kind, type Outcome, type Session, type Verdict } from './case.ts';
import { Draw } from './draw.ts';
import {
  AREAS,
  AVAILABLE,
  type Element,
  elements,
  MEMORY_BYTES,
  RingMemory,
  TABLE_GPA,
} from './ring-memory.ts';

const SPLIT_SIZES = [8, 1, 2, 4, 16, 64, 256];
const PACKED_SIZES = [8, 1, 2, 3, 5, 7, 16, 63, 100, 256];
/** Chains of one case: what the driver makes available before the device looks. */
const CHAINS_MAX = 4;
const BROKEN: readonly Outcome[] = ['broken'];
const SERVED: readonly Outcome[] = ['served'];

interface Written {
  /** Chains of elements, as they are to be written; a mistake changes them. */
  readonly chains: Element[][];
  /** Of each chain: its elements are in a table. */
  readonly indirect: boolean[];
  /** What is added to the number of chains that are announced. */
  extra: number;
  /** Heads instead of the right ones, split rings only. */
  heads: Map<number, number>;
  /** Of a table: its length instead of the right one, and flags beside INDIRECT. */
  tableBytes: number | null;
  tableFlags: number;
  tableGpa: number | null;
}

interface Place {
  readonly size: number;
  readonly isPacked: boolean;
  readonly features: FeatureSet;
}

type Mistake = (draw: Draw, written: Written, place: Place) => readonly Outcome[] | null;

/** The element that is made wrong, of a chain that is in the ring itself or in a table. */
function some(draw: Draw, { chains }: Written): Element {
  return draw.pick(chains[draw.below(chains.length)]!);
}

const MISTAKES: Readonly<Record<string, Mistake>> = {
  'nothing wrong': () => SERVED,
  'no bytes': (draw, written) => {
    some(draw, written).lengthBytes = 0;
    return BROKEN;
  },
  'readable after writable': (_draw, written) => {
    const chain = written.chains[0]!;
    if (chain.length < 2) return null;
    chain[0]!.flags |= DescFlag.WRITE;
    chain.at(-1)!.flags &= ~DescFlag.WRITE;
    return BROKEN;
  },
  'address beyond all memory': (draw, written) => {
    some(draw, written).gpa = draw.pick([-1, 2 ** 53, -4096]);
    return BROKEN;
  },
  'readable outside memory': (draw, written) => {
    const element = written.chains[0]![0]!;
    if ((element.flags & DescFlag.WRITE) !== 0) return null;
    element.gpa = draw.pick([MEMORY_BYTES, MEMORY_BYTES - 1, 2 ** 40]);
    return BROKEN;
  },
  'readable of 4 GiB': (_draw, written) => {
    const element = written.chains[0]![0]!;
    if ((element.flags & DescFlag.WRITE) !== 0) return null;
    element.lengthBytes = 0xffff_ffff;
    return BROKEN;
  },
  'more is available than the ring holds': (draw, written, { size, isPacked }) => {
    if (isPacked) return null;
    written.extra = draw.between(size + 1, 0xffff - written.chains.length);
    return BROKEN;
  },
  'head outside the ring': (draw, written, { size, isPacked }) => {
    if (isPacked) return null;
    written.heads.set(0, draw.pick([size, 0xffff, 0x8000]));
    return BROKEN;
  },
  'head that is available already': (_draw, written, { isPacked }) => {
    if (isPacked || written.chains.length < 2) return null;
    written.heads.set(1, 0);
    return BROKEN;
  },
  'next outside the ring or table': (draw, written, { size, isPacked }) => {
    const chain = written.chains[0]!;
    if (isPacked) return null;
    chain.at(-1)!.flags |= DescFlag.NEXT;
    chain.at(-1)!.next = draw.pick([0xffff, Math.max(size, chain.length), 0x8000]);
    return BROKEN;
  },
  'descriptor loop': (_draw, written, { isPacked }) => {
    const chain = written.chains[0]!;
    if (isPacked) return null;
    chain.at(-1)!.flags |= DescFlag.NEXT;
    chain.at(-1)!.next = written.indirect[0] ? chain.length - 1 : chain[0]!.next - 1;
    return BROKEN;
  },
  'list that does not end': (_draw, written, { isPacked }) => {
    if (!isPacked || written.indirect.at(-1)) return null;
    written.chains.at(-1)!.at(-1)!.flags |= DescFlag.NEXT;
    return BROKEN;
  },
  'indirect without the feature': (draw, written, { features }) => {
    if (hasFeature(features, Feature.RING_INDIRECT_DESC)) return null;
    some(draw, written).flags |= DescFlag.INDIRECT;
    return BROKEN;
  },
  'indirect table in an indirect table': (draw, written, { isPacked }) => {
    if (isPacked || !written.indirect[0]) return null;
    const element = draw.pick(written.chains[0]!);
    element.flags = DescFlag.INDIRECT;
    element.lengthBytes = 16;
    return BROKEN;
  },
  'indirect table with NEXT': (_draw, written) => {
    if (!written.indirect[0]) return null;
    written.tableFlags = DescFlag.NEXT;
    return BROKEN;
  },
  'indirect table of a wrong length': (draw, written) => {
    if (!written.indirect[0]) return null;
    written.tableBytes = draw.pick([0, 1, 15, 17, 0xffff_ffff]);
    return BROKEN;
  },
  'indirect table outside memory': (draw, written) => {
    if (!written.indirect[0]) return null;
    written.tableGpa = draw.pick([MEMORY_BYTES, 2 ** 40, -1, MEMORY_BYTES - 8]);
    return BROKEN;
  },
};
const LABELS = [
  ...Object.keys(MISTAKES),
  'flipped bytes',
  'flipped bytes later',
  'noise',
  'ring outside memory',
];

class DeviceRingSession implements Session {
  trace: string[] = [];
  readonly #memory = new RingMemory();
  readonly #cursor = new AvailCursor();
  readonly #place: Place;

  constructor(seed: number) {
    const draw = new Draw(seed);
    const isPacked = draw.chance(1, 2);
    const bits = [Feature.RING_INDIRECT_DESC, Feature.RING_EVENT_IDX, Feature.IN_ORDER];
    const features = bits.filter(() => draw.chance(1, 2));
    if (isPacked) features.push(Feature.RING_PACKED as never);
    this.#place = {
      isPacked,
      size: draw.pick(isPacked ? PACKED_SIZES : SPLIT_SIZES),
      features: featureMask(...features),
    };
  }

  next(draw: Draw): Verdict {
    const first = draw.below(LABELS.length);
    for (let i = 0; ; i++) {
      const label = LABELS[(first + i) % LABELS.length]!;
      const verdict = this.#try(draw, label);
      if (verdict) return verdict;
    }
  }

  close(): null {
    return null;
  }

  /** Null: the mistake cannot be made on this ring. */
  #try(draw: Draw, label: string): Verdict | null {
    const { size, isPacked, features } = this.#place;
    const written = this.#chains(draw);
    const allowed = MISTAKES[label]?.(draw, written, this.#place);
    if (allowed === null) return null;
    this.#memory.clear();
    this.#write(written);
    if (label === 'flipped bytes') this.#flip(draw);
    if (label === 'noise') this.#memory.bytes.set(draw.bytes(64), draw.below(0x8000));
    const areas = label === 'ring outside memory' ? outside(draw) : AREAS;
    const ring = createDeviceRing({ index: 0, size, areas }, features, this.#memory);
    const layout = isPacked ? 'packed' : 'split';
    this.trace = [
      `${layout} ring of ${size}, features ${features}`,
      JSON.stringify(written.chains),
    ];
    const outcome = this.#work(draw, ring, label === 'flipped bytes later');
    const expected = label === 'ring outside memory' ? BROKEN : (allowed ?? ANY);
    const verdict = judge(`${layout}: ${label}`, outcome, expected);
    if (label !== 'nothing wrong' || verdict.problem !== null) return verdict;
    return this.#taken === written.chains.length
      ? verdict
      : {
          ...verdict,
          problem: `${label}: ${this.#taken} of ${written.chains.length} chains were taken`,
        };
  }

  #taken = 0;

  /** Takes, ships and completes, as transport and host do; returns how it ended. */
  #work(draw: Draw, ring: DeviceRing, flips: boolean): Outcome {
    const { size } = this.#place;
    const held: number[] = [];
    this.#taken = 0;
    let bad = 0;
    for (let turn = 0; turn < 3; turn++) {
      ring.take(turn);
      for (let message = ring.drain(); message; message = ring.drain()) {
        held.push(...this.#check(message, held));
        if (held.length > size)
          throw new Error(`${held.length} chains of a ring of ${size} are held`);
      }
      const heads = [...held.splice(0, draw.below(held.length + 1)), ...strangers(draw)];
      const lengths = Uint32Array.from(heads, () => draw.u32());
      bad += ring.complete(u16Bytes(Uint16Array.from(heads)), u32Bytes(lengths));
      ring.interruptNeeded();
      if (flips) this.#flip(draw);
    }
    if (ring.broken?.includes('\n')) throw new Error('a reason is one line');
    return ring.broken !== null ? 'broken' : bad > 0 && this.#taken === 0 ? 'counted' : 'served';
  }

  /** What a ring ships is right, whatever the driver wrote. */
  #check(message: Message<'avail'>, held: readonly number[]): number[] {
    encodeFrame([message]);
    if (!this.#cursor.load(message, this.#place.size))
      throw new Error('the host would refuse this');
    const heads = [...toUint16(message.heads)!];
    this.#taken += heads.length;
    const twice = heads.find((head, i) => held.includes(head) || heads.indexOf(head) !== i);
    if (twice !== undefined) throw new Error(`chain ${twice} was taken twice`);
    return heads;
  }

  #chains(draw: Draw): Written {
    const { size, features } = this.#place;
    const canIndirect = hasFeature(features, Feature.RING_INDIRECT_DESC);
    const chains: Element[][] = [];
    const indirect: boolean[] = [];
    let free = size;
    for (let i = draw.pick([1, 1, 2, CHAINS_MAX]); i > 0 && free > 0; i--) {
      const isTable = canIndirect && draw.chance(1, 2);
      const longest = Math.min(isTable ? size : free, 6);
      const count = 1 + draw.below(longest);
      const readable = draw.below(count + 1);
      chains.push(elements(readable, count - readable));
      indirect.push(isTable);
      free -= isTable ? 1 : count;
    }
    return {
      chains,
      indirect,
      extra: 0,
      heads: new Map(),
      tableBytes: null,
      tableFlags: 0,
      tableGpa: null,
    };
  }

  #write(written: Written): void {
    if (this.#place.isPacked) this.#writePacked(written);
    else this.#writeSplit(written);
  }

  #writeSplit(written: Written): void {
    const { size } = this.#place;
    const { chains, indirect, heads, extra } = written;
    let id = 0;
    for (const [i, chain] of chains.entries()) {
      const head = heads.get(i) ?? id;
      this.#memory.view.setUint16(
        AREAS.driverGpa + AvailHeader.sizeBytes + 2 * (i % size),
        head,
        true,
      );
      if (indirect[i]) {
        this.#memory.putDesc(AREAS.descGpa, id, this.#table(i, chain, written, 0));
        id++;
        continue;
      }
      for (const [k, element] of chain.entries()) {
        // Places in the chain; what a mistake made of them is outside, or leads back.
        const next = element.next <= chain.length ? id + element.next : element.next;
        this.#memory.putDesc(AREAS.descGpa, id + k, { ...element, next });
      }
      id += chain.length;
    }
    const idx = (chains.length + extra) & 0xffff;
    this.#memory.view.setUint16(AREAS.driverGpa + AvailHeader.offsets.idx, idx, true);
  }

  #writePacked(written: Written): void {
    let position = 0;
    for (const [i, chain] of written.chains.entries()) {
      const list = written.indirect[i] ? [this.#table(i, chain, written, i)] : chain;
      for (const element of list) {
        const flags = element.flags | AVAILABLE;
        this.#memory.putPacked(AREAS.descGpa, position++, { ...element, flags, next: i });
      }
    }
  }

  /** The elements go into a table of their own; returns the descriptor that refers to it. */
  #table(index: number, chain: readonly Element[], written: Written, next: number): Element {
    const gpa = TABLE_GPA + index * 0x200;
    const { isPacked } = this.#place;
    for (const [i, element] of chain.entries()) {
      if (isPacked) this.#memory.putPacked(gpa, i, { ...element, next: 0 });
      else this.#memory.putDesc(gpa, i, element);
    }
    const isFirst = index === 0;
    return {
      gpa: (isFirst ? written.tableGpa : null) ?? gpa,
      lengthBytes: (isFirst ? written.tableBytes : null) ?? 16 * chain.length,
      flags: DescFlag.INDIRECT | (isFirst ? written.tableFlags : 0),
      next,
    };
  }

  #flip(draw: Draw): void {
    const { size } = this.#place;
    const { bytes } = this.#memory;
    for (let i = draw.pick([1, 2, 8, 32]); i > 0; i--) {
      const at = draw.pick([
        AREAS.descGpa + draw.below(16 * size),
        AREAS.driverGpa + draw.below(6 + 2 * size),
        AREAS.deviceGpa + draw.below(6 + 8 * size),
        TABLE_GPA + draw.below(0x800),
      ]);
      bytes[at] = draw.below(256);
    }
  }
}

/** Heads that nobody holds, as far as anybody knows. */
function strangers(draw: Draw): number[] {
  return Array.from({ length: draw.pick([0, 0, 0, 1, 4]) }, () => draw.below(0x10000));
}

function outside(draw: Draw) {
  const gpa = draw.pick([MEMORY_BYTES, 2 ** 40, MEMORY_BYTES - 4]);
  return { descGpa: gpa, driverGpa: gpa, deviceGpa: gpa };
}

export const DEVICE_RINGS: Kind = {
  name: 'rings',
  direction: 'guest-to-host',
  about: 'what a driver writes into split and packed rings, as the hand of the device reads it',
  weight: 40,
  casesPerSession: 128,
  open: (seed) => new DeviceRingSession(seed),
};
