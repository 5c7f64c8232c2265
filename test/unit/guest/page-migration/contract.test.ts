import { describe, expect, test } from 'vitest';
import { Gfp, PageFlag, PageOwner } from '../../../../guest/mm/index.ts';
import { MigrateMode } from '../../../../guest/page-migration/index.ts';
import type { Kthread } from '../../../../guest/sched/kthread.ts';
import { Errno } from '../../../../shared/index.ts';
import { GENERATIONS, MigrationMachine } from './machine.ts';
import { type Answer, ScriptedDriver } from './scripted-driver.ts';

const { ASYNC, SYNC_LIGHT, SYNC } = MigrateMode;
const MODES = Object.entries(MigrateMode);

describe.each(GENERATIONS)('the %s generation', (name) => {
  function setUp(pageCount = 1) {
    const machine = new MigrationMachine(name);
    const driver = new ScriptedDriver(machine);
    const handles = Array.from({ length: pageCount }, () => driver.add(machine.allocate()));
    const pfns = handles.map((handle) => driver.pageOf.get(handle)!);
    const isolate = (pfn: number) => machine.run(() => machine.generation.isolate(pfn, SYNC));
    return { machine, driver, handles, pfns, pfn: pfns[0]!, handle: handles[0]!, isolate };
  }
  /** Of a page that only its driver, and that an isolator has, too. */
  const OWNED = name === 'list' ? 1 : 0;
  const ISOLATED = name === 'list' ? 2 : 0;

  describe('register', () => {
    test('a second registration of a type is EBUSY', () => {
      const { machine, driver } = setUp();
      expect(machine.generation.register(PageOwner.ZSMALLOC, driver)).toBe(Errno.EBUSY);
    });

    test('a type whose pages cannot be movable is EINVAL', () => {
      const { machine, driver } = setUp();
      for (const type of [PageOwner.SLAB, PageOwner.ANON, PageOwner.FILE, PageOwner.NONE]) {
        expect(machine.generation.register(type, driver)).toBe(Errno.EINVAL);
      }
    });
  });

  describe('isolate', () => {
    test('takes a reference where there are any, and marks the page', () => {
      const { machine, driver, pfn, isolate } = setUp();
      expect(machine.pages.refcount[pfn]).toBe(OWNED);
      expect(isolate(pfn)).toBe(true);
      expect(machine.pages.refcount[pfn]).toBe(ISOLATED);
      expect(machine.generation.isIsolated(pfn)).toBe(true);
      expect(machine.pages.hasFlag(pfn, PageFlag.LOCKED)).toBe(false);
      expect([...driver.isolated]).toEqual([pfn]);
    });

    test('is false for a page that somebody has isolated, whose driver is not asked', () => {
      const { machine, driver, pfn, isolate } = setUp();
      isolate(pfn);
      expect(isolate(pfn)).toBe(false);
      expect(driver.calls).toEqual([`isolate ${pfn}`]);
      expect(machine.pages.refcount[pfn]).toBe(ISOLATED);
    });

    test('is false for what is not movable, and leaves it as it was', () => {
      const { machine, isolate } = setUp();
      const { pages } = machine;
      const freePfn = 2000;
      const block = machine.allocate(3);
      const bytes = machine.mm.alloc(0, Gfp.GFP_KERNEL);
      for (const pfn of [freePfn, block, block + 1, bytes, 0]) {
        const before = [pages.flags[pfn], pages.refcount[pfn], pages.mapping[pfn]];
        expect(isolate(pfn)).toBe(false);
        expect([pages.flags[pfn], pages.refcount[pfn], pages.mapping[pfn]]).toEqual(before);
      }
      expect(machine.mm.audit()).toEqual([]);
    });

    test('is false when the driver says so, and the page stays the driver’s', () => {
      const { machine, driver, pfn, isolate } = setUp();
      driver.refused.add(pfn);
      expect(isolate(pfn)).toBe(false);
      expect(machine.generation.isIsolated(pfn)).toBe(false);
      expect(machine.pages.refcount[pfn]).toBe(OWNED);
      expect([...driver.list]).toEqual([pfn]);
      driver.refused.clear();
      expect(isolate(pfn)).toBe(true);
    });

    test('of a page that is released while its driver is asked frees it', () => {
      const { machine, driver, pfn, handle } = setUp();
      machine.spawn(() => driver.lock.lock());
      machine.settle();
      let isolated: boolean | undefined;
      machine.spawn(function* () {
        isolated = yield* machine.generation.isolate(pfn, SYNC);
      });
      machine.spawn(() => driver.free(handle), 1);
      machine.settle();
      driver.lock.unlock();
      machine.settle();
      // Where there is a page lock the release waits for the isolation, and the page is freed after it.
      expect(isolated).toBe(name === 'list');
      if (isolated) machine.run(() => machine.generation.putback(pfn));
      expect(driver.calls).toEqual([`isolate ${pfn}`]);
      expect(machine.mm.freePages()).toBe(machine.freeAtStart);
      expect(machine.audit()).toEqual([]);
    });

    test.runIf(name === 'list')('does not wait for the page lock', () => {
      const { machine, driver, pfn, isolate } = setUp();
      machine.folios.locks.tryLock(pfn);
      expect(isolate(pfn)).toBe(false);
      expect(driver.calls).toEqual([]);
      expect(machine.pages.refcount[pfn]).toBe(1);
      machine.folios.locks.unlock(pfn);
      expect(isolate(pfn)).toBe(true);
    });
  });

  describe('migrate', () => {
    test('moves content, owner, device and the driver’s private data, and frees the source', () => {
      const { machine, driver, pfn, handle } = setUp();
      const content = driver.content(handle);
      expect(machine.run(() => machine.migrateAll([pfn], ASYNC))).toBe(0);
      const dst = driver.pageOf.get(handle)!;
      expect(dst).not.toBe(pfn);
      expect(driver.content(handle)).toBe(content);
      expect(driver.privateOf.get(dst)).toBe(1000 + handle);
      expect([...driver.list]).toEqual([dst]);
      expect(driver.isolated.size).toBe(0);
      expect(machine.generation.deviceOf(dst)).toBe(7);
      expect(machine.pages.owner[dst]).toBe(PageOwner.ZSMALLOC);
      expect(machine.pages.refcount[dst]).toBe(OWNED);
      expect(machine.generation.isIsolated(dst)).toBe(false);
      expect(machine.pages.hasFlag(dst, PageFlag.LOCKED)).toBe(false);
      expect(machine.mm.isFree(pfn)).toBe(true);
      expect(machine.audit()).toEqual([]);
    });

    test('a page that was moved can be isolated, moved again and freed', () => {
      const { machine, driver, handle } = setUp();
      for (let i = 0; i < 3; i++) {
        const pfn = driver.pageOf.get(handle)!;
        expect(machine.run(() => machine.migrateAll([pfn], SYNC))).toBe(0);
      }
      machine.run(() => driver.free(handle));
      expect(machine.mm.freePages()).toBe(machine.freeAtStart);
    });

    test.each<[mode: keyof typeof MigrateMode, busy: number, calls: number, result: number]>([
      ['ASYNC', 0, 1, 0],
      ['ASYNC', 9, 10, 0],
      ['ASYNC', 10, 10, 1],
      ['SYNC_LIGHT', 2, 3, 0],
      ['SYNC_LIGHT', 9, 10, 0],
      ['SYNC_LIGHT', 10, 10, 1],
      ['SYNC', 3, 4, 0],
      ['SYNC', 9, 10, 0],
      ['SYNC', 10, 10, 1],
    ])('%s, EAGAIN %i times: %i calls of the driver, result %i', (mode, busy, calls, result) => {
      const { machine, driver, pfn } = setUp();
      driver.script.set(pfn, new Array<Answer>(busy).fill('EAGAIN'));
      const outcome = machine.run(() => machine.migrateAll([pfn], MigrateMode[mode]));
      expect(outcome).toBe(result);
      expect(driver.calls.filter((call) => call === `migrate ${pfn}`)).toHaveLength(calls);
      expect(machine.audit()).toEqual([]);
    });

    test.each([
      ['ASYNC', 1],
      // What failed for good in the asynchronous part is tried once more in the other mode.
      ['SYNC_LIGHT', 2],
      ['SYNC', 2],
    ] as const)('%s, EINVAL: is permanent, %i calls of the driver', (mode, calls) => {
      const { machine, driver, pfn } = setUp();
      driver.script.set(pfn, ['EINVAL', 'EINVAL']);
      expect(machine.run(() => machine.migrateAll([pfn], MigrateMode[mode]))).toBe(1);
      expect(driver.calls.filter((call) => call === `migrate ${pfn}`)).toHaveLength(calls);
    });

    test.each(MODES)(
      'a driver that deflates instead of moving frees both pages (%s)',
      (_, mode) => {
        const { machine, driver, pfn } = setUp();
        driver.script.set(pfn, ['deflate']);
        expect(machine.run(() => machine.migrateAll([pfn], mode))).toBe(0);
        expect(driver.list.size + driver.isolated.size + driver.pageOf.size).toBe(0);
        expect(machine.mm.freePages()).toBe(machine.freeAtStart);
        expect(machine.audit()).toEqual([]);
      },
    );

    test.each(MODES)(
      'a page released while isolated is freed, its driver not asked (%s)',
      (_, mode) => {
        const { machine, driver, pfn, handle } = setUp();
        machine.run(function* () {
          const isolated = yield* machine.isolateAll([pfn], mode);
          yield* driver.free(handle);
          expect(machine.mm.isFree(pfn)).toBe(false);
          expect(machine.pages.hasFlag(pfn, PageFlag.MOVABLE)).toBe(true);
          expect(machine.generation.deviceOf(pfn)).toBe(0);
          expect(yield* machine.migration.migrate(isolated, machine.request(mode))).toBe(0);
          yield* machine.migration.putbackAll(isolated);
        });
        expect(driver.calls).toEqual([`isolate ${pfn}`]);
        expect(machine.mm.freePages()).toBe(machine.freeAtStart);
      },
    );

    test('a page released while its driver moves it is moved first, or is not moved at all', () => {
      const { machine, driver, pfn, handle } = setUp();
      driver.script.set(pfn, ['sleep']);
      machine.spawn(function* () {
        yield* machine.migrateAll([pfn], SYNC);
      });
      machine.spawn(function* () {
        yield { kind: 'sleep', ns: 50_000 };
        yield* driver.free(handle);
      }, 1);
      machine.settle();
      expect(driver.calls).toContain(`migrate ${pfn}`);
      expect(machine.mm.freePages()).toBe(machine.freeAtStart);
      expect(machine.audit()).toEqual([]);
    });

    test('a copy released before its driver has returned from migratePage is freed once', () => {
      const { machine, driver, pfn, handle } = setUp();
      driver.script.set(pfn, ['linger']);
      machine.spawn(function* () {
        yield* machine.migrateAll([pfn], SYNC);
      });
      machine.spawn(function* () {
        yield { kind: 'sleep', ns: 50_000 };
        expect(driver.pageOf.get(handle)).not.toBe(pfn);
        yield* driver.free(handle);
      }, 1);
      machine.settle();
      expect(driver.pageOf.size).toBe(0);
      expect(machine.mm.freePages()).toBe(machine.freeAtStart);
      expect(machine.audit()).toEqual([]);
    });

    test('ENOMEM ends the call; what had a target was moved, nothing is lost', () => {
      const { machine, driver, pfns } = setUp(8);
      machine.target.leftUntilEnomem = 3;
      expect(machine.run(() => machine.migrateAll(pfns, ASYNC))).toBe(Errno.ENOMEM);
      expect(pfns.filter((pfn) => machine.mm.isFree(pfn))).toEqual(pfns.slice(0, 3));
      expect(driver.list.size).toBe(8);
      expect(driver.isolated.size).toBe(0);
      // What was never tried has not failed; the array allocates its targets before it tries any.
      const failed = name === 'list' ? 1 : 0;
      expect(machine.mm.vmstat).toMatchObject({ pgmigrate_success: 3, pgmigrate_fail: failed });
      expect(machine.audit()).toEqual([]);
    });

    test('memory failure keeps the source, allocated, with one reference', () => {
      const { machine, driver, pfn, handle } = setUp();
      const reason = 'memory_failure';
      expect(machine.run(() => machine.migrateAll([pfn], SYNC, { reason }))).toBe(0);
      expect(machine.mm.isFree(pfn)).toBe(false);
      expect(machine.pages.refcount[pfn]).toBe(1);
      expect(machine.generation.isIsolated(pfn)).toBe(false);
      expect(driver.pageOf.get(handle)).not.toBe(pfn);
    });

    test('onMigrated is told of a page while its frame is not free', () => {
      const { machine, driver, pfn, handle } = setUp();
      const told: [src: number, dst: number, free: boolean][] = [];
      const onMigrated = (src: number, dst: number) =>
        void told.push([src, dst, machine.mm.isFree(src)]);
      machine.run(() => machine.migrateAll([pfn], ASYNC, { onMigrated }));
      expect(told).toEqual([[pfn, driver.pageOf.get(handle), false]]);
    });

    test('more than a batch of pages, of which each has an answer of its own', () => {
      const { machine, driver, handles, pfns } = setUp(1100);
      const answers: Answer[][] = [['move'], ['EAGAIN', 'move'], ['EINVAL'], ['deflate']];
      pfns.forEach((pfn, i) => void driver.script.set(pfn, [...answers[i % 4]!]));
      expect(machine.run(() => machine.migrateAll(pfns, ASYNC))).toBe(275);
      const stayed = handles.filter((handle, i) => driver.pageOf.get(handle) === pfns[i]);
      expect(stayed).toEqual(handles.filter((_handle, i) => i % 4 === 2));
      expect(driver.pageOf.size).toBe(825);
      expect(machine.mm.vmstat).toMatchObject({ pgmigrate_success: 825, pgmigrate_fail: 275 });
      expect(machine.migration.byReason.get('compaction')).toEqual({ succeeded: 825, failed: 275 });
      expect(machine.audit()).toEqual([]);
    });

    test('the driver is told the mode of the pass, not of the call', () => {
      const { machine, driver, pfn } = setUp();
      const modes: MigrateMode[] = [];
      driver.script.set(pfn, new Array<Answer>(5).fill('EAGAIN'));
      const { migratePage } = driver;
      driver.migratePage = (...args: [number, number, MigrateMode?]) => {
        modes.push(args[2]!);
        return migratePage.call(driver, args[0], args[1]);
      };
      machine.run(() => machine.migrateAll([pfn], SYNC_LIGHT));
      expect(modes).toEqual([ASYNC, ASYNC, ASYNC, SYNC_LIGHT, SYNC_LIGHT, SYNC_LIGHT]);
    });
  });

  describe('the page lock of the source', () => {
    function* hold(machine: MigrationMachine, pfn: number): Kthread {
      machine.generation.tryLock(pfn);
      yield { kind: 'sleep', ns: 5_000_000 };
      machine.generation.unlock(pfn);
    }

    test.runIf(name === 'list').each([
      ['ASYNC', false, 1],
      ['SYNC_LIGHT', false, 0],
      ['SYNC', false, 0],
      ['SYNC', true, 1],
      ['SYNC_LIGHT', true, 1],
    ] as const)('%s, PF_MEMALLOC %s: result %i', (mode, isMemalloc, result) => {
      const { machine, pfn } = setUp();
      const isolated = machine.run(() => machine.isolateAll([pfn], ASYNC));
      machine.spawn(() => hold(machine, pfn), 1);
      const outcome = machine.run(function* () {
        yield { kind: 'sleep', ns: 1 };
        const request = machine.request(MigrateMode[mode], { isMemalloc });
        return yield* machine.migration.migrate(isolated, request);
      });
      expect(outcome).toBe(result);
    });

    test.runIf(name === 'pfn')('there is none', () => {
      const { machine, pfn } = setUp();
      machine.run(() => machine.migrateAll([pfn], SYNC));
      expect(machine.generation.tryLock(pfn)).toBe(true);
      expect(machine.generation.tryLock(pfn)).toBe(true);
    });
  });

  describe('putback', () => {
    test('the page is its driver’s again, and can be isolated again', () => {
      const { machine, driver, pfn, isolate } = setUp();
      isolate(pfn);
      machine.run(() => machine.generation.putback(pfn));
      expect(machine.generation.isIsolated(pfn)).toBe(false);
      expect(machine.pages.refcount[pfn]).toBe(OWNED);
      expect([...driver.list]).toEqual([pfn]);
      expect(isolate(pfn)).toBe(true);
    });

    test('a page that was released meanwhile is freed, its driver not asked', () => {
      const { machine, driver, pfn, handle, isolate } = setUp();
      isolate(pfn);
      machine.run(() => driver.free(handle));
      expect(machine.mm.isFree(pfn)).toBe(false);
      machine.run(() => machine.generation.putback(pfn));
      expect(machine.mm.isFree(pfn)).toBe(true);
      expect(driver.calls).toEqual([`isolate ${pfn}`]);
    });

    test('a set that was never migrated is put back whole', () => {
      const { machine, driver, pfns } = setUp(5);
      machine.run(function* () {
        const isolated = yield* machine.isolateAll(pfns, SYNC);
        yield* machine.migration.putbackAll(isolated);
        expect(isolated.count).toBe(0);
      });
      expect([...driver.list].sort()).toEqual([...pfns].sort());
    });
  });

  describe('release', () => {
    test.each(['release', 'tryRelease'] as const)('%s frees a page that nobody has', (how) => {
      const { machine, pfn } = setUp();
      const { generation } = machine;
      const released =
        how === 'release' ? machine.run(() => generation.release(pfn)) : generation.tryRelease(pfn);
      expect(released).toBe(true);
      expect(machine.mm.freePages()).toBe(machine.freeAtStart);
      expect(machine.audit()).toEqual([]);
    });

    test('of a page that is not the driver’s is an assertion', () => {
      const { machine, pfn } = setUp();
      machine.generation.tryRelease(pfn);
      expect(() => machine.generation.tryRelease(pfn)).toThrow(/its driver/);
    });

    test.runIf(name === 'list')('tryRelease does nothing while the page is locked', () => {
      const { machine, pfn } = setUp();
      machine.generation.tryLock(pfn);
      expect(machine.generation.tryRelease(pfn)).toBe(false);
      expect(machine.generation.deviceOf(pfn)).toBe(7);
    });
  });

  test('a driver that reports success without a transfer is found', () => {
    const { machine, driver, pfn } = setUp();
    driver.script.set(pfn, ['lie']);
    expect(() => machine.run(() => machine.migrateAll([pfn], ASYNC))).toThrow(/no driver/);
  });

  test('an array or list is migrated once, then put back', () => {
    const { machine, pfns } = setUp(2);
    const isolated = machine.run(() => machine.isolateAll(pfns, SYNC));
    machine.run(() => machine.migration.migrate(isolated, machine.request(SYNC)));
    if (isolated.shape === 'list') expect(isolated.count).toBe(0);
    else
      expect(() =>
        machine.run(() => machine.migration.migrate(isolated, machine.request(SYNC))),
      ).toThrow(/once/);
  });
});
