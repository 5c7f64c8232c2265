import { describe, expect, test } from 'vitest';
import { PageFlag, PageOwner } from '../../../../guest/mm/index.ts';
import { MigrateMode } from '../../../../guest/page-migration/index.ts';
import { Errno, Prng } from '../../../../shared/index.ts';
import { Interleaver } from './interleaver.ts';
import { InvariantChecker } from './invariants.ts';
import { GENERATIONS, MigrationMachine } from './machine.ts';
import { type Answer, ScriptedDriver } from './scripted-driver.ts';

const { ASYNC, SYNC } = MigrateMode;
const SEEDS = 50;
/** One of each kind of answer; in the end eight pages are moved or gone. */
const SCRIPTS: readonly (readonly Answer[])[] = [
  ['move'],
  ['sleep'],
  ['EAGAIN', 'EAGAIN', 'move'],
  ['EINVAL', 'EINVAL'],
  ['deflate'],
  ['EAGAIN', 'deflate'],
];

describe.each(GENERATIONS)('invariants of the %s generation', (name) => {
  function setUp(seed = 0) {
    const machine = new MigrationMachine(name, { ramPages: 1024, isExplored: true });
    const driver = new ScriptedDriver(machine);
    const handles = SCRIPTS.map((script) => {
      const pfn = machine.allocate();
      driver.script.set(pfn, [...script]);
      return driver.add(pfn);
    });
    const pfns = handles.map((handle) => driver.pageOf.get(handle)!);
    const prng = new Prng(seed + 1);
    const choose = (count: number) => prng.below(count);
    return {
      machine,
      driver,
      handles,
      pfns,
      choose,
      checker: new InvariantChecker(machine, driver),
    };
  }

  test('1 to 3: isolated pages are movable, have one isolator, and are counted by their driver', () => {
    let refusals = 0;
    for (let seed = 0; seed < SEEDS; seed++) {
      const { machine, driver, handles, pfns, choose, checker } = setUp(seed);
      const threads = new Interleaver();
      for (const mode of [ASYNC, SYNC]) {
        threads.add(function* () {
          const isolated = yield* machine.isolateAll(pfns, mode);
          refusals += pfns.length - isolated.count;
          yield* machine.migration.migrate(isolated, machine.request(mode));
          yield* machine.migration.putbackAll(isolated);
        });
      }
      threads.add(() => driver.free(handles[seed % handles.length]!));
      threads.run(choose, checker.check);
      checker.checkEnd();
      expect(checker.violations).toEqual([]);
    }
    // The migrators were in each other's way.
    expect(refusals).toBeGreaterThan(SEEDS);
  });

  test('4: after migrate_pages each page is freed, or isolated and handed back; then none is', () => {
    const { machine, driver, handles, pfns } = setUp();
    machine.run(function* () {
      const isolated = yield* machine.isolateAll(pfns, SYNC);
      yield* driver.free(handles[0]!);
      expect(yield* machine.migration.migrate(isolated, machine.request(SYNC))).toBe(1);
      const stayed = pfns.filter((pfn) => machine.generation.isIsolated(pfn));
      expect(stayed).toEqual([pfns[3]]);
      for (const pfn of pfns) expect(machine.mm.isFree(pfn)).toBe(pfn !== pfns[3]);
      const left =
        isolated.shape === 'list' ? [...isolated] : pfns.filter((_pfn, i) => !isolated.migrates(i));
      expect(left).toEqual(stayed);
      yield* machine.migration.putbackAll(isolated);
    });
    expect(pfns.filter((pfn) => machine.generation.isIsolated(pfn))).toEqual([]);
    expect(machine.pages.flags.filter((flags) => (flags & PageFlag.ISOLATED) !== 0)).toEqual(
      new Uint16Array(0),
    );
  });

  test('5: a target has its owner alone, a source nobody, and no page is lost', () => {
    const { machine, driver, pfns } = setUp();
    machine.run(() => machine.migrateAll(pfns, SYNC));
    const owned = name === 'list' ? 1 : 0;
    expect(driver.pageOf.size).toBe(4);
    for (const pfn of driver.pageOf.values()) expect(machine.pages.refcount[pfn]).toBe(owned);
    for (const pfn of pfns) {
      if (pfn !== pfns[3]) expect(machine.pages.refcount[pfn]).toBe(0);
    }
    expect(machine.mm.freePages()).toBe(machine.freeAtStart - 4);
  });

  test.each<[what: string, answers: Answer[]]>([
    ['busy', new Array<Answer>(10).fill('EAGAIN')],
    ['refused', ['EINVAL', 'EINVAL']],
  ])('6: a failed attempt changes nothing (%s)', (_what, answers) => {
    const { machine, driver, handles, pfns } = setUp();
    const { pages } = machine;
    const pfn = pfns[0]!;
    driver.script.set(pfn, answers);
    const state = () => [
      machine.ram.tags[pfn],
      pages.flags[pfn],
      pages.owner[pfn],
      pages.mapping[pfn],
      pages.refcount[pfn],
      driver.privateOf.get(pfn),
      driver.list.has(pfn),
      driver.pageOf.get(handles[0]!),
    ];
    const before = state();
    expect(machine.run(() => machine.migrateAll([pfn], SYNC))).toBe(1);
    expect(state()).toEqual(before);
  });

  test('7: at most ten passes; targets allocated less those freed are the successes', () => {
    const { machine, driver, pfns } = setUp();
    driver.script.set(pfns[0]!, new Array<Answer>(50).fill('EAGAIN'));
    expect(machine.run(() => machine.migrateAll(pfns, SYNC))).toBe(2);
    expect(driver.calls.filter((call) => call === `migrate ${pfns[0]}`)).toHaveLength(10);
    const { allocated, freed } = machine.target;
    expect(allocated - freed).toBe(4);
    expect(machine.mm.vmstat).toMatchObject({ pgmigrate_success: 4, pgmigrate_fail: 2 });
  });

  test('8: as many poisoned pages as soft offlines that were successful', () => {
    const { machine, pfns } = setUp();
    const results = pfns.map((pfn) =>
      machine.run(() => machine.memoryFailure.softOfflinePage(pfn)),
    );
    expect(results.map((errno) => errno === Errno.OK)).toEqual([
      true,
      true,
      true,
      false,
      true,
      true,
    ]);
    expect(machine.folios.poisonedPages).toBe(5);
    const flagged = pfns.filter((pfn) => machine.pages.hasFlag(pfn, PageFlag.HWPOISON));
    expect(flagged).toEqual(pfns.filter((pfn) => pfn !== pfns[3]));
  });

  test('9: type and flag stay until the page is free, whatever its driver does', () => {
    const { machine, driver, handles, pfns } = setUp();
    const { pages } = machine;
    const pfn = pfns[0]!;
    machine.run(() => machine.migration.isolate(pfn, SYNC));
    machine.run(() => driver.free(handles[0]!));
    expect([pages.hasFlag(pfn, PageFlag.MOVABLE), pages.owner[pfn]]).toEqual([
      true,
      PageOwner.ZSMALLOC,
    ]);
    machine.run(() => machine.migration.putback(pfn));
    expect([machine.mm.isFree(pfn), pages.hasFlag(pfn, PageFlag.MOVABLE)]).toEqual([true, false]);
  });

  test('NR_ISOLATED counts no movable page', () => {
    const { machine, pfns } = setUp();
    const { lruvec } = machine.folios;
    const counts = () => [lruvec.isolatedAnonPages, lruvec.isolatedFilePages];
    machine.run(function* () {
      const isolated = yield* machine.isolateAll(pfns, SYNC);
      expect(counts()).toEqual([0, 0]);
      yield* machine.migration.migrate(isolated, machine.request(SYNC));
      expect(counts()).toEqual([0, 0]);
      yield* machine.migration.putbackAll(isolated);
    });
    expect(counts()).toEqual([0, 0]);
  });

  test('two vCPUs that isolate one page at the same time: one of them has it', () => {
    for (let seed = 0; seed < SEEDS; seed++) {
      const { machine, pfns, choose, checker } = setUp(seed);
      const threads = new Interleaver();
      const results: boolean[] = [];
      for (let i = 0; i < 2; i++) {
        threads.add(function* () {
          results.push(yield* machine.generation.isolate(pfns[0]!, ASYNC));
        });
      }
      threads.run(choose, checker.check);
      expect(checker.violations).toEqual([]);
      // With the page lock both may fail to get it, but never succeed.
      expect(results.filter((isolated) => isolated).length).toBe(1);
    }
  });

  test('two migrators on two vCPUs of the scheduler share the pages', () => {
    const machine = new MigrationMachine(name);
    const driver = new ScriptedDriver(machine);
    const handles = Array.from({ length: 600 }, () => driver.add(machine.allocate()));
    const pfns = handles.map((handle) => driver.pageOf.get(handle)!);
    const checker = new InvariantChecker(machine, driver);
    const results: number[] = [];
    for (const cpu of [0, 1]) {
      machine.spawn(function* () {
        for (let i = 0; i < pfns.length; i += 32) {
          results.push(yield* machine.migrateAll(pfns.slice(i, i + 32), cpu === 0 ? ASYNC : SYNC));
        }
      }, cpu);
    }
    machine.settle();
    checker.checkEnd();
    expect(checker.violations).toEqual([]);
    expect(results.every((result) => result === 0)).toBe(true);
    expect(machine.mm.vmstat.pgmigrate_success).toBe(600);
    expect(
      [...driver.pageOf.values()].some((pfn) => pfns.includes(pfn) && machine.mm.isFree(pfn)),
    ).toBe(false);
  });
});
