/** A destination believes nothing that its source says. */
import { describe, expect, test } from 'vitest';
import { Incoming } from '../../../../host/migration/incoming.ts';
import {
  factsOf,
  localStream,
  type Message,
  sourceHello,
  u32Bytes,
} from '../../../../protocol/index.ts';

/** A hole between frames 32 and 64. */
const FACTS = {
  recordSizeBytes: 4,
  ramPages: 128,
  ramSegments: Uint32Array.of(0, 32, 64, 64),
  vcpus: 1,
};

async function opened(ramPages = FACTS.ramPages) {
  const incoming = new Incoming('unix:/guest', { ramPages });
  const link = localStream(incoming);
  await sourceHello(link, FACTS);
  return { incoming, link };
}

function pages(first: number, ...tags: number[]): Message {
  return {
    name: 'pages',
    ranges: u32Bytes(Uint32Array.of(first, tags.length)),
    data: u32Bytes(Uint32Array.from(tags)),
  };
}

describe('the destination of a stream', () => {
  test('begins with memory that reads zero, and takes pages as they come', async () => {
    const { incoming, link } = await opened();
    expect(factsOf(incoming.hello)).toMatchObject({ ramPages: 128, vcpus: 1 });
    expect(await link.exchange([{ name: 'syncMark', pass: 1 }, pages(64, 7, 8)])).toEqual([
      { name: 'consumed', pages: 2 },
    ]);
    await link.exchange([{ name: 'zeroPages', ranges: u32Bytes(Uint32Array.of(65, 1)) }]);
    const { memory } = incoming;
    expect([0, 64, 65].map((pfn) => memory.tagOf(pfn))).toEqual([0, 7, 0]);
    // A page that was once received with content stays backed.
    expect([0, 64, 65].map((pfn) => memory.backed.get(pfn))).toEqual([false, true, true]);
    expect(await link.exchange([{ name: 'streamEnd' }])).toEqual([
      { name: 'loaded', guest_address: 'unix:/guest' },
    ]);
    expect(incoming.isLoaded).toBe(true);
  });

  test('turns away the guest of another machine', async () => {
    await expect(opened(64)).rejects.toThrow('has 128 page frames, expected 64');
  });

  test.each<[string, Message[], string]>([
    ['pages in a hole', [pages(40, 1)], 'expected frames that hold RAM'],
    ['pages beyond the end', [pages(127, 1, 2)], 'expected frames that hold RAM'],
    [
      'fewer records than pages',
      [{ name: 'pages', ranges: u32Bytes(Uint32Array.of(0, 2)), data: new Uint8Array(4) }],
      'expected 8 bytes for 2 pages, found 4',
    ],
    [
      'half a range',
      [{ name: 'zeroPages', ranges: new Uint8Array(4) }],
      'expected pairs of first frame and count',
    ],
    [
      'an empty range',
      [{ name: 'zeroPages', ranges: u32Bytes(Uint32Array.of(1, 0)) }],
      'expected frames that hold RAM',
    ],
    ['a pass out of order', [{ name: 'syncMark', pass: 2 }], 'expected pass 1, found 2'],
    [
      'the state of one device twice',
      ['a', 'a'].map((device) => ({
        name: 'deviceState',
        device,
        version: 1,
        state: new Uint8Array(0),
      })),
      'expected each device once',
    ],
    ['anything after the end', [{ name: 'streamEnd' }, pages(0, 1)], 'not after the end'],
  ])('refuses %s, and the session ends', async (_what, frame, message) => {
    const { link } = await opened();
    await expect(link.exchange(frame)).rejects.toThrow(message);
    await expect(link.exchange([{ name: 'streamEnd' }])).rejects.toThrow();
  });
});
