import { describe, expect, test } from 'vitest';
import { MappedDriver } from '../../../../guest/movable/index.ts';
import { MigrateMode } from '../../../../guest/page-migration/index.ts';
import { GENERATIONS, MigrationMachine } from '../page-migration/machine.ts';

const PAGES = 4;
const { ASYNC } = MigrateMode;

describe.each(GENERATIONS)('%s generation:', (generation) => {
  function boot() {
    const machine = new MigrationMachine(generation);
    const driver = new MappedDriver(machine.kernel, machine.folios, machine.generation);
    const file = driver.open(PAGES)!;
    const pfns = driver.pfnsOf(file);
    /** Moves the first page, on vCPU 0; not yet at its end when this returns. */
    const beginMove = () => {
      machine.spawn(function* () {
        yield* machine.migrateAll([pfns[0]!], ASYNC);
      });
      const { migrateAttemptNs, tlbFlushNs } = machine.kernel.costs;
      machine.scheduler.run(machine.scheduler.now + migrateAttemptNs + tlbFlushNs / 2, 0);
      expect(driver.counters.mapped_tlb_flushes).toBe(1);
      expect(driver.counters.mapped_migrated).toBe(0);
    };
    return { machine, driver, file, pfns, beginMove };
  }

  test('a store during the move waits for it and goes to the new page', () => {
    const { machine, driver, file, pfns, beginMove } = boot();
    beginMove();
    let isStored = false;
    machine.spawn(function* () {
      isStored = yield* driver.store(file, 0);
    }, 1);
    machine.scheduler.run(machine.scheduler.now + 1, 0);
    expect(isStored).toBe(false);
    machine.settle();
    expect(isStored).toBe(true);
    const [pfn] = driver.pfnsOf(file);
    expect(pfn).not.toBe(pfns[0]);
    expect(machine.ram.tags[pfn!]).not.toBe(0);
    expect(driver.audit(machine.holds)).toEqual([]);
  });

  test('a transfer during the move waits for it, too', () => {
    const { machine, driver, file, beginMove } = boot();
    beginMove();
    machine.run(() => driver.beginDma(file, 0));
    expect(driver.counters.mapped_migrated).toBe(1);
    const [pfn] = driver.pfnsOf(file);
    expect(machine.run(() => machine.migrateAll([pfn!], ASYNC))).toBe(1);
    expect(driver.counters.mapped_dma_busy).toBe(10);
    driver.endDma(file, 0);
    expect(driver.audit(machine.holds)).toEqual([]);
  });

  test('a close during the move frees every page, and whoever waits gets no page', () => {
    const { machine, driver, file, beginMove } = boot();
    beginMove();
    let isStored: boolean | null = null;
    machine.spawn(function* () {
      isStored = yield* driver.store(file, 0);
    }, 1);
    machine.spawn(() => driver.close(file), 1);
    machine.settle();
    expect(isStored).toBe(false);
    expect(machine.run(() => driver.store(file, 0))).toBe(false);
    expect(driver.counters.mapped_pages).toBe(0);
    expect(machine.mm.freePages()).toBe(machine.freeAtStart);
    expect(machine.audit()).toEqual([]);
  });

  test('a close waits for the transfers that are under way', () => {
    const { machine, driver, file, pfns } = boot();
    machine.run(() => driver.beginDma(file, 2));
    machine.spawn(() => driver.close(file));
    machine.settle();
    expect(pfns.map((pfn) => machine.mm.isFree(pfn))).toEqual([true, true, false, false]);
    expect(machine.run(() => driver.beginDma(file, 3))).toBe(false);
    driver.endDma(file, 2);
    machine.settle();
    expect(machine.mm.freePages()).toBe(machine.freeAtStart);
  });
});

test('without memory nothing is opened and nothing kept', () => {
  const machine = new MigrationMachine('list');
  const driver = new MappedDriver(machine.kernel, machine.folios, machine.generation);
  expect(driver.open(machine.mm.pages.ramPages)).toBeNull();
  expect(machine.mm.freePages()).toBe(machine.freeAtStart);
});
