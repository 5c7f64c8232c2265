/** The device's hand on a ring of either layout: batches, notifications, and moving to another host. */
import { describe, expect, test } from 'vitest';
import type { RingState } from '../../../../guest/virtio/ring-state.ts';
import {
  Desc,
  EventSuppress,
  Feature,
  MAX_BATCH_SEGMENTS,
  PackedDesc,
  PackedDescFlag,
  packedRingLayout,
  RingEventFlags,
  splitRingLayout,
  UsedElem,
  UsedHeader,
} from '../../../../protocol/index.ts';
import { chainsOf, DATA_GPA, DATA_PAGES, LAYOUTS, RingRig } from '../../../support/ring-rig.ts';

const { RING_INDIRECT_DESC, RING_EVENT_IDX, IN_ORDER } = Feature;
const DATA_BYTES = DATA_PAGES * 4096;

describe.each(LAYOUTS)('%s', (layout) => {
  test('more readable bytes than a message carries travel in several', () => {
    const rig = new RingRig({ layout, size: 64 });
    // Of the eighteenth there is room for the first piece only.
    const out = [2048, 58 * 1024].map((lengthBytes) => ({ gpa: DATA_GPA, lengthBytes }));
    for (let i = 0; i < 20; i++) rig.queue.addChain({ out });
    expect(rig.ring.take(5)).toBe(17);
    const batches = [rig.ring.drain(), rig.ring.drain(), rig.ring.drain()];
    expect(batches.map((batch) => batch?.heads.length)).toEqual([34, 6, undefined]);
    expect(batches[1]?.out.length).toBe(3 * 60 * 1024);
    expect(chainsOf(batches[1]!).map((chain) => chain.atNs)).toEqual([5, 5, 5]);
    expect(rig.ring.broken).toBe(null);
  });

  test('more segments than a message carries travel in several', () => {
    const rig = new RingRig({ layout, size: 1024, features: [RING_INDIRECT_DESC] });
    const table = new DataView(rig.data.buffer, rig.data.byteOffset);
    const isPacked = layout === 'packed';
    const flagsAt = (isPacked ? PackedDesc : Desc).offsets.flags;
    for (let i = 0; i < 1024; i++) {
      table.setUint32(i * 16 + Desc.offsets.addr, 4096, true);
      table.setUint32(i * 16 + Desc.offsets.len, 1, true);
      table.setUint16(i * 16 + flagsAt, isPacked || i === 1023 ? 2 : 3, true);
      if (!isPacked) table.setUint16(i * 16 + Desc.offsets.next, i + 1, true);
    }
    for (let i = 0; i < 40; i++) {
      rig.queue.addSingle(DATA_GPA, 1024 * 16, false);
      const at = i * 16 + flagsAt;
      rig.queue.view.setUint16(at, rig.queue.view.getUint16(at, true) | 4, true);
    }
    rig.ring.take(0);
    const counts = [rig.ring.drain(), rig.ring.drain()].map((batch) => batch!.in_gpa.length / 8);
    expect(counts).toEqual([MAX_BATCH_SEGMENTS, 8 * 1024]);
    expect(rig.ring.drain()).toBe(null);
  });

  test('readable bytes may lie in frames that are not neighbours in memory', () => {
    const rig = new RingRig({ layout, size: 4 });
    const other = rig.ram.bytesOf(DATA_GPA / 4096 + DATA_PAGES, 1);
    rig.data.fill(1);
    other.fill(2);
    rig.queue.addSingle(DATA_GPA + DATA_BYTES - 2, 4, false);
    expect(rig.take()[0]?.out).toEqual([1, 1, 2, 2]);
  });

  test('what the device writes is logged dirty, whichever page of the ring it is in', () => {
    const size = 1024;
    const rig = new RingRig({ layout, size });
    const marks = (count: number): number[] => {
      for (let i = 0; i < count; i++) rig.queue.addSingle(4096, 4, true);
      rig.queue.flushTouched();
      const heads = rig.take().map((chain) => chain.head);
      rig.ram.dirtyLog.enable(false);
      rig.ram.dirtyLog.enable(true);
      rig.complete(heads);
      while (rig.queue.getUsed() >= 0);
      return [...Array(16).keys()].filter((page) => rig.ram.dirtyLog.bits.get(16 + page));
    };
    const base = layout === 'split' ? splitRingLayout(size).usedOffset : 0;
    const entry = layout === 'split' ? UsedElem.sizeBytes : PackedDesc.sizeBytes;
    const first = layout === 'split' ? base + UsedHeader.sizeBytes : base;
    const pageOf = (i: number): number => Math.floor((first + i * entry) / 4096);
    const header = layout === 'split' ? [Math.floor(base / 4096)] : [];
    const expected = (...pages: number[]) =>
      [...new Set([...header, ...pages])].sort((a, b) => a - b);
    expect(marks(1000)).toEqual(expected(...[...Array(1000).keys()].map(pageOf)));
    // Around the end of the ring.
    expect(marks(30)).toEqual(expected(pageOf(1000), pageOf(1023), pageOf(5)));
    expect(marks(1)).toEqual(expected(pageOf(6)));
  });

  test.each<[readonly number[]]>([[[]], [[IN_ORDER]], [[RING_EVENT_IDX]]])(
    'goes on at another host from the saved state (%s)',
    (features) => {
      const rig = new RingRig({ layout, size: 8, features });
      const { queue } = rig;
      const add = (serial: number): number => queue.addSingle(4096 * serial, 16, true);
      // Twice around, so that the wrap counters have a say.
      for (let i = 1; i <= 13; i++) {
        add(i);
        rig.complete(rig.take().map((chain) => chain.head));
        queue.getUsed();
      }
      const ids = [add(20), add(21), add(22)];
      const held = rig.take();
      const state = JSON.parse(JSON.stringify(rig.ring.saveState()));
      rig.ring = rig.newRing();
      expect(rig.ring.restoreState(state)).toBe(true);
      expect(rig.take()).toEqual([]);
      // Whether the driver was told of what was used last is not known here.
      expect(rig.ring.interruptNeeded()).toBe(true);
      ids.push(add(23));
      const heads = [...held, ...rig.take()].map((chain) => chain.head);
      const order = features.includes(IN_ORDER) ? [0, 1, 2, 3] : [2, 0, 3, 1];
      expect(
        rig.complete(
          order.map((i) => heads[i]!),
          [7, 7, 7, 7],
        ),
      ).toBe(0);
      expect(order.map(() => queue.getUsed())).toEqual(order.map((i) => ids[i]));
      expect(queue.usedBytes).toBe(7);
      expect(rig.ring.saveState().held).toEqual([]);
    },
  );

  const held = { head: 0, id: 0, descs: 1 };
  test.each([
    { id: 'an index that is none', state: { availIndex: 65_537, usedIndex: 0, held: [held] } },
    { id: 'no list', state: { availIndex: 0, usedIndex: 0, held: null } },
    { id: 'chains that are none', state: { availIndex: 1, usedIndex: 0, held: [null] } },
    { id: 'a fraction', state: { availIndex: 1.5, usedIndex: 0.5, held: [held] } },
    { id: 'fewer chains than indices say', state: { availIndex: 3, usedIndex: 0, held: [held] } },
    { id: 'one chain twice', state: { availIndex: 2, usedIndex: 0, held: [held, held] } },
    { id: 'no descriptors', state: { availIndex: 1, usedIndex: 0, held: [{ ...held, descs: 0 }] } },
    {
      id: 'a head outside the ring',
      state: { availIndex: 1, usedIndex: 0, held: [{ ...held, head: 8, id: 8 }] },
    },
    {
      id: 'more descriptors than there are',
      state: { availIndex: 1, usedIndex: 0, held: [{ ...held, descs: 9 }] },
    },
  ])('does not go on from $id', ({ state }) => {
    const rig = new RingRig({ layout, size: 8 });
    expect(rig.newRing().restoreState(state as RingState)).toBe(false);
  });

  test('heads that it does not hold are refused, one by one', () => {
    const rig = new RingRig({ layout, size: 8 });
    rig.queue.addSingle(4096, 4, true);
    const [chain] = rig.take();
    expect(rig.complete([chain!.head, chain!.head, 7, 4000], [1, 1, 1, 1])).toBe(3);
    expect(rig.queue.getUsed()).toBeGreaterThanOrEqual(0);
    expect(rig.queue.getUsed()).toBe(-1);
  });
});

describe('IN_ORDER', () => {
  test.each(LAYOUTS)('%s: a used buffer that is not the oldest is refused', (layout) => {
    const rig = new RingRig({ layout, size: 8, features: [IN_ORDER] });
    for (let i = 0; i < 3; i++) rig.queue.addSingle(4096, 4, true);
    const [a, b, c] = rig.take().map((chain) => chain.head);
    expect(rig.complete([b!, a!, c!])).toBe(2);
    expect(rig.complete([b!, c!])).toBe(0);
  });

  /** A device that writes one entry for `ids`: the last one's. */
  const useTogether = (rig: RingRig, layout: string, ids: readonly number[], at: number): void => {
    const { view, size } = rig.queue;
    const last = ids.at(-1)!;
    if (layout === 'packed') {
      const desc = at * PackedDesc.sizeBytes;
      view.setUint16(desc + PackedDesc.offsets.id, last, true);
      view.setUint32(desc + PackedDesc.offsets.len, 5, true);
      const used = PackedDescFlag.AVAIL | PackedDescFlag.USED | 2;
      view.setUint16(desc + PackedDesc.offsets.flags, used, true);
      return;
    }
    const { usedOffset } = splitRingLayout(size);
    const entry = usedOffset + UsedHeader.sizeBytes + at * UsedElem.sizeBytes;
    view.setUint32(entry + UsedElem.offsets.id, last, true);
    view.setUint32(entry + UsedElem.offsets.len, 5, true);
    view.setUint16(usedOffset + UsedHeader.offsets.idx, at + ids.length, true);
  };

  test.each(LAYOUTS)('%s: one used entry stands for all buffers before it', (layout) => {
    const rig = new RingRig({ layout, size: 8, features: [IN_ORDER] });
    const { queue } = rig;
    const ids = [1, 2, 3, 4].map((length) => queue.addSingle(4096, length * 100, true));
    useTogether(rig, layout, ids.slice(0, 3), 0);
    expect(queue.enableCallbacks()).toBe(false);
    const seen: [number, number][] = [];
    for (let i = 0; i < 3; i++) seen.push([queue.getUsed(), queue.usedBytes]);
    // The device is taken to have filled those that it has no entry for.
    expect(seen).toEqual([
      [ids[0], 100],
      [ids[1], 200],
      [ids[2], 5],
    ]);
    expect(queue.getUsed()).toBe(-1);
    useTogether(rig, layout, [ids[3]!], 3);
    expect([queue.getUsed(), queue.getUsed()]).toEqual([ids[3], -1]);
    expect([queue.freeCount, queue.badUsedCount]).toEqual([8, 0]);
  });

  test('split: an index that falls short of its entry ends the batch, counted', () => {
    const rig = new RingRig({ layout: 'split', size: 8, features: [IN_ORDER] });
    const { queue } = rig;
    const ids = [1, 2, 3].map((length) => queue.addSingle(4096, length, true));
    useTogether(rig, 'split', ids, 0);
    queue.view.setUint16(splitRingLayout(8).usedOffset + UsedHeader.offsets.idx, 2, true);
    expect([queue.getUsed(), queue.getUsed(), queue.getUsed()]).toEqual([ids[0], ids[1], -1]);
    expect(queue.badUsedCount).toBe(1);
  });
});

describe('what a driver of a packed ring reads', () => {
  const { driverOffset, deviceOffset } = packedRingLayout(5);

  test('no length without WRITE, and nothing more after a buffer that it never gave', () => {
    const { queue } = new RingRig({ layout: 'packed', size: 5 });
    const id = queue.addSingle(4096, 4, true);
    queue.addSingle(4096, 4, true);
    const used = PackedDescFlag.AVAIL | PackedDescFlag.USED;
    queue.view.setUint32(PackedDesc.offsets.len, 99, true);
    queue.view.setUint16(PackedDesc.offsets.flags, used, true);
    expect([queue.getUsed(), queue.usedBytes]).toEqual([id, 0]);
    queue.view.setUint16(PackedDesc.sizeBytes + PackedDesc.offsets.id, 4, true);
    queue.view.setUint16(PackedDesc.sizeBytes + PackedDesc.offsets.flags, used, true);
    expect([queue.getUsed(), queue.getUsed(), queue.badUsedCount]).toEqual([-1, -1, 1]);
  });

  test('kicks only when it passes the descriptor that the device names', () => {
    const { queue } = new RingRig({ layout: 'packed', size: 5, features: [RING_EVENT_IDX] });
    const kicks = (): boolean => queue.kickNeeded();
    const ask = (desc: number): void => {
      EventSuppress.write(queue.view, deviceOffset, { desc, flags: RingEventFlags.DESC });
    };
    ask(0x8002);
    queue.addSingle(4096, 4, true);
    queue.addSingle(4096, 4, true);
    expect(kicks()).toBe(false);
    queue.addSingle(4096, 4, true);
    expect(kicks()).toBe(true);
    expect(kicks()).toBe(false);
    // The same place in the next lap is another one.
    ask(0x0003);
    queue.addSingle(4096, 4, true);
    expect(kicks()).toBe(false);
    EventSuppress.write(queue.view, deviceOffset, { desc: 0, flags: RingEventFlags.DISABLE });
    queue.addSingle(4096, 4, true);
    expect(kicks()).toBe(false);
  });

  test('without EVENT_IDX the mode for one descriptor is none', () => {
    const rig = new RingRig({ layout: 'packed', size: 5 });
    const { queue, ring } = rig;
    EventSuppress.write(queue.view, deviceOffset, { desc: 4, flags: RingEventFlags.DESC });
    EventSuppress.write(queue.view, driverOffset, { desc: 4, flags: RingEventFlags.DESC });
    queue.addSingle(4096, 4, true);
    expect(queue.kickNeeded()).toBe(true);
    rig.complete(rig.take().map((chain) => chain.head));
    expect(ring.interruptNeeded()).toBe(true);
  });
});
