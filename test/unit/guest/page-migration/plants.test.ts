import { describe, expect, test } from 'vitest';
import { MigrateMode } from '../../../../guest/page-migration/index.ts';
import type { Plants } from '../../../../shared/index.ts';
import { Interleaver } from './interleaver.ts';
import { InvariantChecker } from './invariants.ts';
import { GENERATIONS, type GenerationName, MigrationMachine } from './machine.ts';
import { type Answer, ScriptedDriver } from './scripted-driver.ts';

const { SYNC } = MigrateMode;

function setUp(name: GenerationName, plants: Partial<Plants>, pageCount = 1) {
  const machine = new MigrationMachine(name, { plants, isExplored: true });
  const driver = new ScriptedDriver(machine);
  const handles = Array.from({ length: pageCount }, () => driver.add(machine.allocate()));
  const pfns = handles.map((handle) => driver.pageOf.get(handle)!);
  return { machine, driver, handles, pfns, checker: new InvariantChecker(machine, driver) };
}

/** What goes wrong in a run, an assertion included; empty if nothing does. */
const SCENES: Record<string, (name: GenerationName, plants: Partial<Plants>) => string[]> = {
  hwpoisonOnFailure: (name, plants) => {
    const { machine, driver, pfns, checker } = setUp(name, plants);
    driver.script.set(pfns[0]!, new Array<Answer>(20).fill('EAGAIN'));
    machine.run(() => machine.memoryFailure.softOfflinePage(pfns[0]!));
    checker.checkEnd();
    const { poisonedPages } = machine.folios;
    if (poisonedPages !== machine.memoryFailure.counters.soft_offline) {
      checker.violations.push(`${poisonedPages} poisoned pages`);
    }
    return checker.violations;
  },
  putbackAfterSuccess: (name, plants) => {
    const { machine, driver, handles, pfns, checker } = setUp(name, plants);
    machine.run(() => machine.migrateAll(pfns, SYNC));
    checker.checkEnd();
    if (driver.list.size !== handles.length) checker.violations.push('the driver has two pages');
    if (driver.calls.some((call) => call.startsWith('putback'))) {
      checker.violations.push('put back after success');
    }
    return checker.violations;
  },
  isolateWithoutPageLock: (name, plants) => {
    const { machine, pfns, checker } = setUp(name, plants);
    const threads = new Interleaver();
    for (let i = 0; i < 2; i++) {
      threads.add(function* () {
        yield* machine.migrateAll(pfns, SYNC);
      });
    }
    // In turns.
    let turn = 0;
    threads.run((count) => turn++ % count, checker.check);
    checker.checkEnd();
    return checker.violations;
  },
  driverClearsMovableOfIsolated: (name, plants) => {
    const { machine, driver, handles, pfns, checker } = setUp(name, plants);
    machine.run(function* () {
      const isolated = yield* machine.isolateAll(pfns, SYNC);
      yield* driver.free(handles[0]!);
      yield* machine.migration.putbackAll(isolated);
    });
    checker.checkEnd();
    return checker.violations;
  },
  leakOnEnomem: (name, plants) => {
    const { machine, pfns, checker } = setUp(name, plants, 8);
    machine.target.leftUntilEnomem = 3;
    machine.run(() => machine.migrateAll(pfns, SYNC));
    checker.checkEnd();
    return checker.violations;
  },
};

function violationsOf(plant: string, name: GenerationName, isOn: boolean): string[] {
  try {
    return SCENES[plant]!(name, { [plant]: isOn });
  } catch (error) {
    return [(error as Error).message];
  }
}

describe.each(GENERATIONS)('in the %s generation', (name) => {
  test.each(Object.keys(SCENES))('%s makes a difference', (plant) => {
    expect(violationsOf(plant, name, false)).toEqual([]);
    expect(violationsOf(plant, name, true)).not.toEqual([]);
  });
});
