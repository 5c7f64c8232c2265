import { describe, expect, test } from 'vitest';
import { Gfp, PageFlag, PageOwner } from '../../../../guest/mm/index.ts';
import { PageTables, PteBits } from '../../../../guest/movable/index.ts';
import { MigrateMode } from '../../../../guest/page-migration/index.ts';
import { Errno } from '../../../../shared/index.ts';
import { GENERATIONS, MigrationMachine } from '../page-migration/machine.ts';

const { ASYNC, SYNC } = MigrateMode;
const { PRESENT, ACCESSED, DIRTY, SHIFT } = PteBits;
const ENTRY = (42 << SHIFT) | PRESENT;

describe.each(GENERATIONS)('%s generation:', (generation) => {
  function boot() {
    const machine = new MigrationMachine(generation);
    const tables = new PageTables(machine.kernel, machine.folios, machine.generation);
    const space = tables.newSpace(2048);
    return { machine, tables, space };
  }

  test('one table for 512 pages, and it is no folio', () => {
    const { machine, tables, space } = boot();
    for (const vpn of [0, 511, 512, 2047]) machine.run(() => tables.set(space, vpn, ENTRY));
    expect(tables.counters.nr_page_table_pages).toBe(3);
    for (const pfn of tables.pages()) {
      expect(machine.pages.owner[pfn]).toBe(PageOwner.TABLE);
      expect(machine.pages.hasFlag(pfn, PageFlag.LRU)).toBe(false);
      expect(machine.pages.mapcount[pfn]).toBe(0);
    }
    expect(machine.run(() => tables.get(space, 1024))).toBe(0);
  });

  test('all 512 entries move, with one TLB flush a table', () => {
    const { machine, tables, space } = boot();
    machine.run(function* () {
      for (let vpn = 0; vpn < 512; vpn++) yield* tables.set(space, vpn, (vpn << SHIFT) | PRESENT);
    });
    const old = tables.pages();
    expect(machine.run(() => machine.migrateAll(old, SYNC))).toBe(0);
    expect(tables.pages()).not.toEqual(old);
    const entries = machine.run(function* () {
      const all: number[] = [];
      for (let vpn = 0; vpn < 512; vpn++) all.push(yield* tables.get(space, vpn));
      return all;
    });
    expect(entries).toEqual(Array.from({ length: 512 }, (_, vpn) => (vpn << SHIFT) | PRESENT));
    expect(tables.counters).toMatchObject({ table_migrated: 1, table_tlb_flushes: 1 });
    expect(tables.audit(machine.holds)).toEqual([]);
  });

  test('a walk during the move faults, waits, and sets its bits in the new table', () => {
    const { machine, tables, space } = boot();
    machine.run(() => tables.set(space, 3, ENTRY));
    const [old] = tables.pages();
    machine.spawn(function* () {
      yield* machine.migrateAll([old!], ASYNC);
    });
    const { migrateAttemptNs, tlbFlushNs } = machine.kernel.costs;
    machine.scheduler.run(machine.scheduler.now + migrateAttemptNs + tlbFlushNs / 2, 0);
    let walked = -1;
    machine.spawn(function* () {
      walked = yield* tables.walk(space, 3, true);
    }, 1);
    machine.scheduler.run(machine.scheduler.now + 1, 0);
    expect([walked, tables.counters.table_migrated]).toEqual([-1, 0]);
    machine.settle();
    expect(walked).toBe(ENTRY | ACCESSED | DIRTY);
    expect(machine.run(() => tables.get(space, 3))).toBe(ENTRY | ACCESSED | DIRTY);
    expect(tables.pages()).not.toContain(old);
    expect(tables.audit(machine.holds)).toEqual([]);
  });

  test('a walk finds no entry where there is none', () => {
    const { machine, tables, space } = boot();
    expect(machine.run(() => tables.walk(space, 9, false))).toBe(0);
    machine.run(() => tables.set(space, 8, ENTRY));
    expect(machine.run(() => tables.walk(space, 9, false))).toBe(0);
    expect(machine.run(() => tables.walk(space, 8, false))).toBe(ENTRY | ACCESSED);
  });

  test('without memory for a table the entry is refused', () => {
    const { machine, tables, space } = boot();
    while (machine.mm.alloc(0, Gfp.GFP_ATOMIC) >= 0);
    expect(machine.run(() => tables.set(space, 0, ENTRY))).toBe(Errno.ENOMEM);
    expect(tables.pages()).toEqual([]);
    expect(machine.run(() => tables.get(space, 0))).toBe(0);
  });
});
