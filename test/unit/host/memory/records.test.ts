import { describe, expect, it } from 'vitest';
import { RecordReader } from '../../../../host/memory/records.ts';
import { type Message, toUint32 } from '../../../../protocol/index.ts';
import { PAGE_SIZE_BYTES } from '../../../../shared/index.ts';

/** Frame n holds n everywhere. */
function guestOf(recordSizeBytes: number): {
  reader: RecordReader;
  asked: number[][];
} {
  const asked: number[][] = [];
  const reader = new RecordReader(recordSizeBytes, async (message: Message) => {
    const ranges = toUint32((message as Message<'read'>).ranges)!;
    asked.push([...ranges]);
    const records: Uint8Array[] = [];
    for (let i = 0; i < ranges.length; i += 2) {
      for (let pfn = ranges[i]!; pfn < ranges[i]! + ranges[i + 1]!; pfn++) {
        records.push(new Uint8Array(recordSizeBytes).fill(pfn & 0xff));
      }
    }
    return { name: 'records', data: new Uint8Array(Buffer.concat(records)) };
  });
  return { reader, asked };
}

describe('records of 4 bytes', () => {
  it('are their own tags, in one request', async () => {
    const { reader, asked } = guestOf(4);
    expect(await reader.read(Uint32Array.of(1, 2, 9, 1))).toEqual(
      Uint32Array.of(0x01010101, 0x02020202, 0x09090909),
    );
    expect(asked).toEqual([[1, 2, 9, 1]]);
  });
});

describe('records that are whole pages', () => {
  it('have tags: 0 for a zero page alone, the same for the same content', async () => {
    const { reader } = guestOf(PAGE_SIZE_BYTES);
    const [zero, one, two, again] = await reader.read(Uint32Array.of(0, 3, 257, 1));
    expect(zero).toBe(0);
    expect(new Set([zero, one, two]).size).toBe(3);
    expect(again).toBe(one);
  });

  it('are read in pieces that fit into a frame, and handed on', async () => {
    const { reader, asked } = guestOf(PAGE_SIZE_BYTES);
    const pages: number[] = [];
    reader.onPages = (ranges, data) => {
      pages.push(data.length / PAGE_SIZE_BYTES);
      expect(data[0]).toBe(ranges[0]! & 0xff);
    };
    const tags = await reader.read(Uint32Array.of(0, 1500, 3000, 1500));
    expect(tags.length).toBe(3000);
    expect(asked).toEqual([
      [0, 1500, 3000, 548],
      [3548, 952],
    ]);
    expect(pages).toEqual([2048, 952]);
  });

  it('refuses an answer of another length', async () => {
    const reader = new RecordReader(PAGE_SIZE_BYTES, async () => ({
      name: 'records',
      data: new Uint8Array(4),
    }));
    await expect(reader.read(Uint32Array.of(0, 1))).rejects.toMatchObject({
      code: 'MESSAGE_INVALID',
    });
  });
});
