/** Free page reporting and page poison (virtio 1.4 §5.5.6.6, §5.5.6.7). */
import { describe, expect } from 'vitest';
import { BalloonFeature, featureMask } from '../../protocol/index.ts';
import { PAGE_SIZE_BYTES, pfnToGpa } from '../../shared/index.ts';
import { type StartMachine, suiteOf } from './fixture.ts';
import { contentWord, le32s, NEEDS_RESET, range } from './puppet.ts';

const reporting = { offers: { pageReporting: true } };
const poison = { offers: { pageReporting: true, pagePoison: true } };

export function reportingTests(start: StartMachine): void {
  const { it } = suiteOf(start);

  describe('reporting', () => {
    it('takes the content of a range, and of no other page', reporting, async (bench) => {
      const { machine, puppet, run } = bench;
      const pfn = puppet.pages(3);
      await run(() => puppet.exchange('reporting_vq', { in: [puppet.segment(pfn + 2, 4)] }));
      for (const one of range(pfn, 8)) {
        const taken = one >= pfn + 2 && one < pfn + 6;
        expect(await machine.contentOf(one)).toBe(taken ? 0 : contentWord(one));
      }
    });

    it('acknowledges with the length 0', reporting, async ({ puppet, run }) => {
      const buffer = { in: [puppet.segment(puppet.pages(0))] };
      expect(await run(() => puppet.exchange('reporting_vq', buffer))).toBe(0);
    });

    it('takes 32 ranges of one buffer', { ...reporting, queueSize: 32 }, async (bench) => {
      const { machine, puppet, run } = bench;
      const pfn = puppet.pages(6);
      const segments = range(0, 32).map((i) => puppet.segment(pfn + 2 * i));
      await run(() => puppet.exchange('reporting_vq', { in: segments }));
      for (const one of range(pfn, 64)) {
        expect(await machine.contentOf(one)).toBe((one - pfn) % 2 === 0 ? 0 : contentWord(one));
      }
    });

    it('takes a range of 2 MiB', reporting, async ({ machine, puppet, run }) => {
      const pfn = puppet.pages(9);
      await run(() => puppet.exchange('reporting_vq', { in: [puppet.segment(pfn, 512)] }));
      for (const one of [pfn, pfn + 255, pfn + 511]) expect(await machine.contentOf(one)).toBe(0);
    });

    it('a page can be reported again when it was written again', reporting, async (bench) => {
      const { machine, puppet, run } = bench;
      const pfn = puppet.pages(0);
      for (let i = 1; i < 4; i++) {
        await run(() => puppet.exchange('reporting_vq', { in: [puppet.segment(pfn)] }));
        expect(await machine.contentOf(pfn)).toBe(0);
        machine.fill(pfn, 1, i);
      }
      expect(await machine.contentOf(pfn)).toBe(3);
    });

    for (const [what, offset, length] of [
      ['begins inside a page', 512, PAGE_SIZE_BYTES],
      ['ends inside a page', 0, PAGE_SIZE_BYTES + 512],
      ['is shorter than a page', 0, 512],
    ] as const) {
      it(`passes over a range that ${what}`, reporting, async ({ machine, puppet, run }) => {
        const pfn = puppet.pages(1);
        const segment = { gpa: pfnToGpa(pfn) + offset, lengthBytes: length };
        expect(await run(() => puppet.exchange('reporting_vq', { in: [segment] }))).toBe(0);
        expect(await machine.contentOf(pfn)).toBe(contentWord(pfn));
        expect(await machine.contentOf(pfn + 1)).toBe(contentWord(pfn + 1));
      });
    }

    it('a bad range does not spoil the good ones beside it', reporting, async (bench) => {
      const { machine, puppet, run } = bench;
      const pfn = puppet.pages(2);
      const bad = { gpa: pfnToGpa(pfn + 1) + 16, lengthBytes: 32 };
      const segments = [puppet.segment(pfn), bad, puppet.segment(pfn + 2)];
      await run(() => puppet.exchange('reporting_vq', { in: segments }));
      expect(await machine.contentOf(pfn)).toBe(0);
      expect(await machine.contentOf(pfn + 1)).toBe(contentWord(pfn + 1));
      expect(await machine.contentOf(pfn + 2)).toBe(0);
    });

    it('a range far outside memory', reporting, async ({ machine, puppet, run }) => {
      const gpa = pfnToGpa(machine.ramPages + 4096);
      const segments = [{ gpa, lengthBytes: 4 * PAGE_SIZE_BYTES }];
      await run(() => puppet.send('reporting_vq', { in: segments }));
      await machine.settle();
      const breaks = ((await run(() => machine.transport.getStatus())) & NEEDS_RESET) !== 0;
      expect(breaks).toBe(machine.traits.get('unmappedSegmentBreaks'));
      expect(puppet.queue('reporting_vq').getUsed() === -1).toBe(breaks);
    });

    it('a readable buffer has no effect', reporting, async ({ machine, puppet, run }) => {
      const pfn = puppet.pages(0);
      expect(await run(() => puppet.exchange('reporting_vq', { out: [le32s([pfn])] }))).toBe(0);
      expect(await machine.contentOf(pfn)).toBe(contentWord(pfn));
    });
  });

  describe('page poison', () => {
    // spec: 5.5.6.7.2-device-2
    it('other than 0 leaves reported pages alone', {
      ...poison,
      poisonVal: 0xaaaa_aaaa,
    }, async (bench) => {
      const { machine, puppet, run } = bench;
      const pfn = puppet.pages(0);
      await run(() => puppet.exchange('reporting_vq', { in: [puppet.segment(pfn)] }));
      expect(await machine.contentOf(pfn)).toBe(contentWord(pfn));
    });

    it('of 0 lets reported pages be taken', { ...poison, poisonVal: 0 }, async (bench) => {
      const { machine, puppet, run } = bench;
      const pfn = puppet.pages(0);
      await run(() => puppet.exchange('reporting_vq', { in: [puppet.segment(pfn)] }));
      expect(await machine.contentOf(pfn)).toBe(0);
    });

    it('does not keep inflated pages', { ...poison, poisonVal: 0xaaaa_aaaa }, async (bench) => {
      const { machine, puppet, run } = bench;
      const pfn = puppet.pages(0);
      await run(() => puppet.tell('inflateq', [pfn]));
      expect(await machine.contentOf(pfn)).toBe(0);
    });

    const decline = featureMask(BalloonFeature.PAGE_POISON);
    it('counts only if it was accepted', { ...poison, decline, poisonVal: 5 }, async (bench) => {
      const { machine, puppet, run } = bench;
      const pfn = puppet.pages(0);
      await run(() => puppet.exchange('reporting_vq', { in: [puppet.segment(pfn)] }));
      expect(await machine.contentOf(pfn)).toBe(0);
    });
  });
}
