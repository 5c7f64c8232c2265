/** Inflate and deflate queues (virtio 1.4 §5.5.6). */
import { describe, expect } from 'vitest';
import { PAGE_SIZE_BYTES } from '../../shared/index.ts';
import { type Bench, type StartMachine, suiteOf } from './fixture.ts';
import { contentWord, le32s, range } from './puppet.ts';

export function inflateTests(start: StartMachine): void {
  const { it } = suiteOf(start);

  describe('inflate', () => {
    it('takes the content of a page, and of no other', {}, async (bench) => {
      const { puppet, run } = bench;
      const pfn = puppet.pages(2);
      await run(() => puppet.tell('inflateq', [pfn + 1]));
      expect(await contents(bench, pfn, 4)).toEqual([
        contentWord(pfn),
        0,
        contentWord(pfn + 2),
        contentWord(pfn + 3),
      ]);
    });

    it('acknowledges with the length 0', {}, async ({ puppet, run }) => {
      const pfn = puppet.pages(0);
      expect(await run(() => puppet.tell('inflateq', [pfn]))).toBe(0);
    });

    it('interrupts for what it has used', {}, async ({ machine, puppet, run }) => {
      const before = machine.interrupts.queue;
      const pfn = puppet.pages(0);
      await run(() => puppet.tell('inflateq', [pfn]));
      expect(machine.interrupts.queue).toBeGreaterThan(before);
    });

    it('takes 256 pages of one buffer', {}, async (bench) => {
      const pfn = bench.puppet.pages(8);
      await bench.run(() => bench.puppet.tell('inflateq', range(pfn, 256)));
      expect(await contents(bench, pfn, 256)).toEqual(new Array(256).fill(0));
    });

    it('takes more pages of one buffer than any driver sends', {}, async (bench) => {
      const pfn = bench.puppet.pages(9);
      await bench.run(() => bench.puppet.tell('inflateq', range(pfn, 512)));
      expect(await contents(bench, pfn, 512)).toEqual(new Array(512).fill(0));
    });

    it('PFNs may lie across descriptors', {}, async (bench) => {
      const { puppet, run } = bench;
      const pfn = puppet.pages(2);
      const bytes = le32s(range(pfn, 3));
      const out = [bytes.subarray(0, 3), bytes.subarray(3, 9), bytes.subarray(9)];
      await run(() => puppet.exchange('inflateq', { out }));
      expect(await contents(bench, pfn, 4)).toEqual([0, 0, 0, contentWord(pfn + 3)]);
    });

    it('bytes behind the last whole PFN', {}, async (bench) => {
      const { machine, puppet, run } = bench;
      const pfn = puppet.pages(1);
      const out = [le32s([pfn, pfn + 1]).subarray(0, 7)];
      expect(await run(() => puppet.exchange('inflateq', { out }))).toBe(0);
      const taken = machine.traits.get('strayPfnBytesIgnored') ? 0 : contentWord(pfn);
      expect(await contents(bench, pfn, 2)).toEqual([taken, contentWord(pfn + 1)]);
    });

    it('passes over PFNs outside memory', {}, async (bench) => {
      const { machine, puppet, run } = bench;
      const pfn = puppet.pages(1);
      const wild = [machine.ramPages, 0xfffff, 0xffff_ffff];
      expect(await run(() => puppet.tell('inflateq', [pfn, ...wild, pfn + 1]))).toBe(0);
      expect(await contents(bench, pfn, 2)).toEqual([0, 0]);
    });

    it('acknowledges nothing but PFNs outside memory', {}, async (bench) => {
      const { machine, puppet, run } = bench;
      expect(await run(() => puppet.tell('inflateq', [machine.ramPages, 0xffff_ffff]))).toBe(0);
    });

    it('acknowledges a page twice, in one buffer and in two', {}, async (bench) => {
      const { puppet, run } = bench;
      const pfn = puppet.pages(0);
      expect(await run(() => puppet.tell('inflateq', [pfn, pfn]))).toBe(0);
      expect(await run(() => puppet.tell('inflateq', [pfn]))).toBe(0);
      expect(await contents(bench, pfn, 1)).toEqual([0]);
    });

    it('acknowledges a writable buffer, and nothing more', {}, async (bench) => {
      const { puppet, run } = bench;
      const pfn = puppet.pages(0);
      await run(() => puppet.exchange('inflateq', { in: [puppet.segment(pfn)] }));
      expect(await contents(bench, pfn, 1)).toEqual([contentWord(pfn)]);
    });

    it('PFNs with a writable piece behind them', {}, async (bench) => {
      const { machine, puppet, run } = bench;
      const pfn = puppet.pages(1);
      const buffer = { out: [le32s([pfn])], in: [puppet.segment(pfn + 1)] };
      expect(await run(() => puppet.exchange('inflateq', buffer))).toBe(0);
      const taken = machine.traits.get('mixedPfnBufferRead') ? 0 : contentWord(pfn);
      expect(await contents(bench, pfn, 2)).toEqual([taken, contentWord(pfn + 1)]);
    });

    it('uses a whole ring of buffers, in their order', {}, async (bench) => {
      const { puppet, run } = bench;
      const pfn = puppet.pages(7);
      const heads = range(pfn, 128).map((one) => puppet.add('inflateq', { out: [le32s([one])] }));
      expect(puppet.queue('inflateq').freeCount).toBe(0);
      const used = await run(function* () {
        yield* puppet.kick('inflateq');
        const order: number[] = [];
        while (order.length < heads.length) order.push(yield* puppet.used('inflateq'));
        return order;
      });
      expect(used).toEqual(heads);
      expect(await contents(bench, pfn, 128)).toEqual(new Array(128).fill(0));
    });
  });

  describe('deflate', () => {
    it('gives the page back as it is', {}, async (bench) => {
      const { machine, puppet, run } = bench;
      const pfn = puppet.pages(0);
      await run(() => puppet.tell('inflateq', [pfn]));
      expect(await run(() => puppet.tell('deflateq', [pfn]))).toBe(0);
      machine.fill(pfn, 1, 0x1234);
      await machine.settle();
      expect(await contents(bench, pfn, 1)).toEqual([0x1234]);
    });

    it('of a page that is not in the balloon changes nothing', {}, async (bench) => {
      const { puppet, run } = bench;
      const pfn = puppet.pages(0);
      expect(await run(() => puppet.tell('deflateq', [pfn]))).toBe(0);
      expect(await contents(bench, pfn, 1)).toEqual([contentWord(pfn)]);
    });

    it('acknowledges PFNs outside memory', {}, async ({ machine, puppet, run }) => {
      expect(await run(() => puppet.tell('deflateq', [machine.ramPages, 0xffff_ffff]))).toBe(0);
    });

    it('a page can go in and out again and again', {}, async (bench) => {
      const { machine, puppet, run } = bench;
      const pfn = puppet.pages(0);
      for (let i = 1; i <= 5; i++) {
        await run(() => puppet.tell('inflateq', [pfn]));
        expect(await contents(bench, pfn, 1)).toEqual([0]);
        await run(() => puppet.tell('deflateq', [pfn]));
        machine.fill(pfn, 1, i);
        expect(await contents(bench, pfn, 1)).toEqual([i]);
      }
    });

    it('does not read beyond its buffer', {}, async (bench) => {
      const { puppet, run } = bench;
      const pfn = puppet.pages(1);
      // The next buffer in memory names the neighbour.
      const first = le32s([pfn]);
      puppet.add('deflateq', { out: [first] });
      puppet.add('inflateq', { out: [le32s([pfn + 1])] });
      await run(() => puppet.kick('deflateq'));
      await run(() => puppet.used('deflateq'));
      expect(await contents(bench, pfn, 2)).toEqual([contentWord(pfn), contentWord(pfn + 1)]);
      expect(first.length).toBeLessThan(PAGE_SIZE_BYTES);
    });
  });
}

async function contents({ machine }: Bench, pfn: number, count: number): Promise<number[]> {
  const words: number[] = [];
  for (const one of range(pfn, count)) words.push(await machine.contentOf(one));
  return words;
}
