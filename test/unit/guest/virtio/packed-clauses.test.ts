/** Clauses of virtio 1.4 §2.8 that a look at the ring's bytes decides. */
import { describe, expect, test } from 'vitest';
import {
  DescFlag,
  Feature,
  PackedDesc,
  PackedDescFlag,
  packedRingLayout,
} from '../../../../protocol/index.ts';
import { Errno } from '../../../../shared/index.ts';
import { DATA_GPA, RingRig } from '../../../support/ring-rig.ts';
import { watch } from '../../../support/ring-watch.ts';

const { AVAIL, USED } = PackedDescFlag;
const { NEXT, WRITE, INDIRECT } = DescFlag;

function make(size: number, ...features: number[]) {
  const rig = new RingRig({ layout: 'packed', size, features });
  const { queue } = rig;
  const { view } = queue;
  const layout = packedRingLayout(size);
  const at = (position: number, field: keyof typeof PackedDesc.offsets): number =>
    position * PackedDesc.sizeBytes + PackedDesc.offsets[field];
  const flags = (position: number): number => view.getUint16(at(position, 'flags'), true);
  const kind = (position: number): number => flags(position) & ~(AVAIL | USED);
  const bytes = (position: number, count = 1): number[] => [
    ...new Uint8Array(
      view.buffer,
      view.byteOffset + position * PackedDesc.sizeBytes,
      count * PackedDesc.sizeBytes,
    ),
  ];
  const single = (pfn: number): number => {
    const id = queue.addSingle(pfn * 4096, 4096, true);
    queue.flushTouched();
    return id;
  };
  return { rig, queue, view, layout, at, flags, kind, bytes, single };
}

const readable = (count: number) =>
  Array.from({ length: count }, (_, i) => ({ gpa: DATA_GPA + i * 64, lengthBytes: 4 }));
const writable = (count: number) =>
  Array.from({ length: count }, (_, i) => ({ gpa: 0x10_0000 + i * 4096, lengthBytes: 4096 }));

describe('what the driver writes', () => {
  // spec: 2.8.11-driver-1
  test.each([1, 2, 3, 17, 100, 128, 1024])('a ring of %s has its parts aligned', (size) => {
    const { areas } = make(size).queue;
    expect([areas.descGpa % 16, areas.driverGpa % 4, areas.deviceGpa % 4]).toEqual([0, 0, 0]);
  });

  // spec: 2.8.16-driver-1, 2.8.16-driver-2, 3.3.1-driver-1
  test('a descriptor stays as it is from being exposed to being used', () => {
    const { queue, rig, bytes } = make(8);
    queue.addChain({ out: readable(1), in: writable(1) });
    rig.take();
    const exposed = bytes(0, 2);
    for (let i = 0; i < 5; i++) queue.addChain({ in: writable(1) });
    rig.take();
    queue.disableCallbacks();
    queue.enableCallbacks();
    expect(queue.addChain({ in: writable(2) })).toBe(Errno.ENOSPC);
    expect(bytes(0, 2)).toEqual(exposed);
  });

  // spec: 2.8.17-driver-1, 2.8.17-driver-2, 2.8.19-driver-3
  test.each([[[]], [[Feature.RING_INDIRECT_DESC]]])(
    'no list is longer than the queue (%s)',
    (f) => {
      const { queue } = make(5, ...f);
      expect(queue.addChain({ in: writable(6) })).toBe(Errno.ENOSPC);
      expect(queue.addChain({ in: writable(5) })).toBeGreaterThanOrEqual(0);
    },
  );

  // spec: 2.8.17-driver-3, 2.8.19-driver-1
  test('readable elements come before writable ones, and none is indirect', () => {
    const { queue, kind } = make(8);
    queue.addChain({ in: writable(2), out: readable(2) });
    expect([0, 1, 2, 3].map(kind)).toEqual([NEXT, NEXT, NEXT | WRITE, WRITE]);
  });

  // spec: 2.8.17-driver-4, 2.8.17-driver-5
  test('nothing of a list is exposed that does not fit as a whole', () => {
    const { queue, rig, bytes } = make(4);
    queue.addChain({ in: writable(2) });
    const before = bytes(0, 4);
    expect(queue.addChain({ in: writable(3) })).toBe(Errno.ENOSPC);
    expect(bytes(0, 4)).toEqual(before);
    expect(rig.take()).toHaveLength(1);
  });

  // spec: 2.8.17-driver-6, 2.8.21.1.1-driver-1, 2.8.21.3.1-driver-1
  test.each([0, 3])(
    'the first flags are written last, then the device’s wish is read (%s)',
    (from) => {
      const { queue, rig, view, at, layout, single } = make(5);
      for (let i = 0; i < from; i++) {
        single(i);
        rig.complete(rig.take().map((chain) => chain.head));
        queue.getUsed();
      }
      const accesses = watch(view, () => {
        queue.addChain({ out: readable(1), in: writable(2) });
        queue.kickNeeded();
      });
      const written = accesses.filter((one) => one.kind === 'write').map((one) => one.offset);
      expect(written.at(-1)).toBe(at(from, 'flags'));
      for (const position of [from, (from + 1) % 5, (from + 2) % 5]) {
        const flagsAt = written.indexOf(at(position, 'flags'));
        for (const field of ['addr', 'len', 'id'] as const) {
          expect(written.lastIndexOf(at(position, field))).toBeLessThan(flagsAt);
        }
      }
      const firstLook = accesses.findIndex((one) => one.offset >= layout.deviceOffset);
      const lastWrite = accesses.findLastIndex((one) => one.kind === 'write');
      expect(firstLook).toBeGreaterThan(lastWrite);
    },
  );

  // spec: 2.8.19-driver-2, 2.8.19-driver-4
  test('an indirect descriptor is alone, and its table has WRITE and no other flag', () => {
    const { queue, view, at, kind } = make(8, Feature.RING_INDIRECT_DESC);
    queue.addChain({ out: readable(1), in: writable(2) });
    expect(kind(0)).toBe(INDIRECT);
    const table = view.getUint32(at(0, 'addr'), true) - queue.areas.descGpa;
    const flags = [0, 1, 2].map((i) => {
      const offset = table + i * PackedDesc.sizeBytes + PackedDesc.offsets.flags;
      return view.getUint16(offset, true);
    });
    expect(flags).toEqual([0, WRITE, WRITE]);
  });
});

describe('the device', () => {
  // spec: 2.8.12-device-1
  test('takes buffers in ring order, also across the end of the ring', () => {
    const { queue, rig, single } = make(5);
    for (let first = 1; first < 40; first += 3) {
      for (const i of [0, 1, 2]) single(first + i);
      const taken = rig.take();
      expect(taken.map((chain) => chain.in[0]![0] / 4096)).toEqual([first, first + 1, first + 2]);
      rig.complete(taken.map((chain) => chain.head));
      while (queue.getUsed() >= 0);
    }
  });

  // spec: 2.8.12-device-2
  test('writes used descriptors in the order of completion', () => {
    const { queue, rig, single } = make(4);
    const ids = [1, 2, 3, 4].map(single);
    const heads = rig.take().map((chain) => chain.head);
    const order = [2, 0, 3, 1];
    rig.complete(order.map((i) => heads[i]!));
    expect(order.map(() => queue.getUsed())).toEqual(order.map((i) => ids[i]));
  });

  // spec: 2.8.15-device-1
  test('writes to no buffer', () => {
    const { queue, rig } = make(4);
    rig.data.fill(7);
    queue.addChain({ out: readable(3) });
    const before = rig.data.slice();
    rig.complete(rig.take().map((chain) => chain.head));
    expect(queue.getUsed()).toBeGreaterThanOrEqual(0);
    expect(rig.data).toEqual(before);
  });

  // spec: 2.8.15-device-3
  test('takes a descriptor only when AVAIL has changed', () => {
    const { queue, rig, view, at, flags, single } = make(2);
    expect(rig.take()).toEqual([]);
    single(1);
    const exposed = flags(0);
    for (const held of [0, AVAIL | USED, USED]) {
      view.setUint16(at(0, 'flags'), (exposed & ~(AVAIL | USED)) | held, true);
      expect(rig.take()).toEqual([]);
    }
    view.setUint16(at(0, 'flags'), exposed, true);
    const [chain] = rig.take();
    // Available in the first lap is not available in the second.
    rig.complete([chain!.head]);
    queue.getUsed();
    single(2);
    rig.complete(rig.take().map(({ head }) => head));
    queue.getUsed();
    view.setUint16(at(0, 'flags'), exposed, true);
    expect(rig.take()).toEqual([]);
  });

  // spec: 2.8.15-device-4
  test('leaves a descriptor alone once it has marked it used', () => {
    const { rig, view, at, bytes, single } = make(4);
    for (const pfn of [1, 2, 3, 4]) single(pfn);
    const heads = rig.take().map((chain) => chain.head);
    const writes = watch(view, () => void rig.complete([heads[0]!], [9]));
    const offsets = writes.filter((one) => one.kind === 'write').map((one) => one.offset);
    expect(offsets.at(-1)).toBe(at(0, 'flags'));
    const used = bytes(0);
    rig.complete(heads.slice(1), [1, 2, 3]);
    rig.take();
    expect(bytes(0)).toEqual(used);
  });

  // spec: 2.8.18-device-1, 2.8.15-device-2
  test('takes the descriptors of a list in their order, across the end of the ring', () => {
    const { queue, rig, single } = make(4);
    for (let i = 0; i < 3; i++) {
      single(9);
      rig.complete(rig.take().map((chain) => chain.head));
      queue.getUsed();
    }
    rig.data.set([1, 2, 3, 4]);
    rig.data.set([5, 6, 7, 8], 64);
    queue.addChain({ out: readable(2), in: writable(2) });
    const [chain] = rig.take();
    expect(chain!.out).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
    expect(chain!.in).toEqual(writable(2).map(({ gpa, lengthBytes }) => [gpa, lengthBytes]));
  });
});
