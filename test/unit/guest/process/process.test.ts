import { describe, expect, test } from 'vitest';
import { LruList } from '../../../../guest/folio/index.ts';
import { PageOwner } from '../../../../guest/mm/index.ts';
import type { Process } from '../../../../guest/process/process.ts';
import { Errno } from '../../../../shared/index.ts';
import { Machine } from '../memory-users/machine.ts';

function machineWith(anonPages: number): { machine: Machine; process: Process } {
  const machine = new Machine();
  const process = machine.users.startProcess({ name: 'init', anonPages })!;
  return { machine, process };
}

function fork(machine: Machine, parent: string, name: string): Process {
  const child = machine.users.fork(parent, name);
  if (typeof child === 'number') throw new Error(`fork returned ${child}`);
  return child;
}

const tagAt = (machine: Machine, process: Process, vpn: number) =>
  machine.ram.tags[process.pfnAt(vpn)];

describe('faults', () => {
  test('a first touch gives a zeroed page, mapped once, on the inactive list, with one reference', () => {
    const { machine, process } = machineWith(8);
    expect(process.access(3, false)).toBe(false);
    expect(machine.run1(() => process.touch(3, false))).toBe(Errno.OK);
    const pfn = process.pfnAt(3);
    const { pages } = machine.mm;
    expect(machine.ram.tags[pfn]).toBe(0);
    expect([pages.refcount[pfn], pages.mapcount[pfn], pages.owner[pfn]]).toEqual([
      1,
      1,
      PageOwner.ANON,
    ]);
    expect(machine.folios.lruvec.listOf(pfn)).toBe(LruList.INACTIVE_ANON);
    expect(machine.mm.vmstat.pgfault).toBe(1);
    expect(machine.audit()).toEqual([]);
  });

  test('a range is touched as page by page, past what is there already', () => {
    const { machine, process } = machineWith(1000);
    machine.run1(() => process.touch(500, true));
    const tag = tagAt(machine, process, 500);
    expect(machine.run1(() => process.touchRange(100, 800, false))).toBe(Errno.OK);
    expect(process.rssPages).toBe(800);
    expect(tagAt(machine, process, 500)).toBe(tag);
    expect(machine.audit()).toEqual([]);
  });

  test('where nothing is mapped, there is an error', () => {
    const { machine, process } = machineWith(8);
    expect(machine.run1(() => process.touch(8, true))).toBe(Errno.EINVAL);
  });

  test('two threads that fault on one page get the same page', () => {
    const { machine, process } = machineWith(8);
    let failures = 1;
    // The first goes the long way, and the second is there before it.
    machine.failsNow = () => failures-- > 0;
    const touch = () => process.touch(0, false);
    expect(machine.run(touch, touch)).toEqual([Errno.OK, Errno.OK]);
    expect(machine.usedPages).toBe(1);
    expect(machine.audit()).toEqual([]);
  });

  test('a fault on a migration entry waits until the page has moved, and its write goes there', () => {
    const { machine, process } = machineWith(4);
    const { pages, locks, lruvec, mappings } = machine.folios;
    machine.run1(() => process.touch(2, true));
    const src = process.pfnAt(2);
    const mapping = mappings.of(src)!;
    lruvec.isolate(src);
    locks.tryLock(src);
    mapping.unmapForMigration(src, 2);
    expect([pages.mapcount[src], pages.refcount[src], process.pfnAt(2)]).toEqual([0, 1, -1]);
    expect(machine.audit()).toEqual([]);
    const dst = machine.mm.alloc(0, 0);
    machine.run(
      () => process.touch(2, true),
      function* () {
        yield { kind: 'sleep', ns: 1e6 };
        expect(process.pfnAt(2)).toBe(-1);
        machine.ram.copy(src, dst);
        pages.setOwner(dst, PageOwner.ANON);
        pages.mapping[dst] = pages.mapping[src]!;
        pages.mapping[src] = 0;
        mapping.removeMigrationPtes(src, dst, 2);
        lruvec.uncountIsolated(src);
        lruvec.add(dst);
        locks.unlock(src);
        machine.folios.put(src);
        machine.folios.put(dst);
      },
    );
    expect(process.pfnAt(2)).toBe(dst);
    expect(machine.ram.tags[dst]).not.toBe(machine.ram.tags[src]);
    expect(machine.audit()).toEqual([]);
  });
});

describe('fork', () => {
  test('shares pages until one of the two writes, which then has a copy', () => {
    const { machine, process } = machineWith(4);
    machine.run1(() => process.touchRange(0, 4, true));
    const child = fork(machine, 'init', 'child');
    expect(machine.usedPages).toBe(4);
    const before = tagAt(machine, process, 1);
    expect(machine.run1(() => child.touch(1, true))).toBe(Errno.OK);
    expect(machine.usedPages).toBe(5);
    expect(tagAt(machine, process, 1)).toBe(before);
    expect(tagAt(machine, child, 1)).not.toBe(before);
    expect(child.pfnAt(0)).toBe(process.pfnAt(0));
    expect(machine.audit()).toEqual([]);
  });

  test('the last one that has a page writes to it without a copy', () => {
    const { machine, process } = machineWith(4);
    machine.run1(() => process.touchRange(0, 4, true));
    const pfn = process.pfnAt(0);
    fork(machine, 'init', 'child');
    machine.users.exit('child');
    machine.run1(() => process.touch(0, true));
    expect(process.pfnAt(0)).toBe(pfn);
    expect(machine.usedPages).toBe(4);
  });

  test('a page to which somebody else still refers is copied, although only one maps it', () => {
    const { machine, process } = machineWith(1);
    machine.run1(() => process.touch(0, true));
    const pfn = process.pfnAt(0);
    fork(machine, 'init', 'child');
    machine.users.gup.get(pfn);
    machine.users.exit('child');
    machine.run1(() => process.touch(0, true));
    expect(process.pfnAt(0)).not.toBe(pfn);
    expect(machine.audit()).toEqual([]);
    machine.users.gup.put(pfn);
    expect(machine.usedPages).toBe(1);
  });

  test('pages that a device uses stay with the parent', () => {
    const { machine, process } = machineWith(4);
    machine.run1(() => machine.users.container('dev').pinRange(process, 0, 2));
    const pfn = process.pfnAt(0);
    const child = fork(machine, 'init', 'child');
    machine.run1(() => process.touch(0, true));
    expect(process.pfnAt(0)).toBe(pfn);
    expect(child.pfnAt(0)).not.toBe(pfn);
    expect(machine.audit()).toEqual([]);
  });

  test('without memory for such a copy there is no child and nothing has changed', () => {
    const { machine, process } = machineWith(4);
    machine.run1(() => process.touchRange(0, 4, true));
    machine.run1(() => machine.users.container('dev').pinRange(process, 2, 2));
    let left = 1;
    machine.failsNow = () => left-- <= 0;
    expect(machine.users.fork('init', 'child')).toBe(Errno.ENOMEM);
    machine.failsNow = () => false;
    expect(machine.usedPages).toBe(4);
    expect(machine.audit()).toEqual([]);
  });

  test('a family has 255 members at most, since a mapcount is a byte', () => {
    const { machine, process } = machineWith(1);
    machine.run1(() => process.touch(0, true));
    for (let i = 1; i < 255; i++) fork(machine, 'init', `child${i}`);
    expect(machine.mm.pages.mapcount[process.pfnAt(0)]).toBe(255);
    expect(machine.users.fork('init', 'one too many')).toBe(Errno.EAGAIN);
    expect(machine.audit()).toEqual([]);
  });
});

describe('exit', () => {
  test('frees what nobody else uses', () => {
    const { machine, process } = machineWith(64);
    machine.run1(() => process.touchRange(0, 64, true));
    machine.users.exit('init');
    expect(machine.usedPages).toBe(0);
    expect(machine.audit()).toEqual([]);
  });

  test('a page that is isolated meanwhile survives, as nobody’s, until it is put back', () => {
    const { machine, process } = machineWith(4);
    machine.run1(() => process.touchRange(0, 4, true));
    const pfn = process.pfnAt(1);
    machine.folios.lruvec.isolate(pfn);
    machine.users.exit('init');
    expect(machine.usedPages).toBe(1);
    expect(machine.folios.mappings.of(pfn)).toBeUndefined();
    expect(machine.audit()).toEqual([]);
    machine.folios.putbackLru(pfn);
    expect(machine.usedPages).toBe(0);
    expect(machine.folios.lruvec.isolatedAnonPages).toBe(0);
  });

  test('a page that is moving stays its family’s until the last member is gone', () => {
    const { machine, process } = machineWith(1);
    machine.run1(() => process.touch(0, true));
    const pfn = process.pfnAt(0);
    fork(machine, 'init', 'child');
    const { lruvec, locks, mappings } = machine.folios;
    lruvec.isolate(pfn);
    locks.tryLock(pfn);
    mappings.of(pfn)!.unmapForMigration(pfn, 0);
    machine.users.exit('init');
    expect(mappings.of(pfn)).toBeDefined();
    machine.users.exit('child');
    expect(mappings.of(pfn)).toBeUndefined();
    locks.unlock(pfn);
    machine.folios.putbackLru(pfn);
    expect(machine.usedPages).toBe(0);
  });

  test('whoever is killed while it waits for memory gets none', () => {
    const { machine, process } = machineWith(4);
    machine.failsNow = () => process.isAlive;
    machine.users.oom.registerOomNotifier(1, function* () {
      yield { kind: 'sleep', ns: 1000 };
      return 1;
    });
    const results = machine.run(
      () => process.touch(0, true),
      function* () {
        yield { kind: 'sleep', ns: 1e9 };
        machine.users.exit('init');
        return Errno.OK;
      },
    );
    expect(results[0]).toBe(Errno.EINTR);
    expect(machine.usedPages).toBe(0);
    expect(machine.audit()).toEqual([]);
  });
});

test('MADV_DONTNEED frees pages, and the next touch finds zeroes', () => {
  const { machine, process } = machineWith(8);
  machine.run1(() => process.touchRange(0, 8, true));
  process.dontNeed(2, 4);
  expect([process.rssPages, machine.usedPages]).toEqual([4, 4]);
  machine.run1(() => process.touch(2, false));
  expect(tagAt(machine, process, 2)).toBe(0);
  expect(machine.audit()).toEqual([]);
});
