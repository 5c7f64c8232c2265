import { describe, expect, test } from 'vitest';
import { IterateStrategy } from '../../../../guest/hinting/iterate.ts';
import { PageFlag } from '../../../../guest/mm/index.ts';
import { NS_PER_S } from '../../../../shared/index.ts';
import { bareKernel } from '../kernel/machine.ts';
import { PlayedRound } from './round.ts';

const RAM_PAGES = 8192;

/** Blocks of every order, in two zones, and some pages on the per-CPU lists. */
function machine(budgetNodes: number, minOrder: number) {
  const bare = bareKernel({
    ramPages: RAM_PAGES,
    isFree: (pfn) => pfn >= 1024 && (pfn % 4096 >= 2048 || pfn % 37 !== 0),
  });
  for (let i = 1; i < 4; i++) bare.mm.free(i, 0);
  const strategy = new IterateStrategy(bare.kernel, { budgetNodes, minOrder });
  const play = (limitBlocks = Number.POSITIVE_INFINITY) => {
    const round = new PlayedRound(bare.kernel);
    round.limitBlocks = limitBlocks;
    bare.run(() => strategy.run(round), bare.kernel.now + NS_PER_S);
    return round;
  };
  return { ...bare, strategy, play };
}

function buddyBlocks({ pages }: ReturnType<typeof machine>['mm'], minOrder: number): string[] {
  const blocks: string[] = [];
  for (let pfn = 0; pfn < RAM_PAGES; pfn++) {
    const isHead = (pages.flags[pfn]! & PageFlag.BUDDY) !== 0;
    if (isHead && pages.order[pfn]! >= minOrder) blocks.push(`${pfn}+${1 << pages.order[pfn]!}`);
  }
  return blocks;
}

const blocksOf = (round: PlayedRound) =>
  round.hinted.map(({ pfn, pageCount }) => `${pfn}+${pageCount}`).sort();

describe('hinting by iteration', () => {
  test.each([
    [1000, 0],
    [1, 0],
    [7, 3],
    [64, 9],
    [5, 10],
  ])('with a budget of %i nodes hints every block of order %i and more once', (budget, order) => {
    const { mm, strategy, scheduler, play } = machine(budget, order);
    const expected = buddyBlocks(mm, order).sort();
    expect(expected.length).toBeGreaterThan(2);
    const { generation } = mm.zones[0]!;
    expect(blocksOf(play())).toEqual(expected);
    // Nothing was taken, moved or dirtied, and every hold of the lock is paid for.
    expect([mm.zones[0]!.generation, mm.audit()]).toEqual([generation, []]);
    const { counters } = strategy;
    expect(counters['lock_nodes_max']).toBeLessThanOrEqual(budget);
    expect(scheduler.kthreadCpuNs).toBe(counters['lock_hold_ns_total']);
    expect(counters['lock_hold_ns_total']).toBeGreaterThan(0);
  });

  test('breaks off when the host ends the round, and can start anew', () => {
    const { mm, strategy, play } = machine(10, 0);
    const expected = buddyBlocks(mm, 0).sort();
    for (const limit of [1, 10, 25]) expect(play(limit).hinted.length).toBe(limit);
    const holds = strategy.counters['lock_holds']!;
    expect(holds).toBeLessThan(10);
    expect(blocksOf(play())).toEqual(expected);
    expect(blocksOf(play())).toEqual(expected);
  });

  test('tells when it saw a block: while it held the lock', () => {
    const { play, kernel } = machine(10, 0);
    const { hinted } = play();
    const step = kernel.costs.listNodeNs * 10;
    const first = hinted.slice(0, 10).map(({ recordedAtNs }) => recordedAtNs);
    expect(new Set(first)).toEqual(new Set([0]));
    expect(hinted[10]!.recordedAtNs).toBeGreaterThanOrEqual(step);
  });

  test('lets whoever waits for the vCPU run between two holds', () => {
    const { kernel, scheduler, strategy, run } = machine(1, 0);
    const round = new PlayedRound(kernel);
    let ranAt = -1;
    scheduler.spawn(() => strategy.run(round));
    run(function* () {
      yield { kind: 'cpu', ns: 10 };
      ranAt = round.hinted.length;
    }, NS_PER_S);
    expect(ranAt).toBeGreaterThanOrEqual(0);
    expect(ranAt).toBeLessThan(5);
    expect(round.hinted.length).toBeGreaterThan(50);
  });
});
