import { describe, expect, test } from 'vitest';
import { LruList } from '../../../../guest/folio/index.ts';
import { PageFlag, PageOwner } from '../../../../guest/mm/index.ts';
import type { AddressSpace } from '../../../../guest/page-cache/page-cache.ts';
import { Errno } from '../../../../shared/index.ts';
import { Machine } from '../memory-users/machine.ts';

function machineWith(
  kind: 'file' | 'shmem',
  sizePages = 64,
): { machine: Machine; space: AddressSpace } {
  const machine = new Machine();
  const space = machine.users.createSpace({ name: kind, kind, sizePages })!;
  return { machine, space };
}

const tags = (machine: Machine, space: AddressSpace) =>
  Array.from({ length: space.sizePages }, (_, index) => machine.ram.tags[space.pfnAt(index)]);

const shrinkAll = (machine: Machine) => {
  for (let i = 0; i < 64; i++) machine.users.vmscan.tryToFreeNow(3);
};

describe('a file', () => {
  test('is read by readahead, and stays in the cache with one reference a page', () => {
    const { machine, space } = machineWith('file');
    expect(machine.run1(() => space.read(0, 40))).toBe(Errno.OK);
    expect([space.nrPages, machine.mm.vmstat.nr_file_pages]).toEqual([40, 40]);
    const pfn = space.pfnAt(0);
    expect(machine.mm.pages.owner[pfn]).toBe(PageOwner.FILE);
    expect(machine.mm.pages.refcount[pfn]).toBe(1);
    expect(machine.folios.lruvec.nrPages[LruList.INACTIVE_FILE]).toBe(40);
    expect(machine.audit()).toEqual([]);
  });

  test('holds after an eviction what was read or written before', () => {
    const { machine, space } = machineWith('file');
    machine.run1(() => space.read(0, 64));
    machine.run1(() => space.write(10, 5));
    const before = tags(machine, space);
    machine.run1(() => space.sync());
    shrinkAll(machine);
    expect([space.nrPages, machine.usedPages]).toEqual([0, 0]);
    machine.run1(() => space.read(0, 64));
    expect(tags(machine, space)).toEqual(before);
    expect(machine.audit()).toEqual([]);
  });

  test('two readers of one page wait for one read', () => {
    const { machine, space } = machineWith('file');
    machine.run(
      () => space.read(0, 32),
      () => space.read(0, 32),
    );
    expect(machine.mm.vmstat.pgalloc_dma + machine.mm.vmstat.pgalloc_dma32).toBe(32);
    expect(machine.audit()).toEqual([]);
  });

  test('is dirty when it was written, until it is synced', () => {
    const { machine, space } = machineWith('file');
    machine.run1(() => space.write(0, 10));
    expect(machine.mm.vmstat.nr_dirty).toBe(10);
    const endNs = machine.run1(function* () {
      const startNs = machine.scheduler.now;
      yield* space.sync();
      return machine.scheduler.now - startNs;
    });
    expect(endNs).toBeGreaterThanOrEqual(machine.users.writeback.requestNs(10));
    expect([machine.mm.vmstat.nr_dirty, machine.mm.vmstat.nr_writeback]).toEqual([0, 0]);
    expect(machine.audit()).toEqual([]);
  });

  test('is neither evicted while it is dirty nor while it is being written', () => {
    const { machine, space } = machineWith('file');
    machine.run1(() => space.write(0, 10));
    shrinkAll(machine);
    expect(space.nrPages).toBe(10);
    const sync = space.sync();
    machine.run(
      () => sync,
      function* () {
        yield { kind: 'sleep', ns: 1000 };
        expect(machine.mm.vmstat.nr_writeback).toBe(10);
        shrinkAll(machine);
        expect(space.nrPages).toBe(10);
      },
    );
    shrinkAll(machine);
    expect(space.nrPages).toBe(0);
  });

  test('a write during writeback makes the page dirty again, and no content is lost', () => {
    const { machine, space } = machineWith('file', 1);
    machine.run1(() => space.write(0, 1));
    machine.run(
      () => space.sync(),
      function* () {
        yield { kind: 'sleep', ns: 1000 };
        expect(machine.mm.pages.hasFlag(space.pfnAt(0), PageFlag.WRITEBACK)).toBe(true);
        yield* space.write(0, 1);
      },
    );
    const last = tags(machine, space);
    expect(machine.mm.vmstat.nr_dirty).toBe(1);
    expect(space.storedTag(0)).not.toBe(last[0]);
    machine.run1(() => space.sync());
    expect(space.storedTag(0)).toBe(last[0]);
  });

  test('truncation drops dirty pages, those being written after they were', () => {
    const { machine, space } = machineWith('file');
    machine.run1(() => space.write(0, 20));
    machine.run(
      () => space.sync(0, 10),
      () => space.truncate(),
    );
    expect([space.nrPages, machine.usedPages, machine.mm.vmstat.nr_dirty]).toEqual([0, 0, 0]);
    expect(machine.audit()).toEqual([]);
  });

  test.each([PageFlag.DIRTY, PageFlag.WRITEBACK])('is not dropped with flag %i', (flag) => {
    const { machine, space } = machineWith('file', 1);
    const pfn = machine.run1(() => space.getPage(0));
    machine.mm.pages.setFlag(pfn, flag);
    expect(space.tryToDrop(pfn, 0)).toBe(false);
    machine.mm.pages.clearFlag(pfn, flag);
    expect(space.tryToDrop(pfn, 0)).toBe(true);
    expect([space.nrPages, machine.mm.pages.refcount[pfn]]).toEqual([0, 1]);
  });

  test('a truncated page that somebody holds is nobody’s', () => {
    const { machine, space } = machineWith('file');
    const pfn = machine.run1(() => space.getPage(3));
    machine.run1(() => space.truncate());
    expect([machine.usedPages, machine.mm.pages.mapping[pfn]]).toEqual([1, 0]);
    machine.folios.put(pfn);
    expect(machine.usedPages).toBe(0);
  });

  test('a failed allocation leaves nothing behind', () => {
    const { machine, space } = machineWith('file');
    machine.failsNow = () => true;
    expect(machine.run1(() => space.read(0, 64))).toBe(Errno.ENOMEM);
    expect(machine.run1(() => space.write(0, 64))).toBe(Errno.ENOMEM);
    expect([space.nrPages, machine.usedPages]).toEqual([0, 0]);
    expect(machine.audit()).toEqual([]);
  });
});

describe('mapped into processes', () => {
  test('pages are shared: what one writes the other sees', () => {
    const { machine, space } = machineWith('shmem');
    const a = machine.users.startProcess({ name: 'a', anonPages: 2 })!;
    const b = machine.users.startProcess({ name: 'b', anonPages: 0 })!;
    const [atA, atB] = [a.mmap(space), b.mmap(space, 10, 20)];
    expect([atA, atB]).toEqual([2, 0]);
    machine.run1(() => a.touchRange(atA, 64, true));
    machine.run1(() => b.touch(atB + 5, true));
    expect(b.pfnAt(atB + 5)).toBe(a.pfnAt(atA + 15));
    expect(machine.mm.pages.mapcount[space.pfnAt(15)]).toBe(2);
    expect(machine.mm.pages.refcount[space.pfnAt(15)]).toBe(3);
    expect(machine.mm.vmstat.nr_shmem).toBe(64);
    expect(machine.audit()).toEqual([]);
    expect(machine.run1(() => machine.users.removeSpace('shmem'))).toBe(Errno.EBUSY);
    machine.users.exit('a');
    expect(b.munmap(atB)).toBe(Errno.OK);
    expect(machine.run1(() => machine.users.removeSpace('shmem'))).toBe(Errno.OK);
    expect(machine.usedPages).toBe(0);
  });

  test('a write through a mapping makes a file’s page dirty', () => {
    const { machine, space } = machineWith('file');
    const process = machine.users.startProcess({ name: 'a', anonPages: 0 })!;
    process.mmap(space);
    machine.run1(() => process.touch(3, true));
    expect([machine.mm.vmstat.nr_dirty, machine.mm.vmstat.pgmajfault]).toEqual([1, 1]);
    machine.run1(() => space.sync());
    expect(process.access(3, true)).toBe(true);
    expect(machine.mm.vmstat.nr_dirty).toBe(1);
    expect(machine.audit()).toEqual([]);
  });

  test('reclaim unmaps what was not used since it last looked', () => {
    const { machine, space } = machineWith('file');
    const process = machine.users.startProcess({ name: 'a', anonPages: 0 })!;
    process.mmap(space);
    machine.run1(() => process.touchRange(0, 64, false));
    shrinkAll(machine);
    expect([space.nrPages, process.rssPages]).toEqual([0, 0]);
    expect(machine.run1(() => process.touch(0, false))).toBe(Errno.OK);
    expect(machine.audit()).toEqual([]);
  });

  test('fork maps it again, and a file has 255 ranges at most', () => {
    const { machine, space } = machineWith('shmem', 1);
    const process = machine.users.startProcess({ name: 'a', anonPages: 0 })!;
    process.mmap(space);
    machine.run1(() => process.touch(0, true));
    const child = machine.users.fork('a', 'b');
    if (typeof child === 'number') throw new Error('fork failed');
    machine.run1(() => child.touch(0, false));
    expect(child.pfnAt(0)).toBe(process.pfnAt(0));
    for (let i = 2; i < 255; i++) expect(process.mmap(space)).toBeGreaterThan(0);
    expect(process.mmap(space)).toBe(Errno.EAGAIN);
    expect(machine.users.fork('a', 'c')).toBe(Errno.EAGAIN);
    expect(machine.audit()).toEqual([]);
  });

  test('reclaim leaves shared memory alone, since there is no swap', () => {
    const { machine, space } = machineWith('shmem');
    const process = machine.users.startProcess({ name: 'a', anonPages: 0 })!;
    process.mmap(space);
    machine.run1(() => process.touchRange(0, 64, false));
    shrinkAll(machine);
    expect([space.nrPages, machine.mm.vmstat.pgscan_direct]).toEqual([64, 0]);
  });
});
