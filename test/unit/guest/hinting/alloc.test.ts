import { describe, expect, test } from 'vitest';
import { HintOutcome } from '../../../../guest/balloon/hinting.ts';
import { AllocStrategy } from '../../../../guest/hinting/alloc.ts';
import { Bitmap, NO_PLANTS, NS_PER_S } from '../../../../shared/index.ts';
import { inProcess } from '../../../support/in-process.ts';
import { bareKernel } from '../kernel/machine.ts';
import { PlayedRound } from './round.ts';

const RAM_PAGES = 16_384;
const BLOCK_PAGES = 1024;
const ZEROING = { initOnAlloc: true, initOnFree: false, pagePoison: false };

function machine(mm?: typeof ZEROING, name: 'alloc' | 'alloc-ack' = 'alloc', plants = NO_PLANTS) {
  const bare = bareKernel({
    ramPages: RAM_PAGES,
    isFree: (pfn) => pfn >= BLOCK_PAGES,
    ...(mm ? { mm } : {}),
  });
  const strategy = new AllocStrategy(
    Object.create(bare.kernel, { plants: { value: plants } }),
    name,
  );
  const round = new PlayedRound(bare.kernel);
  const freed: number[] = [];
  const free = bare.mm.free.bind(bare.mm);
  bare.mm.free = (pfn, order, cpu) => {
    freed.push(pfn);
    free(pfn, order, cpu);
  };
  const run = () => bare.run(() => strategy.run(round), NS_PER_S);
  return { ...bare, strategy, round, freed, run };
}

describe('hinting by allocation', () => {
  test('holds what it hints until the host says DONE', async () => {
    const { guest, hypervisor } = await inProcess({ guest: { strategy: 'alloc' } });
    const { vmm } = hypervisor;
    await vmm.advanceTo(NS_PER_S);
    const before = guest.system.mm.freePages();
    expect(vmm.device.hintStart()).toBe(true);
    await vmm.advanceFor(NS_PER_S);
    const held = guest.system.strategy?.heldPages ?? 0;
    expect(held).toBeGreaterThan(8 * BLOCK_PAGES);
    expect(vmm.device.metrics.hints_accepted * BLOCK_PAGES).toBe(held);
    vmm.device.hintStop();
    await vmm.advanceFor(NS_PER_S);
    expect([guest.system.strategy?.heldPages, guest.system.mm.freePages()]).toEqual([
      held,
      before - held,
    ]);
    vmm.device.hintDone();
    await vmm.advanceFor(NS_PER_S);
    expect([guest.system.strategy?.heldPages, guest.system.mm.freePages()]).toEqual([0, before]);
    expect(guest.system.audit()).toEqual([]);
  });

  test('stops at the first allocation that fails, and keeps what it has', () => {
    const { mm, strategy, round, freed, run } = machine();
    const before = mm.freePages();
    run();
    expect(mm.vmstat).toMatchObject({ alloc_failures: 1, allocstall: 0, kswapd_wakeups: 0 });
    expect(round.hinted.length).toBeGreaterThan(8);
    expect(new Set(round.hinted.map(({ pfn }) => pfn)).size).toBe(round.hinted.length);
    expect(round.hinted.every(({ pageCount }) => pageCount === BLOCK_PAGES)).toBe(true);
    expect(strategy.heldPages).toBe(round.hinted.length * BLOCK_PAGES);
    expect([freed, mm.freePages()]).toEqual([[], before - strategy.heldPages]);
  });

  test('gives back the block for which there was no entry, and the one after the end', () => {
    const { mm, strategy, round, freed, run } = machine();
    const { QUEUED, FULL, ENDED } = HintOutcome;
    round.outcomes = [QUEUED, FULL, FULL, QUEUED, ENDED];
    const before = mm.freePages();
    run();
    const hinted = round.hinted.map(({ pfn }) => pfn);
    expect([hinted.length, freed.length]).toEqual([2, 3]);
    expect(strategy.heldPages).toBe(2 * BLOCK_PAGES);
    expect(strategy.counters.held_pages_max).toBe(3 * BLOCK_PAGES);
    expect(mm.freePages()).toBe(before - strategy.heldPages);
    const heldSet = new Bitmap(RAM_PAGES);
    strategy.writeHeldSet(heldSet);
    for (let pfn = 0; pfn < RAM_PAGES; pfn++) {
      const isHeld = hinted.some((first) => pfn >= first && pfn < first + BLOCK_PAGES);
      if (strategy.isHeld(pfn) !== isHeld || heldSet.get(pfn) !== isHeld) expect.fail(`${pfn}`);
    }
  });

  test('releases the block hinted last first', () => {
    const { mm, strategy, round, freed, run } = machine();
    round.limitBlocks = 4;
    run();
    strategy.release();
    expect(freed).toEqual(round.hinted.map(({ pfn }) => pfn).reverse());
    expect([strategy.heldPages, mm.audit()]).toEqual([0, []]);
    strategy.release();
    expect(freed.length).toBe(4);
  });

  test('allocates nothing in a round that is over before it begins', () => {
    const { mm, round, run } = machine();
    round.ended = true;
    const before = mm.freePages();
    run();
    expect([round.hinted, mm.freePages(), mm.vmstat.alloc_failures]).toEqual([[], before, 0]);
  });

  test.each([
    ['alone', undefined, false, 0, 0],
    ['and for clearing', ZEROING, true, BLOCK_PAGES, 0],
    ['and for clearing and the host faults of the first touch', ZEROING, false, 1024, 1024],
  ])('pays for the allocation %s', (_what, mmOptions, touched, clearedPages, faults) => {
    const { kernel, ram, scheduler, round, run } = machine(mmOptions);
    if (touched) ram.untouched.clearAll();
    round.limitBlocks = 2;
    run();
    const { allocNs, clearPageNs, hostFaultNs } = kernel.costs;
    const blockNs = allocNs + clearedPages * clearPageNs + faults * hostFaultNs;
    expect(scheduler.kthreadCpuNs).toBe(2 * blockNs);
    // A block counts as hinted once it is cleared.
    expect(round.hinted.map(({ recordedAtNs }) => recordedAtNs)).toEqual([blockNs, 2 * blockNs]);
  });
});

describe('the shrinker', () => {
  test.each([
    { pages: 0, blocks: 0 },
    { pages: 1, blocks: 1 },
    { pages: BLOCK_PAGES, blocks: 1 },
    { pages: BLOCK_PAGES + 1, blocks: 2 },
    { pages: 100 * BLOCK_PAGES, blocks: 4 },
  ])('gets $blocks blocks of four for $pages pages, the last hinted first', ({ pages, blocks }) => {
    const { mm, strategy, round, freed, run } = machine();
    round.limitBlocks = 4;
    run();
    const before = mm.freePages();
    expect(strategy.shrink(pages)).toBe(blocks * BLOCK_PAGES);
    const newestFirst = round.hinted.map(({ pfn }) => pfn).reverse();
    expect(freed).toEqual(newestFirst.slice(0, blocks));
    expect(strategy.heldPages).toBe((4 - blocks) * BLOCK_PAGES);
    expect(mm.freePages()).toBe(before + blocks * BLOCK_PAGES);
    expect(strategy.counters.hint_shrunk_pages).toBe(blocks * BLOCK_PAGES);
    expect(mm.audit()).toEqual([]);
  });

  test('does not get the block that is being hinted', () => {
    const { mm, strategy, round, run } = machine();
    const { QUEUED, FULL } = HintOutcome;
    round.outcomes = [QUEUED, FULL, QUEUED];
    const got: number[] = [];
    const { hint } = round;
    round.hint = (...block) => {
      got.push(strategy.shrink(BLOCK_PAGES));
      return hint.apply(round, block);
    };
    round.limitBlocks = 2;
    run();
    expect(got).toEqual([0, BLOCK_PAGES, 0]);
    expect([strategy.heldPages, mm.audit()]).toEqual([BLOCK_PAGES, []]);
  });
});

describe('hinting by allocation with HINT_WAIT_ON_ACK', () => {
  test.each([
    ['', NO_PLANTS, 2],
    [' unless a bug is planted', { ...NO_PLANTS, hintDiscardsWithoutAck: true }, 0],
  ])('waits after each block%s', (_what, plants, acks) => {
    const { round, run } = machine(undefined, 'alloc-ack', plants);
    round.waitsOnAck = true;
    round.limitBlocks = 2;
    let awaited = 0;
    round.onAck = () => awaited++;
    run();
    expect([round.hinted.length, awaited]).toEqual([2, acks]);
  });

  test('holds a block until the ack, which it awaits even when the round is over', () => {
    const { mm, strategy, round, freed, run } = machine(undefined, 'alloc-ack');
    round.waitsOnAck = true;
    round.limitBlocks = 1;
    let heldAtAck = 0;
    round.onAck = () => {
      heldAtAck = strategy.heldPages;
      const [{ pfn } = { pfn: -1 }] = round.hinted;
      const heldSet = new Bitmap(RAM_PAGES);
      strategy.writeHeldSet(heldSet);
      expect([strategy.isHeld(pfn), heldSet.count()]).toEqual([true, BLOCK_PAGES]);
      expect(heldSet.countRange(pfn, BLOCK_PAGES)).toBe(BLOCK_PAGES);
      strategy.release();
    };
    run();
    expect([heldAtAck, freed]).toEqual([BLOCK_PAGES, []]);
    strategy.release();
    expect([strategy.heldPages, freed.length, mm.audit()]).toEqual([0, 1, []]);
  });
});
