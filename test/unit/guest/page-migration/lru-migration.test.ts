import { describe, expect, test } from 'vitest';
import { LruList } from '../../../../guest/folio/index.ts';
import { PageFlag, PageOwner } from '../../../../guest/mm/index.ts';
import { MigrateMode } from '../../../../guest/page-migration/index.ts';
import { DEFAULT_COSTS, Errno } from '../../../../shared/index.ts';
import { GENERATIONS, MigrationMachine } from './machine.ts';
import { TestMapping } from './test-mapping.ts';

const { ASYNC, SYNC } = MigrateMode;

describe.each(GENERATIONS)('LRU pages in the shape of the %s generation', (name) => {
  function setUp(cacheReferences: 0 | 1, pteCount: number, order = 0) {
    const machine = new MigrationMachine(name);
    const mapping = new TestMapping(machine, cacheReferences);
    const pfn = machine.allocate(order);
    const index = mapping.add(pfn, pteCount);
    const migrate = (mode: MigrateMode) => machine.run(() => machine.migrateAll([pfn], mode));
    return { machine, mapping, pfn, index, migrate, pages: machine.pages };
  }
  type SetUp = ReturnType<typeof setUp>;

  /** Nothing about the page has changed, and no other is in use. */
  function expectUnchanged({ machine, mapping, pfn, index }: SetUp, references: number) {
    expect(mapping.slots[index]).toBe(pfn);
    expect(machine.pages.refcount[pfn]).toBe(references);
    expect(machine.pages.hasFlag(pfn, PageFlag.LRU)).toBe(true);
    expect(machine.pages.hasFlag(pfn, PageFlag.LOCKED)).toBe(false);
    expect(mapping.migrationPtes[index]).toBe(0);
    expect(machine.mm.freePages()).toBe(machine.freeAtStart - 1);
    expect(machine.audit()).toEqual([]);
  }

  test.each([
    ['anonymous, mapped once', 0, 1],
    ['anonymous, mapped by a family', 0, 5],
    ['page cache, not mapped', 1, 0],
    ['page cache, mapped', 1, 3],
  ] as const)(
    '%s: content, PTEs, references and list place move',
    (_what, cacheReferences, ptes) => {
      const { machine, mapping, pfn, index, migrate, pages } = setUp(cacheReferences, ptes);
      const flags = PageFlag.DIRTY | PageFlag.REFERENCED;
      pages.setFlag(pfn, flags);
      const content = mapping.content(index);
      expect(migrate(ASYNC)).toBe(0);
      const dst = mapping.slots[index]!;
      expect(dst).not.toBe(pfn);
      expect(mapping.content(index)).toBe(content);
      expect(pages.flags[dst]).toBe(PageFlag.ALLOCATED | PageFlag.LRU | flags);
      expect([pages.refcount[dst], pages.mapcount[dst]]).toEqual([cacheReferences + ptes, ptes]);
      expect(pages.owner[dst]).toBe(cacheReferences === 1 ? PageOwner.FILE : PageOwner.ANON);
      expect([mapping.ptes[index], mapping.migrationPtes[index]]).toEqual([ptes, 0]);
      expect(machine.mm.isFree(pfn)).toBe(true);
      expect(machine.mm.vmstat).toMatchObject({ pgmigrate_success: 1, pgmigrate_fail: 0 });
      expect(machine.audit()).toEqual([]);
    },
  );

  test('an active page stays active, and the list counts follow', () => {
    const { machine, mapping, pfn, migrate, pages } = setUp(1, 0);
    machine.folios.lruvec.remove(pfn);
    pages.setFlag(pfn, PageFlag.ACTIVE);
    machine.folios.lruvec.add(pfn);
    migrate(SYNC);
    expect(machine.folios.lruvec.nrPages[LruList.ACTIVE_FILE]).toBe(1);
    expect(machine.folios.lruvec.oldest(LruList.ACTIVE_FILE)).toBe(mapping.slots[0]);
  });

  test('isolation counts NR_ISOLATED and takes a reference, putback undoes both', () => {
    const { machine, pfn, pages } = setUp(0, 1);
    machine.run(() => machine.migration.isolate(pfn, SYNC));
    expect(machine.folios.lruvec.isolatedAnonPages).toBe(1);
    expect(pages.refcount[pfn]).toBe(2);
    expect(machine.run(() => machine.migration.isolate(pfn, SYNC))).toBe(false);
    machine.run(() => machine.migration.putback(pfn));
    expect(machine.folios.lruvec.isolatedAnonPages).toBe(0);
    expect(pages.refcount[pfn]).toBe(1);
  });

  /** Undone in the unmap phase, a target is allocated again in each pass. */
  test.each<[what: string, targets: number, extra: number, obstruct: (it: SetUp) => void]>([
    ['an extra reference (pinned)', 1, 1, (it) => void it.pages.tryGet(it.pfn)],
    [
      'a PTE that cannot be unmapped',
      10,
      0,
      (it) => void Object.assign(it.mapping, { stubborn: 1 }),
    ],
    ['a page that is locked', 10, 0, (it) => void it.machine.folios.locks.tryLock(it.pfn)],
  ])(
    'ASYNC, %s: EAGAIN in ten passes, %i targets, all as it was',
    (_what, targets, extra, obstruct) => {
      const it = setUp(1, 2);
      obstruct(it);
      const isolated = it.machine.run(() => it.machine.isolateAll([it.pfn], ASYNC));
      expect(
        it.machine.run(() => it.machine.migration.migrate(isolated, it.machine.request(ASYNC))),
      ).toBe(1);
      expect(it.machine.target.allocated).toBe(targets);
      expect(it.machine.target.freed).toBe(targets);
      it.machine.run(() => it.machine.migration.putbackAll(isolated));
      it.pages.clearFlag(it.pfn, PageFlag.LOCKED);
      expectUnchanged(it, 3 + extra);
    },
  );

  test.each([
    ['ASYNC', 1],
    ['SYNC_LIGHT', 1],
    ['SYNC', 1],
  ] as const)('dirty without an operation to move it is EBUSY (%s)', (mode, result) => {
    const it = setUp(1, 1);
    it.mapping.migratesDirty = false;
    it.pages.setFlag(it.pfn, PageFlag.DIRTY);
    expect(it.migrate(MigrateMode[mode])).toBe(result);
    // Once in the asynchronous part and once after it.
    expect(it.machine.target.allocated).toBe(mode === 'ASYNC' ? 1 : 2);
    expectUnchanged(it, 2);
  });

  test.each([
    ['ASYNC', 1],
    ['SYNC_LIGHT', 1],
    ['SYNC', 0],
  ] as const)('a page under writeback: only SYNC waits (%s: %i)', (mode, result) => {
    const { machine, mapping, pfn, pages, migrate } = setUp(1, 1);
    pages.setFlag(pfn, PageFlag.WRITEBACK);
    machine.spawn(function* () {
      yield { kind: 'sleep', ns: 5_000_000 };
      machine.folios.locks.endWriteback(pfn);
    }, 1);
    expect(migrate(MigrateMode[mode])).toBe(result);
    expect(mapping.slots[0] === pfn).toBe(result === 1);
    expect(machine.audit()).toEqual([]);
  });

  test.each([
    ['ASYNC', false, 1],
    ['SYNC_LIGHT', false, 0],
    ['SYNC', false, 0],
    ['SYNC', true, 1],
  ] as const)('a locked page: %s, PF_MEMALLOC %s gives %i', (mode, isMemalloc, result) => {
    const { machine, pfn } = setUp(0, 1);
    machine.folios.locks.tryLock(pfn);
    machine.spawn(function* () {
      yield { kind: 'sleep', ns: 5_000_000 };
      machine.folios.locks.unlock(pfn);
    }, 1);
    const outcome = machine.run(() => machine.migrateAll([pfn], MigrateMode[mode], { isMemalloc }));
    expect(outcome).toBe(result);
    expect(machine.audit()).toEqual([]);
  });

  test('while it sleeps for one page it holds no lock of another', () => {
    const { machine, mapping, pfn } = setUp(0, 1);
    const others = Array.from({ length: 5 }, () => machine.allocate());
    for (const other of others) mapping.add(other, 1);
    for (const other of others) machine.pages.tryGet(other);
    machine.folios.locks.tryLock(pfn);
    const locked: number[] = [];
    machine.spawn(function* () {
      yield { kind: 'sleep', ns: 5_000_000 };
      locked.push(...others.filter((other) => machine.folios.locks.isLocked(other)));
      machine.folios.locks.unlock(pfn);
    }, 1);
    expect(machine.run(() => machine.migrateAll([...others, pfn], SYNC))).toBe(5);
    expect(locked).toEqual([]);
  });

  test.each([
    ['page cache', 1, 0],
    ['anonymous', 0, 2],
  ] as const)(
    '%s that was freed while isolated is done without a target',
    (_what, cacheReferences, ptes) => {
      const { machine, mapping, pfn, index } = setUp(cacheReferences, ptes);
      const isolated = machine.run(() => machine.isolateAll([pfn], ASYNC));
      mapping.drop(index);
      expect(machine.run(() => machine.migration.migrate(isolated, machine.request(ASYNC)))).toBe(
        0,
      );
      machine.run(() => machine.migration.putbackAll(isolated));
      expect(machine.mm.freePages()).toBe(machine.freeAtStart);
      expect(machine.target.allocated).toBe(machine.target.freed);
      expect(machine.mm.vmstat.pgmigrate_success).toBe(1);
      expect(machine.audit()).toEqual([]);
    },
  );

  test('a page that was freed while isolated stays with memory failure, with one reference', () => {
    const { machine, mapping, pfn, index } = setUp(1, 0);
    machine.run(function* () {
      const isolated = yield* machine.isolateAll([pfn], SYNC);
      mapping.drop(index);
      const request = machine.request(SYNC, { reason: 'memory_failure' });
      expect(yield* machine.migration.migrate(isolated, request)).toBe(0);
      yield* machine.migration.putbackAll(isolated);
    });
    expect(machine.mm.isFree(pfn)).toBe(false);
    expect(machine.pages.refcount[pfn]).toBe(1);
    expect(machine.audit()).toEqual([]);
  });

  test('a page that left its object while somebody else has a reference is EAGAIN', () => {
    const { machine, mapping, pfn, index } = setUp(1, 0);
    const isolated = machine.run(() => machine.isolateAll([pfn], ASYNC));
    machine.pages.tryGet(pfn);
    mapping.drop(index);
    expect(machine.run(() => machine.migration.migrate(isolated, machine.request(ASYNC)))).toBe(1);
    // Found in the unmap phase: each pass allocates a target.
    expect(machine.target.allocated).toBe(10);
    machine.run(() => machine.migration.putbackAll(isolated));
    expect(machine.pages.refcount[pfn]).toBe(1);
    machine.folios.put(pfn);
    expect(machine.mm.freePages()).toBe(machine.freeAtStart);
    expect(machine.audit()).toEqual([]);
  });

  describe('a large block', () => {
    test('moves as one: counted as one block, and as its base pages', () => {
      const { machine, mapping, pfn, migrate, pages } = setUp(0, 1, 9);
      const before = [...machine.ram.tags.subarray(pfn, pfn + 512)];
      const startNs = machine.scheduler.kthreadCpuNs;
      expect(migrate(ASYNC)).toBe(0);
      const dst = mapping.slots[0]!;
      expect(pages.order[dst]).toBe(9);
      expect([...machine.ram.tags.subarray(dst, dst + 512)]).toEqual(before);
      expect(machine.mm.vmstat.pgmigrate_success).toBe(512);
      expect(machine.scheduler.kthreadCpuNs - startNs).toBeGreaterThan(
        512 * DEFAULT_COSTS.migratePageNs,
      );
      expect(machine.audit()).toEqual([]);
    });

    test('that cannot be moved is one failed block, and 512 failed pages', () => {
      const { machine, pfn, migrate, pages } = setUp(0, 1, 9);
      pages.tryGet(pfn);
      expect(migrate(ASYNC)).toBe(1);
      expect(machine.mm.vmstat.pgmigrate_fail).toBe(512);
    });

    test('without a target of its size is ENOMEM, and stays whole', () => {
      const { machine, pfn, migrate, pages } = setUp(0, 1, 9);
      machine.target.leftUntilEnomem = 0;
      expect(migrate(SYNC)).toBe(Errno.ENOMEM);
      expect([pages.order[pfn], pages.refcount[pfn], pages.hasFlag(pfn, PageFlag.LRU)]).toEqual([
        9,
        1,
        true,
      ]);
    });
  });

  test('pages of both kinds go through one call', () => {
    const { machine, mapping, pfn } = setUp(1, 1);
    mapping.add(machine.allocate(), 0);
    expect(machine.run(() => machine.migrateAll([pfn, mapping.slots[1]!], SYNC))).toBe(0);
    expect(mapping.slots).not.toContain(pfn);
    expect(machine.mm.vmstat.pgmigrate_success).toBe(2);
  });
});
