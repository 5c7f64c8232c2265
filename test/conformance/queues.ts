/** Which queues there are, under which numbers, and how they can be set up (§5.5.2, §2.6). */
import { describe, expect } from 'vitest';
import { BalloonFeature, type BalloonQueueName, featureMask } from '../../protocol/index.ts';
import { type StartMachine, suiteOf } from './fixture.ts';
import { le32s, range } from './puppet.ts';

interface Numbering {
  readonly freePageHint: boolean;
  readonly pageReporting: boolean;
  readonly names: readonly BalloonQueueName[];
}

const BASE: readonly BalloonQueueName[] = ['inflateq', 'deflateq', 'statsq'];
const NUMBERINGS: readonly Numbering[] = [
  { freePageHint: false, pageReporting: false, names: BASE },
  { freePageHint: true, pageReporting: false, names: [...BASE, 'free_page_vq'] },
  { freePageHint: false, pageReporting: true, names: [...BASE, 'reporting_vq'] },
  { freePageHint: true, pageReporting: true, names: [...BASE, 'free_page_vq', 'reporting_vq'] },
];

export function queueTests(start: StartMachine): void {
  const { test, it } = suiteOf(start);

  describe('queue numbers', () => {
    for (const { names, ...offers } of NUMBERINGS) {
      test(`count ${names.join(', ')} and no more`, { offers }, async (bench) => {
        const { machine, puppet, run } = bench;
        await run(() => puppet.negotiate());
        expect(names.map((name) => puppet.indexOf(name))).toEqual(range(0, names.length));
        const sizes = await run(function* () {
          const found: number[] = [];
          for (let index = 0; index < 6; index++) {
            found.push(yield* machine.transport.getQueueMaxSize(index));
          }
          return found;
        });
        const expected = names.map((name) =>
          name === 'free_page_vq' ? 1024 : machine.traits.get(MAX_SIZE_OF[name]),
        );
        expect(sizes).toEqual([...expected, ...new Array(6 - names.length).fill(0)]);
      });
    }

    const both = { freePageHint: true, pageReporting: true };
    const decline = featureMask(BalloonFeature.FREE_PAGE_HINT);
    it('stay as they are offered when a driver declines one', {
      offers: both,
      decline,
    }, async (bench) => {
      const { machine, puppet, run } = bench;
      expect(puppet.indexOf('reporting_vq')).toBe(4);
      const pfn = puppet.pages(0);
      await run(() => puppet.exchange('reporting_vq', { in: [puppet.segment(pfn)] }));
      expect(await machine.contentOf(pfn)).toBe(0);
    });
  });

  describe('queue size', () => {
    for (const queueSize of [1, 2, 8]) {
      it(`${queueSize} descriptors do, round and round`, { queueSize }, async (bench) => {
        const { machine, puppet, run } = bench;
        expect(puppet.queue('inflateq').size).toBe(queueSize);
        const pfn = puppet.pages(5);
        await run(function* () {
          for (const one of range(pfn, 32)) yield* puppet.tell('inflateq', [one]);
        });
        for (const one of range(pfn, 32)) expect(await machine.contentOf(one)).toBe(0);
      });
    }

    it('a queue that was not set up is not looked at', {}, async ({ machine, puppet, run }) => {
      const pfn = puppet.pages(0);
      await run(function* () {
        yield* puppet.negotiate();
        yield* puppet.setUpQueue('inflateq');
        yield* machine.transport.setStatus(15);
        yield* puppet.tell('inflateq', [pfn]);
      });
      expect(await machine.contentOf(pfn)).toBe(0);
      expect(await run(() => machine.transport.getStatus())).toBe(15);
    });

    it('a kick that announces nothing is harmless', {}, async ({ machine, puppet, run }) => {
      const pfn = puppet.pages(0);
      await run(function* () {
        for (let i = 0; i < 5; i++) yield* puppet.kick('inflateq');
        yield* puppet.send('inflateq', { out: [le32s([pfn])] });
        yield* puppet.kick('inflateq');
        yield* puppet.used('inflateq');
      });
      expect(puppet.queue('inflateq').getUsed()).toBe(-1);
      expect(await machine.contentOf(pfn)).toBe(0);
    });
  });
}

const MAX_SIZE_OF = {
  inflateq: 'inflateQueueMax',
  deflateq: 'inflateQueueMax',
  statsq: 'inflateQueueMax',
  reporting_vq: 'reportingQueueMax',
} as const satisfies Readonly<Record<Exclude<BalloonQueueName, 'free_page_vq'>, string>>;
