/** Layouts and options of the rings, on the queues of the balloon (virtio 1.4 §2.6 to §2.8). */
import { describe, expect } from 'vitest';
import type { MachineOptions, OfferedFeatures } from '../../peers/conformance-machine.ts';
import type { BalloonQueueName } from '../../protocol/index.ts';
import { type Bench, type StartMachine, suiteOf } from './fixture.ts';
import { isEnabled, le32s, range } from './puppet.ts';

interface Layout {
  readonly name: string;
  readonly offers: OfferedFeatures;
}

const LAYOUTS: readonly Layout[] = [
  { name: 'split', offers: {} },
  { name: 'split with EVENT_IDX', offers: { eventIdx: true } },
  { name: 'split with indirect descriptors', offers: { indirectDesc: true } },
  { name: 'split with both', offers: { eventIdx: true, indirectDesc: true } },
  { name: 'packed', offers: { ringPacked: true } },
  { name: 'packed with EVENT_IDX', offers: { ringPacked: true, eventIdx: true } },
  { name: 'packed with indirect descriptors', offers: { ringPacked: true, indirectDesc: true } },
  {
    name: 'packed with both',
    offers: { ringPacked: true, eventIdx: true, indirectDesc: true },
  },
];

export function ringTests(start: StartMachine): void {
  const { it } = suiteOf(start);

  for (const { name, offers } of LAYOUTS) {
    const options = { offers: { ...offers, pageReporting: true }, queueSize: 16 };
    describe(`a ring: ${name}`, () => {
      it('goes round many times', options, async (bench) => {
        const { machine, puppet, run } = bench;
        const pfn = puppet.pages(7);
        await run(function* () {
          for (const one of range(pfn, 128)) {
            yield* puppet.tell('inflateq', [one]);
            yield* puppet.tell('deflateq', [one]);
          }
        });
        for (const one of range(pfn, 128)) expect(await machine.contentOf(one)).toBe(0);
      });

      // spec: 2.7.4.1-device-1, 2.8.18-device-1
      it('takes chains of any length that fits, round and round', options, async (bench) => {
        const { machine, puppet, run } = bench;
        const pfn = puppet.pages(7);
        const all = range(pfn, 128);
        await run(function* () {
          for (let at = 0, length = 1; at < 128; at += length, length = (length % 5) + 1) {
            const out = all.slice(at, at + length).map((one) => le32s([one]));
            yield* puppet.exchange('inflateq', { out });
          }
        });
        for (const one of all) expect(await machine.contentOf(one)).toBe(0);
      });

      it('can be full, and comes back whole', options, async (bench) => {
        const { machine, puppet, run } = bench;
        const pfn = puppet.pages(6);
        for (let round = 0; round < 4; round++) {
          const pages = range(pfn + 16 * round, 16);
          const heads = pages.map((one) => puppet.add('inflateq', { out: [le32s([one])] }));
          expect(puppet.queue('inflateq').freeCount).toBe(0);
          expect(await takeBack(bench, 'inflateq', heads.length)).toEqual(heads);
          expect(puppet.queue('inflateq').freeCount).toBe(16);
        }
        await run(() => puppet.kick('inflateq'));
        for (const one of range(pfn, 64)) expect(await machine.contentOf(one)).toBe(0);
      });

      it('brings writable chains back as well', options, async (bench) => {
        const { machine, puppet, run } = bench;
        const pfn = puppet.pages(6);
        await run(function* () {
          for (let at = 0; at < 64; at += 4) {
            const segments = range(pfn + at, 4).map((one) => puppet.segment(one));
            yield* puppet.exchange('reporting_vq', { in: segments });
          }
        });
        for (const one of range(pfn, 64)) expect(await machine.contentOf(one)).toBe(0);
      });

      it('is silent while the driver wants no interrupts', options, async (bench) => {
        const { machine, puppet, run } = bench;
        const pfn = puppet.pages(3);
        await run(() => puppet.tell('inflateq', [pfn]));
        const queue = puppet.queue('inflateq');
        queue.disableCallbacks();
        const before = machine.interrupts.queue;
        await run(() => puppet.send('inflateq', { out: [le32s([pfn + 1])] }));
        await machine.settle();
        expect(machine.interrupts.queue).toBe(before);
        expect(queue.getUsed()).toBeGreaterThanOrEqual(0);
        expect(queue.enableCallbacks()).toBe(true);
        await run(() => puppet.tell('inflateq', [pfn + 2]));
        expect(machine.interrupts.queue).toBeGreaterThan(before);
      });
    });
  }

  describe('queue reset', () => {
    for (const { name, offers } of [LAYOUTS[0]!, LAYOUTS[1]!, LAYOUTS[4]!]) {
      const options: MachineOptions = { offers: { ...offers, ringReset: true } };
      // spec: 2.6.1.1.1-device-2, 2.6.1.2.1-device-1
      it(`lets a queue begin anew with another size: ${name}`, options, async (bench) => {
        const { machine, puppet, run } = bench;
        const pfn = puppet.pages(6);
        await run(function* () {
          for (const one of range(pfn, 20)) yield* puppet.tell('inflateq', [one]);
          yield* machine.transport.resetQueue(puppet.indexOf('inflateq'));
        });
        const isReset = !(await run(() => isEnabled(puppet.indexOf('inflateq'))));
        expect(isReset).toBe(machine.traits.get('queueResetWorks'));
        if (!isReset) return;
        await run(function* () {
          yield* puppet.setUpQueue('inflateq', 8);
          for (const one of range(pfn + 20, 20)) yield* puppet.tell('inflateq', [one]);
          yield* puppet.tell('deflateq', [pfn]);
        });
        for (const one of range(pfn, 40)) expect(await machine.contentOf(one)).toBe(0);
      });
    }

    // spec: 2.6.1.1.1-device-1
    it('takes away what the device held', { offers: { ringReset: true } }, async (bench) => {
      const { machine, puppet, run } = bench;
      const statsq = puppet.queue('statsq');
      await run(() => puppet.send('statsq', { out: [new Uint8Array(10)] }));
      await run(() => machine.transport.resetQueue(puppet.indexOf('statsq')));
      if (!machine.traits.get('queueResetWorks')) return;
      await machine.control.setStatsPollingInterval(1);
      await machine.settle();
      expect(statsq.getUsed()).toBe(-1);
    });
  });
}

/** Kick, and take so many back. */
function takeBack(bench: Bench, name: BalloonQueueName, count: number): Promise<number[]> {
  const { puppet, run } = bench;
  return run(function* () {
    yield* puppet.kick(name);
    const heads: number[] = [];
    while (heads.length < count) heads.push(yield* puppet.used(name));
    return heads;
  });
}
