import { describe, expect, test } from 'vitest';
import { Ram } from '../../../../guest/machine/ram.ts';
import { NO_RING_OPTIONS } from '../../../../guest/virtio/ring-features.ts';
import { SplitQueue } from '../../../../guest/virtio/split-queue.ts';
import { SplitRing } from '../../../../guest/virtio/split-ring.ts';
import {
  AvailHeader,
  Desc,
  DescFlag,
  splitRingLayout,
  toFloat64,
  toUint32,
  UsedHeader,
} from '../../../../protocol/index.ts';
import { Errno, PAGE_SIZE_BYTES } from '../../../../shared/index.ts';

const RING_PFN = 16;
const DATA_PFN = 64;
const DATA_GPA = DATA_PFN * PAGE_SIZE_BYTES;

function makeQueue(size: number) {
  const ram = new Ram(256);
  const data = ram.bytesOf(DATA_PFN, 1);
  const pageCount = Math.ceil(splitRingLayout(size).sizeBytes / PAGE_SIZE_BYTES);
  const place = { memory: ram, pfn: RING_PFN, pageCount };
  const queue = new SplitQueue(0, size, NO_RING_OPTIONS, place);
  const setup = { index: 0, size, areas: queue.areas, options: NO_RING_OPTIONS };
  return { ram, data, queue, reader: new SplitRing(setup, ram) };
}

/** Complete these heads as the host would, with the head as the written length. */
function complete(reader: SplitRing, heads: readonly number[]): number {
  const written = new Uint8Array(Uint32Array.from(heads).buffer);
  return reader.complete(new Uint8Array(Uint16Array.from(heads).buffer), written);
}

/** The device takes what is available; gives `head` back. */
function takeAll(head: number, reader: SplitRing): number {
  reader.take(0);
  reader.drain();
  return head;
}

describe('a ring that is used for long', () => {
  test('indices wrap at 65536 and the ring goes on', () => {
    const { queue, reader } = makeQueue(8);
    let sum = 0;
    for (let i = 0; i < 66_000; i++) {
      const head = queue.addSingle(DATA_GPA + i, 16, true);
      expect(reader.take(i)).toBe(1);
      const message = reader.drain()!;
      sum += toFloat64(message.in_gpa)![0]! - DATA_GPA;
      complete(reader, [head]);
      if (queue.getUsed() !== head) throw new Error(`chain ${i} did not come back`);
    }
    expect(sum).toBe((65_999 * 66_000) / 2);
    expect(queue.getUsed()).toBe(-1);
    expect(queue.badUsedCount).toBe(0);
    expect(queue.availIndex).toBe(66_000 - 65_536);
    expect(queue.freeCount).toBe(8);
  });

  test('every descriptor of a used chain is free again, once', () => {
    const { queue, reader } = makeQueue(4);
    const segments = [1, 2, 3].map((gpa) => ({ gpa, lengthBytes: 8 }));
    complete(reader, [takeAll(queue.addChain({ in: segments }), reader)]);
    queue.getUsed();
    for (const gpa of [11, 12, 13, 14]) queue.addSingle(gpa, 8, true);
    expect(reader.take(0)).toBe(4);
    expect([...toFloat64(reader.drain()!.in_gpa)!]).toEqual([11, 12, 13, 14]);
  });

  test('a full ring refuses with ENOSPC and recovers', () => {
    const { queue, reader } = makeQueue(4);
    const heads = [0, 1, 2, 3].map(() => queue.addSingle(DATA_GPA, 4, true));
    expect(queue.addSingle(DATA_GPA, 4, true)).toBe(Errno.ENOSPC);
    expect(reader.take(0)).toBe(4);
    reader.drain();
    complete(reader, [heads[2]!]);
    expect(queue.getUsed()).toBe(heads[2]);
    expect(queue.addSingle(DATA_GPA, 4, true)).toBe(heads[2]);
  });
});

// spec: 2.7.5.1-device-2
test('readable bytes travel with their chain and ring pages are logged dirty', () => {
  const { ram, data, queue, reader } = makeQueue(1024);
  ram.dirtyLog.enable(true);
  data.set([1, 2, 3, 4, 5]);
  queue.addChain({
    out: [
      { gpa: DATA_GPA + 1, lengthBytes: 2 },
      { gpa: DATA_GPA + 4, lengthBytes: 1 },
    ],
    in: [{ gpa: 0x1_2345_6789_000, lengthBytes: 4096 }],
  });
  reader.take(77);
  const message = reader.drain()!;
  expect([...message.out]).toEqual([2, 3, 5]);
  expect([...toUint32(message.out_bytes)!]).toEqual([3]);
  expect([...toFloat64(message.at_ns)!]).toEqual([77]);
  expect([...toFloat64(message.in_gpa)!]).toEqual([0x1_2345_6789_000]);
  const availPage = RING_PFN + Math.floor(queue.layout.availOffset / PAGE_SIZE_BYTES);
  expect(ram.dirtyLog.bits.get(RING_PFN)).toBe(true);
  expect(ram.dirtyLog.bits.get(availPage)).toBe(true);
});

describe('a ring that makes no sense breaks its queue', () => {
  type Made = ReturnType<typeof makeQueue>;
  const at = (id: number, field: keyof typeof Desc.offsets): number =>
    id * Desc.sizeBytes + Desc.offsets[field];
  const cases: { id: string; reason: RegExp; spoil: (made: Made) => void }[] = [
    {
      id: 'loop',
      reason: /loop/,
      spoil: ({ queue }) => {
        queue.view.setUint16(at(0, 'flags'), DescFlag.NEXT, true);
        queue.view.setUint16(at(0, 'next'), 0, true);
      },
    },
    {
      id: 'next outside',
      reason: /next outside/,
      spoil: ({ queue }) => {
        queue.view.setUint16(at(0, 'flags'), DescFlag.NEXT, true);
        queue.view.setUint16(at(0, 'next'), 8, true);
      },
    },
    {
      id: 'head outside',
      reason: /head outside/,
      spoil: ({ queue }) =>
        queue.view.setUint16(queue.layout.availOffset + AvailHeader.sizeBytes, 8, true),
    },
    {
      id: 'avail.idx runs away',
      reason: /avail.idx/,
      spoil: ({ queue }) =>
        queue.view.setUint16(queue.layout.availOffset + AvailHeader.offsets.idx, 9, true),
    },
  ];

  test.each(cases)('$id', ({ spoil, reason }) => {
    const made = makeQueue(8);
    made.queue.addSingle(DATA_GPA, 4, false);
    spoil(made);
    expect(made.reader.take(0)).toBe(0);
    expect(made.reader.broken).toMatch(reason);
    expect(made.reader.drain()).toBe(null);
  });
});

describe('what the device writes is not trusted', () => {
  test('the driver passes over used entries that name no chain', () => {
    const { queue } = makeQueue(8);
    const usedIndex = queue.layout.usedOffset + UsedHeader.offsets.idx;
    queue.view.setUint16(usedIndex, 3, true);
    expect(queue.getUsed()).toBe(-1);
    expect(queue.badUsedCount).toBe(3);
    expect(queue.freeCount).toBe(8);
  });
});
