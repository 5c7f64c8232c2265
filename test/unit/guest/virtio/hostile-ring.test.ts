/** What a driver may write into a ring by mistake or malice: the queue breaks, and nothing else. */
import { describe, expect, test } from 'vitest';
import { createDeviceRing } from '../../../../guest/virtio/device-ring.ts';
import {
  AvailHeader,
  Desc,
  DescFlag,
  Feature,
  PackedDesc,
  PackedDescFlag,
  splitRingLayout,
  writeLe64,
} from '../../../../protocol/index.ts';
import { DATA_GPA, LAYOUTS, type Layout, RingRig } from '../../../support/ring-rig.ts';

const SIZE = 8;
const { NEXT, WRITE, INDIRECT } = DescFlag;
const AVAILABLE = PackedDescFlag.AVAIL;
const { RING_INDIRECT_DESC } = Feature;

interface Written {
  readonly gpa?: number;
  readonly bytes?: number;
  readonly flags?: number;
  readonly next?: number;
}

/** Descriptors and heads written by hand, without a driver in between. */
class Scribe {
  readonly rig: RingRig;
  readonly layout: Layout;

  constructor(layout: Layout, features: readonly number[]) {
    this.layout = layout;
    this.rig = new RingRig({ layout, size: SIZE, features });
  }

  /** Into the ring from descriptor 0 on; packed ones say that they are available unless told. */
  ring(...descs: Written[]): void {
    const { view } = this.rig.queue;
    const extra = this.layout === 'packed' ? AVAILABLE : 0;
    for (const [i, desc] of descs.entries()) this.#write(view, i, desc, extra);
  }

  /** A table in the data pages; `ring` refers to it by `table(count)`. */
  table(...descs: Written[]): void {
    const { buffer, byteOffset } = this.rig.data;
    const view = new DataView(buffer, byteOffset);
    for (const [i, desc] of descs.entries()) this.#write(view, i, desc, 0);
  }

  /** avail.idx and its entries; a packed ring has none. */
  publish(...heads: number[]): void {
    if (this.layout === 'packed') return;
    const { view } = this.rig.queue;
    const { availOffset } = splitRingLayout(SIZE);
    for (const [i, head] of heads.entries()) {
      view.setUint16(availOffset + AvailHeader.sizeBytes + i * 2, head, true);
    }
    view.setUint16(availOffset + AvailHeader.offsets.idx, heads.length, true);
  }

  #write(view: DataView, i: number, desc: Written, extra: number): void {
    const { gpa = DATA_GPA + 1024, bytes = 4, flags = WRITE, next = i + 1 } = desc;
    const at = i * Desc.sizeBytes;
    writeLe64(view, at + Desc.offsets.addr, gpa);
    view.setUint32(at + Desc.offsets.len, bytes, true);
    const isPacked = this.layout === 'packed';
    view.setUint16(at + (isPacked ? PackedDesc : Desc).offsets.flags, flags | extra, true);
    if (!isPacked) view.setUint16(at + Desc.offsets.next, next, true);
    else view.setUint16(at + PackedDesc.offsets.id, i, true);
  }
}

const tableOf = (count: number): Written => ({
  gpa: DATA_GPA,
  bytes: count * Desc.sizeBytes,
  flags: INDIRECT,
});

interface Case {
  readonly id: string;
  readonly reason: RegExp;
  readonly only?: Layout;
  readonly features?: readonly number[];
  readonly write: (scribe: Scribe) => void;
}

const indirect = [RING_INDIRECT_DESC];
const CASES: readonly Case[] = [
  { id: 'zero length', reason: /zero-length/, write: (s) => s.ring({ bytes: 0 }) },
  {
    id: 'readable after writable',
    reason: /readable descriptor after/,
    write: (s) => s.ring({ flags: WRITE | NEXT }, { flags: 0 }),
  },
  {
    id: 'readable bytes that are not there',
    reason: /outside memory/,
    write: (s) => s.ring({ gpa: 4096, flags: 0 }),
  },
  {
    id: 'an end beyond 2^53',
    reason: /2\^53/,
    write: (s) => s.ring({ gpa: Number.MAX_SAFE_INTEGER - 1 }),
  },
  {
    id: 'more readable bytes than a message carries',
    reason: /too many readable/,
    write: (s) => s.ring({ bytes: 0xffff_ffff, flags: 0 }),
  },
  {
    id: 'a table without the feature',
    reason: /without the feature/,
    write: (s) => s.ring(tableOf(1)),
  },
  {
    id: 'a table of half a descriptor',
    reason: /wrong length/,
    features: indirect,
    write: (s) => s.ring({ ...tableOf(1), bytes: 24 }),
  },
  {
    id: 'a table of nothing',
    reason: /wrong length/,
    features: indirect,
    write: (s) => s.ring(tableOf(0)),
  },
  {
    id: 'a table outside memory',
    reason: /table outside memory/,
    features: indirect,
    write: (s) => s.ring({ ...tableOf(1), gpa: 2 ** 40 }),
  },
  {
    id: 'a table beyond the end of memory',
    reason: /table outside memory|longer than the ring/,
    features: indirect,
    write: (s) => s.ring({ ...tableOf(1), bytes: 0xffff_fff0 }),
  },
  {
    id: 'a table and NEXT',
    reason: /with NEXT|in a list/,
    features: indirect,
    write: (s) => {
      s.table({});
      s.ring({ ...tableOf(1), flags: INDIRECT | NEXT }, {});
    },
  },
  {
    id: 'a defect inside a table',
    reason: /zero-length/,
    features: indirect,
    write: (s) => {
      s.table({ flags: NEXT }, { bytes: 0 });
      s.ring(tableOf(2));
    },
  },
  {
    id: 'a table longer than the ring',
    reason: /longer than the ring/,
    features: indirect,
    write: (s) => {
      s.table(...Array.from({ length: SIZE + 1 }, () => ({ flags: WRITE | NEXT })));
      s.ring(tableOf(SIZE + 1));
    },
  },
  {
    id: 'a table in a table',
    reason: /in an indirect table/,
    only: 'split',
    features: indirect,
    write: (s) => {
      s.table(tableOf(1));
      s.ring(tableOf(1));
    },
  },
  {
    id: 'a loop in a table',
    reason: /loop/,
    only: 'split',
    features: indirect,
    write: (s) => {
      s.table({ flags: WRITE | NEXT, next: 1 }, { flags: WRITE | NEXT, next: 0 });
      s.ring(tableOf(2));
    },
  },
  {
    id: 'next outside the table',
    reason: /outside the table/,
    only: 'split',
    features: indirect,
    write: (s) => {
      s.table({ flags: WRITE | NEXT, next: 2 });
      s.ring(tableOf(2));
    },
  },
  {
    id: 'a table after other elements',
    reason: /in a list/,
    only: 'packed',
    features: indirect,
    write: (s) => {
      s.table({});
      s.ring({ flags: WRITE | NEXT }, tableOf(1));
    },
  },
  {
    id: 'a list that goes on into nothing',
    reason: /not available/,
    only: 'packed',
    write: (s) => s.ring({ flags: WRITE | NEXT }),
  },
  {
    id: 'a list around the whole ring',
    reason: /more is available|not available/,
    only: 'packed',
    write: (s) => s.ring(...Array.from({ length: SIZE }, () => ({ flags: WRITE | NEXT }))),
  },
];

const ALL = LAYOUTS.flatMap((layout) =>
  CASES.filter(({ only }) => only === undefined || only === layout).map((one) => ({
    ...one,
    layout,
    features: one.features ?? [],
  })),
);

describe('a ring that makes no sense breaks its queue', () => {
  test.each(ALL)('$layout: $id', ({ layout, features, write, reason }) => {
    const scribe = new Scribe(layout, features);
    write(scribe);
    scribe.publish(0);
    const { ring, ram } = scribe.rig;
    expect(scribe.rig.take()).toEqual([]);
    expect(ring.broken).toMatch(reason);
    // Left alone from now on: nothing is taken, written or asked for.
    ram.dirtyLog.enable(true);
    expect(ring.take(1)).toBe(0);
    expect(scribe.rig.complete([0, 1])).toBe(2);
    expect(ring.interruptNeeded()).toBe(false);
    expect(ram.dirtyLog.bits.count()).toBe(0);
  });

  test.each(LAYOUTS)('%s: a good chain before the bad one is still taken', (layout) => {
    const scribe = new Scribe(layout, []);
    scribe.ring({ gpa: 4096, bytes: 512 }, { bytes: 0 });
    scribe.publish(0, 1);
    expect(scribe.rig.take().map((chain) => chain.in)).toEqual([[[4096, 512]]]);
    expect(scribe.rig.ring.broken).toMatch(/zero-length/);
  });

  test('split: a head a second time, and two chains that share descriptors', () => {
    const twice = new Scribe('split', []);
    twice.ring({});
    twice.publish(0, 0);
    expect(twice.rig.take()).toHaveLength(1);
    expect(twice.rig.ring.broken).toMatch(/already available/);
    const shared = new Scribe('split', []);
    shared.ring(
      ...Array.from({ length: SIZE }, (_, i) => ({ flags: i < 7 ? WRITE | NEXT : WRITE })),
    );
    shared.publish(0, 3);
    expect(shared.rig.take()).toHaveLength(1);
    expect(shared.rig.ring.broken).toMatch(/shared/);
  });

  test('packed: what the device holds becomes available again', () => {
    const { rig } = new Scribe('packed', []);
    for (let i = 0; i < SIZE; i++) rig.queue.addSingle(4096, 4, true);
    expect(rig.take()).toHaveLength(SIZE);
    // The next lap has the other wrap counter.
    rig.queue.view.setUint16(PackedDesc.offsets.flags, WRITE | PackedDescFlag.USED, true);
    expect(rig.take()).toEqual([]);
    expect(rig.ring.broken).toMatch(/more is available/);
  });

  test.each(LAYOUTS)('%s: areas that are no memory', (layout) => {
    const { features, ram, queue } = new RingRig({ layout, size: SIZE });
    const nowhere = 2 ** 41;
    for (const area of ['descGpa', 'driverGpa', 'deviceGpa'] as const) {
      const areas = { ...queue.areas, [area]: nowhere };
      const ring = createDeviceRing({ index: 0, size: SIZE, areas }, features, ram);
      ring.take(0);
      if (layout === 'split' || area === 'descGpa') expect(ring.broken).toMatch(/not in memory/);
      expect(ring.interruptNeeded()).toBe(layout === 'packed' && area === 'deviceGpa');
    }
  });
});

test('packed: in a table only WRITE means anything', () => {
  const scribe = new Scribe('packed', indirect);
  scribe.table({ flags: NEXT | INDIRECT, gpa: DATA_GPA, bytes: 2 }, { flags: WRITE | 0x8080 });
  scribe.ring({ ...tableOf(2), flags: INDIRECT | WRITE });
  const [chain] = scribe.rig.take();
  expect([chain?.out.length, chain?.in.length]).toEqual([2, 1]);
});
