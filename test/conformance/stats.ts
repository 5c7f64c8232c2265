/** Memory statistics (virtio 1.4 §5.5.6.3): the device keeps a buffer and uses it to ask. */
import { describe, expect } from 'vitest';
import { type Bench, type StartMachine, suiteOf } from './fixture.ts';

const SWAP_IN = 0;
const MAJFLT = 2;
const MEMFREE = 4;
const MEMTOT = 5;

export function statsTests(start: StartMachine): void {
  const { it } = suiteOf(start);

  describe('statistics', () => {
    it('are unknown before the first report', {}, async ({ machine }) => {
      const { stats, lastUpdateS } = await machine.control.guestStats();
      expect(Object.keys(stats)).toContain('stat-free-memory');
      expect(new Set(Object.values(stats))).toEqual(new Set([null]));
      expect(lastUpdateS).toBe(0);
    });

    it('are known when the first buffer has come', {}, async (bench) => {
      await report(bench, [
        [MEMFREE, 123456],
        [MEMTOT, 1 << 24],
      ]);
      const { stats, lastUpdateS } = await bench.machine.control.guestStats();
      expect(stats['stat-free-memory']).toBe(123456);
      expect(stats['stat-total-memory']).toBe(1 << 24);
      expect(lastUpdateS).toBeGreaterThan(0);
    });

    it('stay unknown where the guest reports none', {}, async (bench) => {
      await report(bench, [[MEMFREE, 1]]);
      const { stats } = await bench.machine.control.guestStats();
      expect(stats['stat-total-memory']).toBeNull();
      expect(stats['stat-swap-in']).toBeNull();
    });

    it('the buffer stays with the device while nobody polls', {}, async (bench) => {
      await report(bench, [[MEMFREE, 1]]);
      expect(bench.puppet.queue('statsq').getUsed()).toBe(-1);
    });

    it('hold 64 bits', {}, async (bench) => {
      await report(bench, [[SWAP_IN, 2 ** 44 + 5]]);
      const { stats } = await bench.machine.control.guestStats();
      expect(stats['stat-swap-in']).toBe(2 ** 44 + 5);
    });

    // spec: 5.5.6.3.2-device-2
    it('come in any order', {}, async (bench) => {
      await report(bench, [
        [MEMTOT, 5],
        [SWAP_IN, 0],
        [MEMFREE, 4],
        [MAJFLT, 2],
      ]);
      const { stats } = await bench.machine.control.guestStats();
      expect([stats['stat-swap-in'], stats['stat-major-faults']]).toEqual([0, 2]);
      expect([stats['stat-free-memory'], stats['stat-total-memory']]).toEqual([4, 5]);
    });

    // spec: 5.5.6.3.2-device-1
    it('unknown tags are passed over', {}, async (bench) => {
      await report(bench, [
        [4711, 1],
        [MEMFREE, 9],
        [65535, 2],
      ]);
      const { stats } = await bench.machine.control.guestStats();
      expect(stats['stat-free-memory']).toBe(9);
      expect(Object.values(stats).filter((value) => value !== null)).toEqual([9]);
    });

    it('the last of two entries with one tag counts', {}, async (bench) => {
      await report(bench, [
        [MEMFREE, 1],
        [MEMFREE, 2],
      ]);
      expect((await bench.machine.control.guestStats()).stats['stat-free-memory']).toBe(2);
    });

    it('bytes behind the last whole entry are passed over', {}, async (bench) => {
      const bytes = new Uint8Array(27);
      bytes.set(
        entries([
          [MEMFREE, 6],
          [MEMTOT, 7],
        ]),
      );
      await send(bench, [bytes]);
      const { stats } = await bench.machine.control.guestStats();
      expect([stats['stat-free-memory'], stats['stat-total-memory']]).toEqual([6, 7]);
    });

    it('an entry may lie across descriptors', {}, async (bench) => {
      const bytes = entries([
        [MEMFREE, 0x0102_0304],
        [MEMTOT, 7],
      ]);
      await send(bench, [bytes.subarray(0, 1), bytes.subarray(1, 7), bytes.subarray(7)]);
      const { stats } = await bench.machine.control.guestStats();
      expect([stats['stat-free-memory'], stats['stat-total-memory']]).toEqual([0x0102_0304, 7]);
    });

    it('a second buffer sends the first one back', {}, async (bench) => {
      const { puppet, run } = bench;
      const first = await report(bench, [[MEMFREE, 1]]);
      const second = await report(bench, [[MEMFREE, 2]]);
      expect(await run(() => puppet.used('statsq'))).toBe(first);
      expect(puppet.queue('statsq').usedBytes).toBe(0);
      expect(puppet.queue('statsq').getUsed()).toBe(-1);
      expect(puppet.queue('statsq').isOutstanding(second)).toBe(true);
      expect((await bench.machine.control.guestStats()).stats['stat-free-memory']).toBe(2);
    });

    it('survive a reset', {}, async (bench) => {
      await report(bench, [[MEMFREE, 42]]);
      await bench.run(() => bench.puppet.boot());
      expect((await bench.machine.control.guestStats()).stats['stat-free-memory']).toBe(42);
    });

    it('a new life begins with a new buffer', {}, async (bench) => {
      await report(bench, [[MEMFREE, 42]]);
      await bench.run(() => bench.puppet.boot());
      await report(bench, [[MEMFREE, 43]]);
      expect(bench.puppet.queue('statsq').getUsed()).toBe(-1);
      expect((await bench.machine.control.guestStats()).stats['stat-free-memory']).toBe(43);
    });
  });

  describe('polling', () => {
    it('asks by using the buffer, again and again', {}, async (bench) => {
      const { machine, puppet, run } = bench;
      const head = await report(bench, [[MEMFREE, 1]]);
      await machine.control.setStatsPollingInterval(1);
      for (let i = 2; i < 4; i++) {
        expect(await run(() => puppet.used('statsq'))).toBe(head);
        expect(puppet.queue('statsq').usedBytes).toBe(0);
        await report(bench, [[MEMFREE, i]]);
        expect((await machine.control.guestStats()).stats['stat-free-memory']).toBe(i);
      }
    });

    it('waits for a guest that has no buffer there', {}, async (bench) => {
      const { machine, puppet, run } = bench;
      await machine.control.setStatsPollingInterval(1);
      await machine.settle();
      expect(puppet.queue('statsq').getUsed()).toBe(-1);
      const head = await report(bench, [[MEMFREE, 1]]);
      expect(await run(() => puppet.used('statsq'))).toBe(head);
    });

    it('ends with the interval 0', {}, async (bench) => {
      const { machine, puppet } = bench;
      await machine.control.setStatsPollingInterval(3600);
      await report(bench, [[MEMFREE, 1]]);
      await machine.control.setStatsPollingInterval(0);
      await machine.settle();
      expect(puppet.queue('statsq').getUsed()).toBe(-1);
    });
  });
}

type Entry = readonly [tag: number, value: number];

function report(bench: Bench, values: readonly Entry[]): Promise<number> {
  return send(bench, [entries(values)]);
}

async function send(bench: Bench, out: readonly Uint8Array[]): Promise<number> {
  const head = await bench.run(() => bench.puppet.send('statsq', { out }));
  await bench.machine.settle();
  return head;
}

/** Packed le16 and le64. */
function entries(values: readonly Entry[]): Uint8Array {
  const bytes = new Uint8Array(values.length * 10);
  const view = new DataView(bytes.buffer);
  values.forEach(([tag, value], i) => {
    view.setUint16(i * 10, tag, true);
    view.setBigUint64(i * 10 + 2, BigInt(value), true);
  });
  return bytes;
}
