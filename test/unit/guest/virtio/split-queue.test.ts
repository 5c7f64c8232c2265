import fc from 'fast-check';
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
  toUint16,
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

describe('ring against a plain queue as model', () => {
  const command = fc.oneof(
    fc.record({
      kind: fc.constant('add' as const),
      out: fc.integer({ min: 0, max: 3 }),
      in: fc.integer({ min: 0, max: 3 }),
    }),
    fc.record({ kind: fc.constant('kick' as const) }),
    fc.record({ kind: fc.constant('use' as const), pick: fc.nat(1000), count: fc.nat(5) }),
    fc.record({ kind: fc.constant('get' as const) }),
  );

  test('every chain comes out once, whole, whatever the order of use', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 4 }),
        fc.array(command, { maxLength: 120 }),
        (log2Size, commands) => {
          const { queue, reader } = makeQueue(1 << log2Size);
          const made: { head: number; in: number; serial: number }[] = [];
          const shipped: number[] = [];
          const used: number[] = [];
          const descriptorsOf = new Map<number, number>();
          let serial = 0;
          for (const step of commands) {
            if (step.kind === 'add') {
              const count = step.out + step.in;
              const free = queue.freeCount;
              const head = queue.addChain({
                out: Array.from({ length: step.out }, () => ({ gpa: DATA_GPA, lengthBytes: 4 })),
                in: Array.from({ length: step.in }, () => ({ gpa: ++serial, lengthBytes: 8 })),
              });
              if (count === 0) expect(head).toBe(Errno.EINVAL);
              else if (count > free) expect(head).toBe(Errno.ENOSPC);
              else {
                expect(descriptorsOf.has(head)).toBe(false);
                descriptorsOf.set(head, count);
                made.push({ head, in: step.in, serial });
              }
            } else if (step.kind === 'kick') {
              expect(reader.take(0)).toBe(made.length);
              const message = reader.drain();
              const heads = message ? [...toUint16(message.heads)!] : [];
              expect(heads).toEqual(made.map((chain) => chain.head));
              if (message) {
                expect([...toUint16(message.in_count)!]).toEqual(made.map((chain) => chain.in));
                const last = made.filter((chain) => chain.in > 0).at(-1);
                if (last) expect(toFloat64(message.in_gpa)!.at(-1)).toBe(last.serial);
              }
              shipped.push(...heads);
              made.length = 0;
            } else if (step.kind === 'use') {
              const batch = shipped.splice(step.pick % (shipped.length + 1), step.count);
              expect(complete(reader, batch)).toBe(0);
              used.push(...batch);
            } else {
              const head = queue.getUsed();
              expect(head).toBe(used.shift() ?? -1);
              if (head >= 0) {
                expect(queue.usedBytes).toBe(head);
                descriptorsOf.delete(head);
              }
            }
            const taken = [...descriptorsOf.values()].reduce((sum, n) => sum + n, 0);
            expect(queue.freeCount).toBe(queue.size - taken);
          }
          expect(reader.broken).toBe(null);
          expect(queue.badUsedCount).toBe(0);
        },
      ),
      { numRuns: 300, seed: 7 },
    );
  });

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
      id: 'indirect',
      reason: /indirect/,
      spoil: ({ queue }) => queue.view.setUint16(at(0, 'flags'), DescFlag.INDIRECT, true),
    },
    {
      id: 'zero length',
      reason: /zero-length/,
      spoil: ({ queue }) => queue.view.setUint32(at(0, 'len'), 0, true),
    },
    {
      id: 'address beyond 2^53',
      reason: /2\^53/,
      spoil: ({ queue }) => queue.view.setUint32(at(0, 'addr') + 4, 0x20_0000, true),
    },
    {
      id: 'unbacked readable buffer',
      reason: /outside memory/,
      spoil: ({ queue }) => queue.view.setUint32(at(0, 'addr'), 0, true),
    },
    {
      id: 'too much',
      reason: /too many/,
      spoil: ({ queue }) => queue.view.setUint32(at(0, 'len'), 0xffff_ffff, true),
    },
    {
      id: 'avail.idx runs away',
      reason: /avail.idx/,
      spoil: ({ queue }) =>
        queue.view.setUint16(queue.layout.availOffset + AvailHeader.offsets.idx, 9, true),
    },
    {
      id: 'readable after writable',
      reason: /readable descriptor after/,
      spoil: ({ queue }) => {
        queue.view.setUint16(at(0, 'flags'), DescFlag.WRITE | DescFlag.NEXT, true);
        queue.view.setUint16(at(0, 'next'), 1, true);
        queue.view.setUint16(at(1, 'flags'), 0, true);
        queue.view.setUint32(at(1, 'len'), 4, true);
      },
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

  test('a chain before the bad one is still shipped, alone', () => {
    const { queue, reader } = makeQueue(8);
    queue.addSingle(DATA_GPA, 4, true);
    queue.addChain({
      out: [{ gpa: DATA_GPA, lengthBytes: 4 }],
      in: [
        { gpa: 4096, lengthBytes: 4 },
        { gpa: 8192, lengthBytes: 4 },
      ],
    });
    queue.view.setUint32(at(3, 'len'), 0, true);
    expect(reader.take(0)).toBe(1);
    const message = reader.drain()!;
    expect(message.out).toHaveLength(0);
    expect(message.in_gpa).toHaveLength(8);
  });
});

describe('what the device writes is not trusted', () => {
  test('heads that are not outstanding are counted and not written', () => {
    const { queue, reader } = makeQueue(8);
    const head = queue.addSingle(DATA_GPA, 4, true);
    reader.take(0);
    expect(complete(reader, [head, head, 7, 4000])).toBe(3);
    expect(queue.getUsed()).toBe(head);
    expect(queue.getUsed()).toBe(-1);
  });

  test('the driver passes over used entries that name no chain', () => {
    const { queue } = makeQueue(8);
    const usedIndex = queue.layout.usedOffset + UsedHeader.offsets.idx;
    queue.view.setUint16(usedIndex, 3, true);
    expect(queue.getUsed()).toBe(-1);
    expect(queue.badUsedCount).toBe(3);
    expect(queue.freeCount).toBe(8);
  });
});
