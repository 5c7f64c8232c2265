import { describe, expect, test } from 'vitest';
import { OracleStrategy } from '../../../../guest/hinting/oracle.ts';
import { Gfp } from '../../../../guest/mm/index.ts';
import { Bitmap, NS_PER_MS } from '../../../../shared/index.ts';
import { bareKernel } from '../kernel/machine.ts';
import { PlayedRound } from './round.ts';

const RAM_PAGES = 8192;
/** Longer than it waits between two looks. */
const A_LOOK_NS = 6 * NS_PER_MS;

function machine(isFree = (pfn: number) => pfn >= 1024 && pfn % 1000 > 3) {
  const bare = bareKernel({ ramPages: RAM_PAGES, isFree });
  // Frames 1 … 3 go to the per-CPU lists.
  for (let pfn = 1; pfn < 4; pfn++) bare.mm.free(pfn, 0);
  const strategy = new OracleStrategy(bare.kernel);
  const round = new PlayedRound(bare.kernel);
  bare.scheduler.spawn(() => strategy.run(round));
  const look = () => bare.scheduler.run(bare.scheduler.now + A_LOOK_NS, 0);
  return { ...bare, round, look };
}

describe('hinting by an oracle', () => {
  test.each([
    ['with gaps', undefined],
    ['in single pages', (pfn: number) => pfn % 2 === 1 && pfn > 8],
    ['that is all but nothing', (pfn: number) => pfn === 8191],
  ])('hints exactly the free set %s, per-CPU pages included, once', (_what, isFree) => {
    const { mm, round, look, scheduler } = machine(isFree);
    const free = new Bitmap(RAM_PAGES);
    mm.writeFreeSet(free);
    expect(free.get(2)).toBe(true);
    for (let i = 0; i < 3; i++) look();
    const times = round.timesOf(RAM_PAGES);
    for (let pfn = 0; pfn < RAM_PAGES; pfn++) {
      if (times[pfn] !== Number(free.get(pfn))) expect.fail(`${pfn}: ${times[pfn]} times`);
    }
    for (const { pfn, pageCount } of round.hinted) expect(pfn % pageCount).toBe(0);
    expect(mm.freePages()).toBe(free.count());
    expect(scheduler.kthreadCpuNs).toBe(0);
  });

  test('hints what becomes free while the round lasts', () => {
    const { mm, round, look } = machine();
    look();
    mm.free(512, 9);
    mm.free(100, 0);
    const before = round.hinted.length;
    look();
    const later = round.hinted.slice(before).map(({ pfn, pageCount }) => [pfn, pageCount]);
    expect(later).toEqual([
      [100, 1],
      [512, 512],
    ]);
  });

  test('hints again what was taken and is free again', () => {
    const { mm, round, look } = machine();
    look();
    mm.allocExact(5008, 3, Gfp.GFP_KERNEL);
    look();
    mm.free(5008, 3);
    look();
    look();
    const times = round.timesOf(RAM_PAGES);
    expect([...times.subarray(5007, 5017)]).toEqual([1, 2, 2, 2, 2, 2, 2, 2, 2, 1]);
  });

  test('hints more blocks than fit into one batch', () => {
    const ramPages = 140_000;
    const bare = bareKernel({ ramPages, isFree: (pfn) => pfn % 2 === 1 });
    const round = new PlayedRound(bare.kernel);
    bare.run(() => new OracleStrategy(bare.kernel).run(round), 1);
    const times = round.timesOf(ramPages);
    expect(round.hinted.length).toBeGreaterThan(65_536);
    expect(times.every((count, pfn) => count === Number(pfn % 2 === 1))).toBe(true);
  });

  test('stops with the round', () => {
    const { mm, round, look } = machine();
    round.limitBlocks = 3;
    look();
    mm.free(100, 0);
    look();
    expect(round.hinted.length).toBe(3);
  });
});
