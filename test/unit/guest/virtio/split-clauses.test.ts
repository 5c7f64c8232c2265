/** Clauses of virtio 1.4 §2.7 that a look at the ring's bytes decides. */
import { describe, expect, test } from 'vitest';
import {
  AvailHeader,
  Desc,
  DescFlag,
  Feature,
  splitRingLayout,
  UsedElem,
  UsedHeader,
  writeLe64,
} from '../../../../protocol/index.ts';
import { Errno } from '../../../../shared/index.ts';
import { DATA_GPA, RingRig } from '../../../support/ring-rig.ts';
import { watch } from '../../../support/ring-watch.ts';

const { RING_INDIRECT_DESC: INDIRECT_DESC, RING_EVENT_IDX: EVENT_IDX, IN_ORDER } = Feature;

function make(size: number, ...features: number[]) {
  const rig = new RingRig({ layout: 'split', size, features });
  const { queue } = rig;
  const { view } = queue;
  const layout = splitRingLayout(size);
  const at = (id: number, field: keyof typeof Desc.offsets): number =>
    layout.descOffset + id * Desc.sizeBytes + Desc.offsets[field];
  const u16 = (offset: number): number => view.getUint16(offset, true);
  const put16 = (offset: number, value: number): void => view.setUint16(offset, value, true);
  const availIdx = layout.availOffset + AvailHeader.offsets.idx;
  const availFlags = layout.availOffset + AvailHeader.offsets.flags;
  const usedFlags = layout.usedOffset + UsedHeader.offsets.flags;
  const usedIdx = layout.usedOffset + UsedHeader.offsets.idx;
  return { rig, queue, view, layout, at, u16, put16, availIdx, availFlags, usedFlags, usedIdx };
}

const readable = (...lengths: number[]) =>
  lengths.map((lengthBytes, i) => ({ gpa: DATA_GPA + i * 64, lengthBytes }));
const writable = (count: number) =>
  Array.from({ length: count }, (_, i) => ({ gpa: 0x10_0000 + i * 4096, lengthBytes: 4096 }));

describe('what the driver writes', () => {
  // spec: 2.7.1-driver-1
  test.each([1, 2, 4, 32, 128, 1024])('a ring of %s has its parts aligned', (size) => {
    const { areas } = make(size).queue;
    expect([areas.descGpa % 16, areas.driverGpa % 2, areas.deviceGpa % 4]).toEqual([0, 0, 0]);
  });

  // spec: 2.7.4.2-driver-1, 2.7.5.3.1-driver-1
  test('readable descriptors come before writable ones, and none is indirect', () => {
    const { queue, at, u16 } = make(8);
    const head = queue.addChain({ in: writable(2), out: readable(4, 4) });
    const flags: number[] = [];
    for (let id = head; ; id = u16(at(id, 'next'))) {
      flags.push(u16(at(id, 'flags')));
      if ((flags.at(-1)! & DescFlag.NEXT) === 0) break;
    }
    const { NEXT, WRITE } = DescFlag;
    expect(flags).toEqual([NEXT, NEXT, NEXT | WRITE, WRITE]);
  });

  // spec: 2.7.5.2-driver-1
  test('no chain of more than 2^32 bytes is made', () => {
    const { queue, rig } = make(8);
    const half = { gpa: 0x10_0000, lengthBytes: 2 ** 31 };
    expect(queue.addChain({ in: [half, half, { gpa: 4096, lengthBytes: 1 }] })).toBe(Errno.EINVAL);
    expect(queue.addChain({ in: [half, half] })).toBeGreaterThanOrEqual(0);
    expect(rig.take()).toHaveLength(1);
  });

  // spec: 2.7.5.2-driver-2
  test('with IN_ORDER each descriptor leads to the next of the table, the last to the first', () => {
    const { queue, rig, at, u16 } = make(4, IN_ORDER);
    for (let lap = 0; lap < 4; lap++) {
      const head = queue.addChain({ in: writable(3) });
      expect(head).toBe((lap * 3) % 4);
      for (let i = 0; i < 2; i++) {
        const id = (head + i) % 4;
        expect(u16(at(id, 'next'))).toBe((id + 1) % 4);
      }
      rig.complete(rig.take().map((chain) => chain.head));
      expect(queue.getUsed()).toBe(head);
    }
  });

  // spec: 2.7.5.3.1-driver-2, 2.7.5.3.1-driver-4, 2.7.5.3.1-driver-5
  test.each([[[]], [[IN_ORDER]]])('an indirect table is one, in its order (%s)', (features) => {
    const { queue, view, at, u16 } = make(8, INDIRECT_DESC, ...features);
    const head = queue.addChain({ out: readable(4), in: writable(2) });
    expect(u16(at(head, 'flags'))).toBe(DescFlag.INDIRECT);
    expect(view.getUint32(at(head, 'len'), true)).toBe(3 * Desc.sizeBytes);
    const table = view.getUint32(at(head, 'addr'), true) - queue.areas.descGpa;
    const field = (i: number, name: 'flags' | 'next') =>
      u16(table + i * Desc.sizeBytes + Desc.offsets[name]);
    const { NEXT, WRITE } = DescFlag;
    expect([0, 1, 2].map((i) => field(i, 'flags'))).toEqual([NEXT, NEXT | WRITE, WRITE]);
    expect([0, 1].map((i) => field(i, 'next'))).toEqual([1, 2]);
  });

  // spec: 2.7.5.3.1-driver-3
  test.each([[[]], [[INDIRECT_DESC]]])('no chain is longer than the queue (%s)', (features) => {
    const { queue } = make(4, ...features);
    expect(queue.addChain({ in: writable(5) })).toBe(Errno.ENOSPC);
    expect(queue.addChain({ in: writable(4) })).toBeGreaterThanOrEqual(0);
  });

  // spec: 2.7.6.1-driver-1
  test('the available index goes up by one for each chain, and never down', () => {
    const { queue, rig, u16, availIdx } = make(4);
    for (let i = 0; i < 40; i++) {
      const before = u16(availIdx);
      const added = queue.addChain({ in: writable((i % 3) + 1) }) >= 0;
      expect(u16(availIdx)).toBe(before + (added ? 1 : 0));
      if (i % 2 === 0) continue;
      rig.complete(rig.take().map((chain) => chain.head));
      while (queue.getUsed() >= 0);
      queue.disableCallbacks();
      queue.enableCallbacks();
      expect(u16(availIdx)).toBe(before + (added ? 1 : 0));
    }
  });

  // spec: 3.3.1-driver-1
  test('the descriptors of a chain stay as they are until the device has used it', () => {
    const { queue, rig, view } = make(8);
    const kept = queue.addChain({ out: readable(4), in: writable(1) });
    rig.take();
    const bytes = () => [...new Uint8Array(view.buffer, view.byteOffset, 2 * Desc.sizeBytes)];
    const before = bytes();
    for (let i = 0; i < 100; i++) {
      queue.addChain({ in: writable((i % 6) + 1) });
      rig.complete(rig.take().map((chain) => chain.head));
      while (queue.getUsed() >= 0);
    }
    expect([kept, bytes()]).toEqual([0, before]);
  });

  // spec: 2.7.13.3.1-driver-1, 2.7.13.4.1-driver-1
  test('first the descriptors, then the ring entry, then the index; flags are read after', () => {
    const { queue, view, layout, availIdx, usedFlags } = make(8);
    const accesses = watch(view, () => {
      queue.addChain({ out: readable(4), in: writable(2) });
      queue.kickNeeded();
    });
    const writes = accesses.filter(({ kind }) => kind === 'write').map(({ offset }) => offset);
    expect(writes.at(-1)).toBe(availIdx);
    expect(writes.at(-2)).toBe(layout.availOffset + AvailHeader.sizeBytes);
    expect(Math.max(...writes.slice(0, -2))).toBeLessThan(layout.availOffset);
    expect(accesses.at(-1)).toEqual({ kind: 'read', offset: usedFlags });
  });
});

describe('notifications: the driver', () => {
  // spec: 2.7.7.1-driver-1, 2.7.7.1-driver-2, 2.7.7.1-driver-3, 2.7.7.1-driver-4
  test.each([
    { id: 'without EVENT_IDX', features: [], off: 1 },
    { id: 'with EVENT_IDX', features: [EVENT_IDX], off: 0 },
  ])('flags $id: 0 to be told, $off not to be', ({ features, off }) => {
    const { queue, rig, u16, availFlags } = make(4, ...features);
    const told = (): boolean => {
      queue.addSingle(4096, 4096, true);
      rig.complete(rig.take().map((chain) => chain.head));
      const interrupt = rig.ring.interruptNeeded();
      queue.getUsed();
      return interrupt;
    };
    expect([u16(availFlags), told()]).toEqual([0, true]);
    queue.disableCallbacks();
    expect([u16(availFlags), told()]).toEqual([off, false]);
    queue.enableCallbacks();
    expect([u16(availFlags), told()]).toEqual([0, true]);
  });

  // spec: 2.7.10.1-driver-2, 2.7.10.1-driver-3, 2.7.10.1-driver-4
  test('without EVENT_IDX it notifies by the flags, whatever avail_event says', () => {
    const { queue, layout, put16, usedFlags } = make(4);
    for (const event of [0, 1, 2, 0x7fff, 0xffff]) {
      for (const flags of [0, 1]) {
        put16(layout.availEventOffset, event);
        put16(usedFlags, flags);
        queue.addSingle(4096, 4096, true);
        expect(queue.kickNeeded()).toBe(flags === 0);
      }
    }
  });

  // spec: 2.7.10.1-driver-5, 2.7.10.1-driver-6, 2.7.10.1-driver-7
  test.each([0, 1])('with EVENT_IDX it notifies for the named entry alone (flags %s)', (flags) => {
    const { queue, layout, put16, usedFlags } = make(8, EVENT_IDX);
    put16(usedFlags, flags);
    put16(layout.availEventOffset, 2);
    const kicks = [0, 1, 2, 3, 4].map(() => {
      queue.addSingle(4096, 4096, true);
      return queue.kickNeeded();
    });
    expect(kicks).toEqual([false, false, true, false, false]);
  });
});

describe('the device', () => {
  // spec: 2.7.4.1-device-1
  test.each([[[12]], [[4, 8]], [[1, 2, 3, 5, 1]]])('sees the same bytes cut as %s', (lengths) => {
    const { queue, rig } = make(8);
    let gpa = DATA_GPA;
    const out = lengths.map((lengthBytes) => {
      gpa += lengthBytes;
      return { gpa: gpa - lengthBytes, lengthBytes };
    });
    rig.data.set([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    queue.addChain({ out });
    expect(rig.take()[0]!.out).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
  });

  // spec: 2.7.5.1-device-1
  test('writes to no buffer, and to nothing of the driver’s', () => {
    const { queue, rig, view, layout } = make(4);
    rig.data.fill(7);
    queue.addChain({ out: readable(8) });
    const before = rig.data.slice();
    const accesses = watch(view, () => {
      rig.complete(rig.take().map((chain) => chain.head));
    });
    const writes = accesses.filter(({ kind }) => kind === 'write');
    expect(writes.length).toBeGreaterThan(0);
    expect(writes.every(({ offset }) => offset >= layout.usedOffset)).toBe(true);
    expect(rig.data).toEqual(before);
  });

  // spec: 2.7.5.3.2-device-1
  test('passes over WRITE on a descriptor that refers to a table', () => {
    const { queue, rig, at, u16, put16 } = make(8, INDIRECT_DESC);
    rig.data.set([1, 2, 3, 4]);
    const head = queue.addChain({ out: readable(4), in: writable(1) });
    put16(at(head, 'flags'), u16(at(head, 'flags')) | DescFlag.WRITE);
    const [chain] = rig.take();
    expect([chain!.out, chain!.in]).toEqual([[1, 2, 3, 4], [[0x10_0000, 4096]]]);
  });

  // spec: 2.7.5.3.2-device-2
  test('takes a chain of ordinary descriptors that ends in a table', () => {
    const { queue, rig, view, at, put16 } = make(8, INDIRECT_DESC);
    rig.data.set([1, 2, 3, 4, 5]);
    const head = queue.addChain({ out: readable(1, 1), in: writable(1) });
    const tableGpa = view.getUint32(at(head, 'addr'), true);
    // Two ordinary ones, then what the driver made.
    const link = (id: number, gpa: number, flags: number, len: number, next: number): void => {
      writeLe64(view, at(id, 'addr'), gpa);
      view.setUint32(at(id, 'len'), len, true);
      put16(at(id, 'flags'), flags);
      put16(at(id, 'next'), next);
    };
    link(head, DATA_GPA + 1, DescFlag.NEXT, 2, 6);
    link(6, DATA_GPA + 3, DescFlag.NEXT, 1, 7);
    link(7, tableGpa, DescFlag.INDIRECT, 3 * Desc.sizeBytes, 0);
    const [chain] = rig.take();
    expect(rig.ring.broken).toBe(null);
    expect(chain!.out.slice(0, 3)).toEqual([2, 3, 4]);
    expect(chain!.in).toEqual([[0x10_0000, 4096]]);
  });

  // spec: 2.7.7.2-device-1, 2.7.7.2-device-2, 2.7.7.2-device-3
  test('without EVENT_IDX it interrupts by the flags, whatever used_event says', () => {
    const { queue, rig, layout, put16, availFlags } = make(4);
    for (const event of [0, 1, 2, 0x7fff, 0xffff]) {
      for (const flags of [0, 1]) {
        queue.addSingle(4096, 4096, true);
        put16(layout.usedEventOffset, event);
        put16(availFlags, flags);
        rig.complete(rig.take().map((chain) => chain.head));
        expect(rig.ring.interruptNeeded()).toBe(flags === 0);
        queue.getUsed();
      }
    }
  });

  // spec: 2.7.7.2-device-4, 2.7.7.2-device-5, 2.7.7.2-device-6
  test.each([0, 1])(
    'with EVENT_IDX it interrupts for the named entry alone (flags %s)',
    (flags) => {
      const { queue, rig, layout, put16, availFlags } = make(8, EVENT_IDX);
      for (let i = 0; i < 5; i++) queue.addSingle(4096, 4096, true);
      put16(availFlags, flags);
      put16(layout.usedEventOffset, 2);
      const interrupts = rig.take().map(({ head }) => {
        rig.complete([head]);
        return rig.ring.interruptNeeded();
      });
      expect(interrupts).toEqual([false, false, true, false, false]);
    },
  );

  // spec: 2.7.8.2-device-1
  test('writes the used entry before the index', () => {
    const { queue, rig, view, layout, usedIdx } = make(4);
    queue.addSingle(4096, 4096, true);
    const [chain] = rig.take();
    const entry = layout.usedOffset + UsedHeader.sizeBytes;
    const writes = watch(view, () => void rig.complete([chain!.head], [5]));
    const offsets = writes.filter(({ kind }) => kind === 'write').map(({ offset }) => offset);
    expect(offsets).toContain(entry + UsedElem.offsets.len);
    expect(offsets.indexOf(usedIdx)).toBe(offsets.length - 1);
  });

  // spec: 2.7.10.2-device-1, 2.7.10.2-device-2, 2.7.10.2-device-3, 2.7.10.2-device-4
  test.each([[[]], [[EVENT_IDX]]])('keeps the flags of the used ring at 0 (%s)', (features) => {
    const { queue, rig, u16, usedFlags } = make(4, ...features);
    for (let i = 0; i < 10; i++) {
      queue.addSingle(4096, 4096, true);
      expect(queue.kickNeeded()).toBe(true);
      rig.complete(rig.take().map((chain) => chain.head));
      queue.getUsed();
      expect(u16(usedFlags)).toBe(0);
    }
  });

  // spec: 2.7.10.2-device-5
  test('copes with notifications that announce nothing', () => {
    const { queue, rig } = make(4, EVENT_IDX);
    for (let i = 0; i < 20; i++) {
      expect(rig.take()).toEqual([]);
      if (i % 5 > 0) continue;
      queue.addSingle(4096 * (i + 1), 4096, true);
      expect(rig.take().map((chain) => chain.in)).toEqual([[[4096 * (i + 1), 4096]]]);
      rig.complete([queue.size - 1]);
    }
    expect(rig.ring.broken).toBe(null);
  });

  // spec: 6.2-device-3
  test.each(['split', 'packed'] as const)('with IN_ORDER uses the oldest first (%s)', (layout) => {
    const rig = new RingRig({ layout, size: 4, features: [IN_ORDER] });
    const ids = [1, 2, 3].map((pfn) => rig.queue.addSingle(pfn * 4096, 4096, true));
    rig.queue.flushTouched();
    const heads = rig.take().map((chain) => chain.head);
    expect(rig.complete([heads[1]!])).toBe(1);
    expect(rig.queue.getUsed()).toBe(-1);
    expect(rig.complete(heads)).toBe(0);
    expect(ids.map(() => rig.queue.getUsed())).toEqual(ids);
  });
});
