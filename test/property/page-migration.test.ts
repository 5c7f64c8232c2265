import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { PageFlag } from '../../guest/mm/index.ts';
import { MigrateMode } from '../../guest/page-migration/index.ts';
import { Prng } from '../../shared/index.ts';
import { Interleaver } from '../unit/guest/page-migration/interleaver.ts';
import { InvariantChecker } from '../unit/guest/page-migration/invariants.ts';
import { GENERATIONS, MigrationMachine } from '../unit/guest/page-migration/machine.ts';
import { type Answer, ScriptedDriver } from '../unit/guest/page-migration/scripted-driver.ts';
import { TestMapping } from '../unit/guest/page-migration/test-mapping.ts';

const answer = fc.constantFrom<Answer>(
  ...(['move', 'sleep', 'linger', 'deflate', 'EAGAIN', 'EAGAIN', 'EINVAL'] as const),
);
const lruPage = fc.record({ ptes: fc.nat(3), pins: fc.constantFrom(0, 0, 1) });
const migrator = fc.record({
  mode: fc.constantFrom(...Object.values(MigrateMode)),
  /** Offset and stride in all pages. */
  first: fc.nat(20),
  stride: fc.constantFrom(1, 1, 2, 3),
  end: fc.constantFrom<'migrate' | 'putback'>('migrate', 'migrate', 'migrate', 'putback'),
});
const scene = fc.record({
  answers: fc.array(fc.array(answer, { maxLength: 12 }), { minLength: 1, maxLength: 12 }),
  lruPages: fc.array(lruPage, { maxLength: 6 }),
  migrators: fc.tuple(migrator, migrator),
  /** Places of movable pages that their driver gives up meanwhile. */
  freed: fc.array(fc.nat(11), { maxLength: 4 }),
  enomemAfter: fc.option(fc.nat(12)),
  seed: fc.integer(),
});
type Scene = typeof scene extends fc.Arbitrary<infer T> ? T : never;

/** Two migrators, a driver that frees, in an order by seed; checked at each step. */
function play(name: (typeof GENERATIONS)[number], it: Scene): void {
  const machine = new MigrationMachine(name, { ramPages: 1024, isExplored: true });
  const driver = new ScriptedDriver(machine);
  const mapping = new TestMapping(machine, 1);
  const handles = it.answers.map((script) => {
    const pfn = machine.allocate();
    driver.script.set(pfn, [...script]);
    return driver.add(pfn);
  });
  const contents = new Map(handles.map((handle) => [handle, driver.content(handle)]));
  for (const { ptes, pins } of it.lruPages) {
    const pfn = machine.allocate();
    mapping.add(pfn, ptes);
    machine.pages.refcount[pfn]! += pins;
  }
  const lruContents = mapping.slots.map((_pfn, index) => mapping.content(index));
  if (it.enomemAfter !== null) machine.target.leftUntilEnomem = it.enomemAfter;
  const checker = new InvariantChecker(machine, driver);
  const prng = new Prng(it.seed);
  const threads = new Interleaver();
  const allPfns = [...driver.pageOf.values(), ...mapping.slots];
  let handedOver = 0;
  for (const { mode, first, stride, end } of it.migrators) {
    threads.add(function* () {
      const pfns = allPfns.filter((_pfn, i) => i >= first % allPfns.length && i % stride === 0);
      const isolated = yield* machine.isolateAll(pfns, mode);
      if (end === 'migrate') {
        handedOver += isolated.count;
        const result = yield* machine.migration.migrate(isolated, machine.request(mode));
        expect(result).toBeLessThanOrEqual(pfns.length);
      }
      yield* machine.migration.putbackAll(isolated);
    });
  }
  threads.add(function* () {
    for (const place of it.freed) yield* driver.free(handles[place % handles.length]!);
  });
  threads.run((count) => prng.below(count), checker.check);

  checker.checkEnd();
  expect(checker.violations).toEqual([]);
  const { allocated, freed } = machine.target;
  const { pgmigrate_success: moved, pgmigrate_fail: failed } = machine.mm.vmstat;
  expect(allocated - freed).toBe(moved);
  if (it.enomemAfter === null) expect(moved + failed).toBe(handedOver);
  else expect(moved + failed).toBeLessThanOrEqual(handedOver);
  for (const [handle, pfn] of driver.pageOf) {
    expect(driver.content(handle)).toBe(contents.get(handle));
    expect(driver.list.has(pfn)).toBe(true);
  }
  mapping.slots.forEach((pfn, index) => {
    const { ptes, pins } = it.lruPages[index]!;
    expect(mapping.content(index)).toBe(lruContents[index]);
    expect(machine.pages.refcount[pfn]).toBe(1 + ptes + pins);
    expect(machine.pages.flags[pfn]! & (PageFlag.LRU | PageFlag.LOCKED)).toBe(PageFlag.LRU);
  });
  // No page was lost: free it all, and memory is as it was.
  for (const handle of [...driver.pageOf.keys()]) machine.run(() => driver.free(handle));
  mapping.slots.forEach((pfn, index) => {
    mapping.drop(index);
    for (let pin = 0; pin < it.lruPages[index]!.pins; pin++) machine.folios.put(pfn);
  });
  expect(machine.mm.freePages()).toBe(machine.freeAtStart);
  expect(machine.audit()).toEqual([]);
}

describe.each(GENERATIONS)('the %s generation', (name) => {
  test('any two migrators, any answers, any order: no page lost, none isolated twice', () => {
    fc.assert(
      fc.property(scene, (it) => play(name, it)),
      { numRuns: 200 },
    );
  });
});
