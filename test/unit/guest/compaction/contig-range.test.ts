import { describe, expect, test } from 'vitest';
import { Gfp, MigrateType, PageFlag, PageOwner } from '../../../../guest/mm/index.ts';
import { Errno } from '../../../../shared/index.ts';
import { GENERATIONS } from '../page-migration/machine.ts';
import { CompactionMachine, type FrameKind } from './machine.ts';

const START = 1024;
const END = 2048;

type Options = ConstructorParameters<typeof CompactionMachine>[0];

function machineOf(kindOf: (pfn: number) => FrameKind, options: Options = {}) {
  const machine = new CompactionMachine(options);
  machine.layOut(kindOf);
  const take = (start = START, end = END) =>
    machine.run(() => machine.compaction.contig.allocContigRange(start, end));
  const types = () => [...machine.mm.pageblocks.types];
  return { machine, take, types };
}

describe.each(GENERATIONS)('alloc_contig_range (%s)', (generation) => {
  const options = { generation };

  test.each<[string, number, number, (pfn: number) => FrameKind]>([
    ['free frames', START, END, () => 'free'],
    [
      'frames in every kind of movable use',
      START,
      END,
      (pfn) =>
        pfn >= 2048 ? 'free' : (['file', 'mapped', 'anon', 'driver', 'free'] as const)[pfn % 5]!,
    ],
    ['a part of a pageblock', 1100, 1133, (pfn) => (pfn < 1500 && pfn % 3 > 0 ? 'anon' : 'free')],
    [
      'frames beside what cannot move',
      1100,
      1133,
      (pfn) => (pfn === 1099 || pfn === 1133 ? 'kernel' : pfn < 1200 ? 'driver' : 'free'),
    ],
  ])('takes %s', (_what, start, end, kindOf) => {
    const { machine, take, types } = machineOf(kindOf, options);
    const freePages = machine.mm.freePages();
    const typesBefore = types();
    const inUse = machine.movable.filter((pfn) => pfn >= start && pfn < end);
    const freeInside = end - start - inUse.length;
    expect(take(start, end)).toBe(Errno.OK);
    for (let pfn = start; pfn < end; pfn++) {
      if (machine.pages.owner[pfn] !== PageOwner.CONTIG) expect.fail(`frame ${pfn} is not taken`);
    }
    expect(
      machine.movable.filter((pfn) => {
        const at = machine.whereIs(pfn);
        return at >= start && at < end;
      }),
    ).toEqual([]);
    expect(types()).toEqual(typesBefore);
    machine.mm.drainAllPcp();
    expect(machine.mm.freePages()).toBe(freePages - freeInside - inUse.length);
    expect(machine.audit()).toEqual([]);

    machine.compaction.contig.freeContigRange(start, end);
    expect(machine.mm.freePages()).toBe(freePages);
    expect(machine.audit()).toEqual([]);
  });

  test.each<[string, FrameKind, number]>([
    // In the second of the blocks, so that the first one is isolated by then.
    ['a page of the kernel', 'kernel', 0],
    ['a page with a reference too many', 'held', 1],
    ['a pinned page', 'pinned', 1],
    ['a page whose driver is busy', 'busy', 1],
  ])('fails with EBUSY for %s, and leaves everything as it was', (_what, kind, tries) => {
    const { machine, take, types } = machineOf((pfn) => {
      if (pfn === 1800) return kind;
      return pfn < END && pfn % 2 === 0 ? 'file' : 'free';
    }, options);
    const typesBefore = types();
    const freePages = machine.mm.freePages();
    expect(take()).toBe(Errno.EBUSY);
    expect(types()).toEqual(typesBefore);
    expect(machine.mm.vmstat.pgmigrate_fail > 0).toBe(tries > 0);
    machine.mm.drainAllPcp();
    expect(machine.mm.freePages()).toBe(freePages);
    expect(machine.audit()).toEqual([]);
    // What was isolated can be had again.
    expect(machine.mm.allocExact(1501, 0, Gfp.GFP_KERNEL)).toBe(true);
  });
});

test('a pin check does not keep pinned pages from being tried', () => {
  const { machine, take } = machineOf((pfn) => (pfn === 1500 ? 'pinned' : 'free'), {
    pinCheck: 'extra_refs',
  });
  expect(take()).toBe(Errno.EBUSY);
  expect(machine.mm.vmstat.pgmigrate_fail).toBeGreaterThan(0);
});

test('a range without a place for its pages fails with ENOMEM', () => {
  const { machine, take } = machineOf((pfn) =>
    pfn >= START && pfn < END ? (pfn % 2 === 0 ? 'file' : 'free') : 'kernel',
  );
  expect(take()).toBe(Errno.ENOMEM);
  expect(machine.audit()).toEqual([]);
});

test('CMA stays CMA', () => {
  const { machine, take, types } = machineOf((pfn) =>
    pfn < END && pfn % 2 === 0 ? 'anon' : 'free',
  );
  machine.mm.setMigratetype(2, MigrateType.CMA);
  machine.mm.setMigratetype(3, MigrateType.CMA);
  const typesBefore = types();
  expect(take()).toBe(Errno.OK);
  expect(types()).toEqual(typesBefore);
  machine.compaction.contig.freeContigRange(START, END);
  machine.mm.drainAllPcp();
  expect(machine.mm.zones[0]!.freeCmaPages).toBe(1024);
  expect(machine.audit()).toEqual([]);
});

test('per-CPU lists are emptied first, and nothing of the range stays on them', () => {
  const { machine, take } = machineOf((pfn) => (pfn < 1026 ? 'kernel' : 'free'));
  for (let pfn = 1024; pfn < 1026; pfn++) machine.mm.free(pfn, 0, 1);
  expect(machine.pages.hasFlag(1024, PageFlag.PCP)).toBe(true);
  expect(take()).toBe(Errno.OK);
});

test('of two that want the same block the second is refused', () => {
  const { machine } = machineOf((pfn) => (pfn < END && pfn % 2 === 0 ? 'driver' : 'free'));
  const { contig } = machine.compaction;
  const results: Errno[] = [];
  const start = (from: number, to: number, cpu: number) =>
    machine.spawn(function* () {
      results.push(yield* contig.allocContigRange(from, to, cpu));
    }, cpu);
  start(START, END, 0);
  start(1500, 1600, 1);
  machine.settle();
  expect(results).toEqual([Errno.EBUSY, Errno.OK]);
  expect(machine.audit()).toEqual([]);
});

test.each([
  ['empty', 2000, 2000],
  ['backwards', 2000, 1999],
  ['beyond memory', 4000, 4097],
  ['before it', -1, 5],
])('a range that is %s is EINVAL', (_what, start, end) => {
  expect(machineOf(() => 'free').take(start, end)).toBe(Errno.EINVAL);
});

test('a range over two zones is EINVAL', () => {
  const { take } = machineOf(() => 'free', { ramPages: 8192 });
  expect(take(4000, 4200)).toBe(Errno.EINVAL);
});
