import { describe, expect, test } from 'vitest';
import { Gfp, PageFlag, PageOwner } from '../../../../guest/mm/index.ts';
import { Errno, Prng } from '../../../../shared/index.ts';
import { Interleaver } from './interleaver.ts';
import { GENERATIONS, KERNEL_PAGES, MigrationMachine } from './machine.ts';
import { type Answer, ScriptedDriver } from './scripted-driver.ts';
import { TestMapping } from './test-mapping.ts';

const BUSY = new Array<Answer>(20).fill('EAGAIN');

describe.each(GENERATIONS)('soft offline in the %s generation', (name) => {
  function setUp(options: { isExplored?: boolean; ramPages?: number } = {}) {
    const machine = new MigrationMachine(name, { ramPages: 2048, ...options });
    const driver = new ScriptedDriver(machine);
    const handle = driver.add(machine.allocate());
    const pfn = driver.pageOf.get(handle)!;
    const offline = (of: number) => machine.run(() => machine.memoryFailure.softOfflinePage(of));
    return { machine, driver, handle, pfn, offline, pages: machine.pages };
  }

  function expectPoisoned({ pages, machine }: ReturnType<typeof setUp>, pfn: number) {
    expect(pages.flags[pfn]).toBe(PageFlag.ALLOCATED | PageFlag.HWPOISON);
    expect([pages.owner[pfn], pages.refcount[pfn]]).toEqual([PageOwner.POISONED, 1]);
    expect(machine.folios.poisonedPages).toBe(1);
    expect(machine.memoryFailure.counters).toEqual({ soft_offline: 1, soft_offline_failed: 0 });
    expect(machine.audit()).toEqual([]);
    expectNeverAllocated(machine, pfn);
  }

  /** Not even if every page is allocated, and every list drained. */
  function expectNeverAllocated(machine: MigrationMachine, pfn: number) {
    const { mm } = machine;
    for (let round = 0; round < 2; round++) {
      mm.drainPcp(0);
      mm.drainPcp(1);
      const taken: number[] = [];
      for (let got = mm.alloc(0, Gfp.GFP_ATOMIC); got >= 0; got = mm.alloc(0, Gfp.GFP_ATOMIC)) {
        taken.push(got);
      }
      expect(mm.freePages()).toBeLessThan(machine.freeAtStart / 10);
      expect(taken).not.toContain(pfn);
      for (const page of taken) mm.free(page, 0);
    }
    expect(mm.allocExact(pfn, 0, Gfp.GFP_KERNEL)).toBe(false);
  }

  test('a movable page: its driver has the copy, the frame is out of use', () => {
    const it = setUp();
    const content = it.driver.content(it.handle);
    expect(it.offline(it.pfn)).toBe(Errno.OK);
    const dst = it.driver.pageOf.get(it.handle)!;
    expect(dst).not.toBe(it.pfn);
    expect(it.driver.content(it.handle)).toBe(content);
    expect([...it.driver.list]).toEqual([dst]);
    expectPoisoned(it, it.pfn);
  });

  test.each<[what: string, answers: Answer[]]>([
    ['a busy driver', BUSY],
    ['a driver that refuses', ['EINVAL', 'EINVAL']],
  ])('%s: EBUSY, and nothing about the page has changed', (_what, answers) => {
    const { machine, driver, handle, pfn, offline, pages } = setUp();
    const before = [pages.flags[pfn], pages.owner[pfn], pages.refcount[pfn], pages.mapping[pfn]];
    const content = driver.content(handle);
    driver.script.set(pfn, [...answers]);
    expect(offline(pfn)).toBe(Errno.EBUSY);
    expect(before).toEqual([
      pages.flags[pfn],
      pages.owner[pfn],
      pages.refcount[pfn],
      pages.mapping[pfn],
    ]);
    expect(driver.content(handle)).toBe(content);
    expect([...driver.list]).toEqual([pfn]);
    expect(machine.folios.poisonedPages).toBe(0);
    expect(machine.memoryFailure.counters).toEqual({ soft_offline: 0, soft_offline_failed: 1 });
    machine.run(() => driver.free(handle));
    expect(machine.mm.freePages()).toBe(machine.freeAtStart);
  });

  test('no memory for the copy: ENOMEM, and the page stays', () => {
    const { machine, driver, pfn, offline } = setUp();
    while (machine.mm.alloc(0, Gfp.GFP_ATOMIC) >= 0);
    expect(offline(pfn)).toBe(Errno.ENOMEM);
    expect([...driver.list]).toEqual([pfn]);
    expect(machine.folios.poisonedPages).toBe(0);
  });

  test.each(['on a buddy list', 'on a per-CPU list'])('a free frame %s', (where) => {
    const it = setUp();
    const free = it.machine.mm.alloc(0, Gfp.GFP_HIGHUSER_MOVABLE);
    it.machine.mm.free(free, 0);
    if (where === 'on a buddy list') it.machine.mm.drainPcp(0);
    expect(it.offline(free)).toBe(Errno.OK);
    expectPoisoned(it, free);
  });

  test('a frame in the middle of a large free block', () => {
    const it = setUp();
    expect(it.offline(1777)).toBe(Errno.OK);
    expectPoisoned(it, 1777);
  });

  test('a frame that is poisoned already is OK, and is counted once', () => {
    const it = setUp();
    it.offline(it.pfn);
    expect(it.offline(it.pfn)).toBe(Errno.OK);
    expectPoisoned(it, it.pfn);
  });

  test('a page that its driver deflates instead of moving it', () => {
    const it = setUp();
    it.driver.script.set(it.pfn, ['deflate']);
    expect(it.offline(it.pfn)).toBe(Errno.OK);
    expect(it.driver.pageOf.size).toBe(0);
    expectPoisoned(it, it.pfn);
  });

  test('a page that its driver frees meanwhile', () => {
    const it = setUp();
    it.driver.script.set(it.pfn, ['sleep', 'sleep']);
    it.machine.spawn(function* () {
      yield { kind: 'sleep', ns: 20_000 };
      yield* it.driver.free(it.handle);
    }, 1);
    expect(it.offline(it.pfn)).toBe(Errno.OK);
    expect(it.driver.pageOf.size).toBe(0);
    expectPoisoned(it, it.pfn);
    expect(it.machine.mm.freePages()).toBe(it.machine.freeAtStart - 1);
  });

  test('a page that somebody else has isolated is EBUSY, and can be put back', () => {
    const { machine, driver, pfn, offline } = setUp();
    machine.run(() => machine.migration.isolate(pfn, 0));
    expect(offline(pfn)).toBe(Errno.EBUSY);
    machine.run(() => machine.migration.putback(pfn));
    expect([...driver.list]).toEqual([pfn]);
    expect(machine.folios.poisonedPages).toBe(0);
  });

  test('two requests for one frame take it out of use once', () => {
    for (let seed = 0; seed < 50; seed++) {
      const { machine, pfn, pages } = setUp({ isExplored: true, ramPages: 1024 });
      const prng = new Prng(seed + 1);
      const threads = new Interleaver();
      const results: Errno[] = [];
      for (let i = 0; i < 2; i++) {
        threads.add(function* () {
          results.push(yield* machine.memoryFailure.softOfflinePage(pfn));
        });
      }
      threads.run((count) => prng.below(count));
      expect(results).toContain(Errno.OK);
      expect(machine.folios.poisonedPages).toBe(1);
      expect([pages.refcount[pfn], pages.owner[pfn]]).toEqual([1, PageOwner.POISONED]);
    }
  });

  test('of a page that is freed at any moment: EBUSY only while it is in use', () => {
    const results = new Set<Errno>();
    for (let seed = 0; seed < 100; seed++) {
      const { machine, driver, handle, pfn } = setUp({ isExplored: true, ramPages: 1024 });
      if (seed % 2 === 0) driver.script.set(pfn, [...BUSY]);
      const prng = new Prng(seed + 1);
      const threads = new Interleaver();
      threads.add(function* () {
        const result = yield* machine.memoryFailure.softOfflinePage(pfn);
        results.add(result);
        expect(result === Errno.EBUSY && machine.mm.isFree(pfn)).toBe(false);
      });
      threads.add(function* () {
        for (let wait = prng.below(60); wait > 0; wait--) yield { kind: 'sleep', ns: 1 };
        yield* driver.free(handle);
      });
      threads.run((count) => prng.below(count));
      const { poisonedPages } = machine.folios;
      expect(poisonedPages).toBe(machine.memoryFailure.counters.soft_offline);
      expect(machine.mm.freePages()).toBe(machine.freeAtStart - poisonedPages);
      expect(machine.audit()).toEqual([]);
    }
    expect(results).toEqual(new Set([Errno.OK, Errno.EBUSY]));
  });

  describe('LRU pages', () => {
    function setUpLru(cacheReferences: 0 | 1, ptes: number) {
      const it = setUp();
      const mapping = new TestMapping(it.machine, cacheReferences);
      const pfn = it.machine.allocate();
      const index = mapping.add(pfn, ptes);
      return { ...it, mapping, pfn, index };
    }

    test.each([
      ['anonymous', 0, 2],
      ['mapped page cache', 1, 2],
    ] as const)('%s is migrated', (_what, cacheReferences, ptes) => {
      const it = setUpLru(cacheReferences, ptes);
      const content = it.mapping.content(it.index);
      expect(it.offline(it.pfn)).toBe(Errno.OK);
      expect(it.mapping.slots[it.index]).not.toBe(it.pfn);
      expect(it.mapping.content(it.index)).toBe(content);
      expectPoisoned(it, it.pfn);
    });

    test('clean page cache that nobody maps is dropped, not migrated', () => {
      const it = setUpLru(1, 0);
      expect(it.offline(it.pfn)).toBe(Errno.OK);
      expect(it.mapping.slots[it.index]).toBe(-1);
      expect(it.machine.mm.vmstat.pgmigrate_success).toBe(0);
      expect(it.machine.folios.lruvec.evictablePages).toBe(0);
      expectPoisoned(it, it.pfn);
    });

    test('a page under writeback is waited for', () => {
      const it = setUpLru(1, 0);
      it.pages.setFlag(it.pfn, PageFlag.WRITEBACK);
      it.machine.spawn(function* () {
        yield { kind: 'sleep', ns: 5_000_000 };
        it.machine.folios.locks.endWriteback(it.pfn);
      }, 1);
      expect(it.offline(it.pfn)).toBe(Errno.OK);
      expectPoisoned(it, it.pfn);
    });

    test('a pinned page stays, on its list and in its object', () => {
      const it = setUpLru(0, 1);
      it.pages.tryGet(it.pfn);
      expect(it.offline(it.pfn)).toBe(Errno.EBUSY);
      expect(it.mapping.slots[it.index]).toBe(it.pfn);
      expect(it.pages.flags[it.pfn]).toBe(PageFlag.ALLOCATED | PageFlag.LRU);
      expect([it.pages.refcount[it.pfn], it.mapping.ptes[it.index]]).toEqual([2, 1]);
      expect(it.machine.folios.poisonedPages).toBe(0);
      expect(it.machine.audit()).toEqual([]);
    });
  });

  test.each<[what: string, errno: Errno, pfnOf: (machine: MigrationMachine) => number]>([
    ['no frame of RAM', Errno.EINVAL, () => 1 << 20],
    ['less than a frame', Errno.EINVAL, () => -1],
    ['memory of the kernel', Errno.EIO, () => KERNEL_PAGES - 1],
    ['a page of a slab', Errno.EIO, (machine) => machine.mm.alloc(0, Gfp.GFP_KERNEL)],
    ['a large block that is not on the LRU', Errno.EIO, (machine) => machine.allocate(4) + 3],
    [
      'a large block on the LRU, which is not split',
      Errno.EBUSY,
      (machine) => {
        const pfn = machine.allocate(4);
        new TestMapping(machine, 0).add(pfn, 1);
        return pfn + 3;
      },
    ],
  ])('%s: %i', (_what, errno, pfnOf) => {
    const { machine, offline } = setUp();
    expect(offline(pfnOf(machine))).toBe(errno);
    expect(machine.folios.poisonedPages).toBe(0);
    expect(machine.audit()).toEqual([]);
  });
});
