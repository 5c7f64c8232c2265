import { describe, expect, test } from 'vitest';
import { Gfp, GUP_PIN_COUNTING_BIAS, MigrateType, ZoneType } from '../../../../guest/mm/index.ts';
import { Errno, type Pfn } from '../../../../shared/index.ts';
import { Machine } from '../memory-users/machine.ts';

describe('long-term pins', () => {
  test('fault pages in for writing, count 1024 references each, and end with the container', () => {
    const machine = new Machine();
    const process = machine.users.startProcess({ name: 'vm', anonPages: 1000 })!;
    const container = machine.users.container('dev');
    expect(machine.run1(() => container.pinRange(process, 100, 700))).toBe(Errno.OK);
    expect([container.pinnedPages, process.rssPages]).toEqual([700, 700]);
    const { pages } = machine.mm;
    expect(pages.refcount[process.pfnAt(100)]).toBe(1 + GUP_PIN_COUNTING_BIAS);
    expect(pages.maybeDmaPinned(process.pfnAt(799))).toBe(true);
    expect(machine.audit()).toEqual([]);
    machine.users.closeContainer('dev');
    expect(pages.refcount[process.pfnAt(100)]).toBe(1);
    expect(machine.audit()).toEqual([]);
  });

  test('keep pages of a process that has ended', () => {
    const machine = new Machine();
    const process = machine.users.startProcess({ name: 'vm', anonPages: 10 })!;
    machine.run1(() => machine.users.container('dev').pinRange(process, 0, 10));
    machine.users.exit('vm');
    expect(machine.usedPages).toBe(10);
    expect(machine.audit()).toEqual([]);
    machine.users.closeContainer('dev');
    expect(machine.usedPages).toBe(0);
  });

  test('of a page that is shared since a fork are of the process’s own copy', () => {
    const machine = new Machine();
    const process = machine.users.startProcess({ name: 'vm', anonPages: 1 })!;
    machine.run1(() => process.touch(0, true));
    const shared = process.pfnAt(0);
    machine.users.fork('vm', 'child');
    machine.run1(() => machine.users.container('dev').pinRange(process, 0, 1));
    expect(process.pfnAt(0)).not.toBe(shared);
    expect(machine.mm.pages.maybeDmaPinned(shared)).toBe(false);
    expect(machine.audit()).toEqual([]);
  });

  test('of shared memory need no process', () => {
    const machine = new Machine();
    const shmem = machine.users.createSpace({ name: 'ram', kind: 'shmem', sizePages: 600 })!;
    expect(machine.run1(() => machine.users.container('dev').pinRange(shmem, 0, 600))).toBe(
      Errno.OK,
    );
    expect(machine.mm.pages.refcount[shmem.pfnAt(599)]).toBe(1 + GUP_PIN_COUNTING_BIAS);
    expect(machine.audit()).toEqual([]);
  });

  test('of files are refused', () => {
    const machine = new Machine();
    const file = machine.users.createSpace({ name: 'f', kind: 'file', sizePages: 8 })!;
    const process = machine.users.startProcess({ name: 'vm', anonPages: 8 })!;
    process.mmap(file);
    for (const [source, start] of [
      [file, 0],
      [process, 4],
    ] as const) {
      const pin = () => machine.users.container('dev').pinRange(source, start, 8);
      expect(machine.run1(pin)).toBe(Errno.EINVAL);
    }
    expect(machine.audit()).toEqual([]);
  });

  test('pin nothing when memory ends on the way', () => {
    const machine = new Machine();
    const process = machine.users.startProcess({
      name: 'vm',
      anonPages: 2000,
      oomScoreAdj: -1000,
    })!;
    let left = 1500;
    machine.failsNow = () => left-- <= 0;
    const container = machine.users.container('dev');
    expect(machine.run1(() => container.pinRange(process, 0, 2000))).toBe(Errno.ENOMEM);
    expect(container.pinnedPages).toBe(0);
    const references = Array.from({ length: 1500 }, (_, vpn) => process.pfnAt(vpn)).map(
      (pfn) => machine.mm.pages.refcount[pfn],
    );
    expect(new Set(references)).toEqual(new Set([1]));
    expect(machine.audit()).toEqual([]);
  });

  test('end with a container that is closed while they are taken', () => {
    const machine = new Machine();
    const process = machine.users.startProcess({ name: 'vm', anonPages: 600 })!;
    const container = machine.users.container('dev');
    const [outcome] = machine.run(
      () => container.pinRange(process, 0, 600),
      function* () {
        yield { kind: 'cpu', ns: 1 };
        machine.users.closeContainer('dev');
      },
    );
    expect(outcome).toBe(Errno.ENOENT);
    machine.users.exit('vm');
    expect(machine.usedPages).toBe(0);
  });
});

describe('pages where everything must be movable', () => {
  /** A stand-in for page migration: anonymous pages that nobody else maps go elsewhere. */
  function* move(machine: Machine, pfns: readonly Pfn[]) {
    yield { kind: 'sleep', ns: 1000 } as const;
    const process = machine.users.processes.get('vm')!;
    for (const vpn of process.ptes.keys()) {
      if (!pfns.includes(process.pfnAt(vpn))) continue;
      process.dontNeed(vpn, 1);
      process.touchNow(vpn, vpn + 1, true);
    }
    return Errno.OK;
  }

  function inMovableZone(): Machine {
    const machine = new Machine({ ramPages: 8192, movablePages: 4096 });
    machine.users.startProcess({ name: 'vm', anonPages: 8 });
    return machine;
  }

  test('cannot be pinned where nothing can move them', () => {
    const machine = inMovableZone();
    const process = machine.users.processes.get('vm')!;
    const pin = () => machine.users.container('dev').pinRange(process, 0, 8);
    expect(machine.run1(pin)).toBe(Errno.ENOMEM);
    expect(machine.mm.zoneOf(process.pfnAt(0)).index).toBe(ZoneType.MOVABLE);
    expect(machine.audit()).toEqual([]);
  });

  test('leave ZONE_MOVABLE first', () => {
    const machine = inMovableZone();
    const process = machine.users.processes.get('vm')!;
    machine.run1(() => process.touchRange(0, 8, true));
    machine.users.gup.migrateForPin = function* (pfns) {
      expect(pfns).toHaveLength(8);
      // From now on only lower zones have memory.
      const movable = machine.mm.zones[ZoneType.MOVABLE]!;
      while (movable.freePages > movable.watermarkPages[0]!) {
        if (machine.mm.alloc(0, Gfp.GFP_HIGHUSER_MOVABLE & ~Gfp.__GFP_RECLAIM) < 0) break;
      }
      return yield* move(machine, pfns);
    };
    const pin = () => machine.users.container('dev').pinRange(process, 0, 8);
    expect(machine.run1(pin)).toBe(Errno.OK);
    for (let vpn = 0; vpn < 8; vpn++) {
      expect(machine.mm.zoneOf(process.pfnAt(vpn)).index).toBeLessThan(ZoneType.MOVABLE);
    }
  });

  test.each([MigrateType.CMA, MigrateType.ISOLATE])(
    'are those of pageblocks of type %i, too',
    (type) => {
      const machine = new Machine();
      const process = machine.users.startProcess({ name: 'vm', anonPages: 1 })!;
      machine.run1(() => process.touch(0, true));
      machine.mm.setMigratetype(process.pfnAt(0) >> 9, type);
      let asked = 0;
      machine.users.gup.migrateForPin = function* () {
        asked++;
        yield { kind: 'sleep', ns: 1000 };
        return Errno.OK;
      };
      const pin = () => machine.users.container('dev').pinRange(process, 0, 1);
      // It says that it has moved the page each time, and has not.
      expect(machine.run1(pin)).toBe(Errno.EAGAIN);
      expect(asked).toBe(10);
      expect(machine.audit()).toEqual([]);
    },
  );
});

test('a short reference keeps a page from being reclaimed, and is accounted for', () => {
  const machine = new Machine();
  const file = machine.users.createSpace({ name: 'f', kind: 'file', sizePages: 4 })!;
  machine.run1(() => file.read(0, 4));
  const pfn = file.pfnAt(2);
  machine.users.gup.get(pfn);
  for (let i = 0; i < 8; i++) machine.users.vmscan.tryToFreeNow(ZoneType.MOVABLE);
  expect(file.nrPages).toBe(1);
  expect(machine.audit()).toEqual([]);
  machine.users.gup.put(pfn);
  machine.users.vmscan.tryToFreeNow(ZoneType.MOVABLE);
  expect(machine.usedPages).toBe(0);
});
