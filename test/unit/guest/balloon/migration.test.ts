/** Pages of the balloon under page migration, with the real device on the other side. */
import { describe, expect, test } from 'vitest';
import { Gfp, MigrateType, PageOwner, ZoneType } from '../../../../guest/mm/index.ts';
import { MigrateMode, type MigrateRequest } from '../../../../guest/page-migration/index.ts';
import type { Kthread } from '../../../../guest/sched/kthread.ts';
import { type Message, toUint32 } from '../../../../protocol/index.ts';
import { NO_PLANTS } from '../../../../shared/index.ts';
import { DriverHarness, type HarnessOptions } from '../../../support/driver-harness.ts';

const SECOND = 1_000_000_000;
const MS = 1_000_000;
const INFLATEQ = 0;
const DEFLATEQ = 1;
const GENERATIONS = ['list', 'pfn'] as const;

/** A booted machine with so many pages in its balloon. */
function inflated(pages: number, options: HarnessOptions = {}): DriverHarness {
  const harness = new DriverHarness({ ramPages: 16384, ...options, realAllocator: true }).boot();
  harness.device.setTarget(pages);
  harness.runFor(SECOND);
  expect(harness.driver.numPages).toBe(pages);
  return harness;
}

function run<T>(harness: DriverHarness, body: () => Kthread<T>, ns = SECOND): T {
  let result: { value: T } | null = null;
  harness.kernel.spawn('test', function* () {
    result = { value: yield* body() };
  });
  harness.runFor(ns);
  if (result === null) throw new Error('the thread has not come to an end');
  return (result as { value: T }).value;
}

function requestOf({ kernel, folios }: DriverHarness, gfp: number): MigrateRequest {
  return {
    mode: MigrateMode.ASYNC,
    reason: 'compaction',
    target: {
      alloc: (_src, order) => kernel.mm.alloc(order, gfp),
      free: (dst) => void folios.put(dst),
    },
  };
}

function* isolate({ migration }: DriverHarness, pfns: readonly number[]) {
  const isolated = migration.newSet(pfns.length);
  for (const pfn of pfns) if (yield* migration.isolate(pfn, MigrateMode.ASYNC)) isolated.add(pfn);
  return isolated;
}

/** Returns how many pages were not moved. */
function* move(
  harness: DriverHarness,
  pfns: readonly number[],
  gfp: number = Gfp.GFP_HIGHUSER_MOVABLE,
): Kthread<number> {
  const isolated = yield* isolate(harness, pfns);
  const result = yield* harness.migration.migrate(isolated, requestOf(harness, gfp));
  yield* harness.migration.putbackAll(isolated);
  return result;
}

/** What the host has, ascending. */
function hostPages({ device }: DriverHarness): number[] {
  return ascending(device.inflatedPages.nextSet.bind(device.inflatedPages));
}

function guestPages({ kernel }: DriverHarness): number[] {
  const { pages } = kernel.mm;
  return ascending((from) => {
    for (let pfn = from; pfn < pages.ramPages; pfn++) {
      if (pages.owner[pfn] === PageOwner.BALLOON) return pfn;
    }
    return -1;
  });
}

function ascending(next: (from: number) => number): number[] {
  const all: number[] = [];
  for (let pfn = next(0); pfn >= 0; pfn = next(pfn + 1)) all.push(pfn);
  return all;
}

describe.each(GENERATIONS)('pages of the balloon, %s generation:', (generation) => {
  test('the host has the new pages and not the old ones; num_pages and actual stay', () => {
    const harness = inflated(300, { generation });
    const old = hostPages(harness);
    const moving = old.slice(0, 40);
    expect(run(harness, () => move(harness, moving))).toBe(0);
    const now = hostPages(harness);
    expect(now).toHaveLength(300);
    expect(now.filter((pfn) => moving.includes(pfn))).toEqual([]);
    expect(guestPages(harness)).toEqual(now);
    for (const pfn of moving) expect(harness.kernel.mm.isFree(pfn)).toBe(true);
    expect([harness.driver.numPages, harness.device.actualPages]).toEqual([300, 300]);
    expect(harness.driver.counters).toMatchObject({
      balloon_inflate: 300,
      balloon_deflate: 0,
      balloon_migrate: 40,
    });
    expect(harness.driver.audit()).toEqual([]);
    expect(harness.device.protocolViolations).toBe(0);
  });

  test('the host takes the new page before it gives back the old one', () => {
    const harness = inflated(10, { generation });
    const [src] = hostPages(harness);
    const counts: number[] = [];
    harness.trace.length = 0;
    harness.tamper = (message) => {
      if (message.name === 'used') counts.push(harness.device.inflatedPages.count());
      return message;
    };
    run(harness, () => move(harness, [src!]));
    expect(counts).toEqual([11, 10]);
    const told = harness.trace.filter((m): m is Message<'avail'> => m.name === 'avail');
    expect(told.map(({ queue }) => queue)).toEqual([INFLATEQ, DEFLATEQ]);
    expect([...toUint32(told[1]!.out)!]).toEqual([src]);
    expect(hostPages(harness)).toContain(toUint32(told[0]!.out)![0]);
  });

  test('is refused with EAGAIN while the driver waits for the host, and changes nothing', () => {
    const harness = inflated(0, { generation });
    harness.stalled = true;
    harness.device.setTarget(100);
    harness.runFor(10 * MS);
    const before = guestPages(harness);
    expect(before).toHaveLength(100);
    expect(run(harness, () => move(harness, before.slice(0, 5)))).toBe(5);
    expect(guestPages(harness)).toEqual(before);
    expect(harness.driver.counters.balloon_migrate).toBe(0);
    expect(harness.driver.isolatedPages).toBe(0);
    expect(harness.driver.audit()).toEqual([]);
    harness.stalled = false;
    harness.runFor(SECOND);
    expect(hostPages(harness)).toEqual(before);
  });

  test('is not refused while the driver waits for memory: it allocates without the lock', () => {
    const harness = inflated(0, { generation });
    harness.device.setTarget(harness.ram.pageCount);
    harness.runFor(SECOND);
    expect(harness.driver.counters.balloon_out_of_puff).toBeGreaterThan(2);
    const moving = hostPages(harness).slice(0, 5);
    expect(run(harness, () => move(harness, moving, Gfp.GFP_ATOMIC), 10 * MS)).toBe(0);
    expect(harness.driver.counters.balloon_migrate).toBe(5);
    expect(harness.driver.audit()).toEqual([]);
  });

  test('a leak takes fewer pages while others are isolated, and the rest when they are back', () => {
    const harness = inflated(64, { generation });
    const held = hostPages(harness).slice(10, 30);
    const isolated = run(harness, () => isolate(harness, held));
    expect(harness.driver.isolatedPages).toBe(20);
    harness.device.setTarget(0);
    harness.runFor(100 * MS);
    expect(harness.driver.numPages).toBe(20);
    expect(hostPages(harness)).toEqual(held);
    expect(harness.driver.audit()).toEqual([]);
    run(harness, () => harness.migration.putbackAll(isolated));
    expect(harness.driver.numPages).toBe(0);
    expect(harness.device.actualPages).toBe(0);
    expect(hostPages(harness)).toEqual([]);
    expect(harness.device.protocolViolations).toBe(0);
  });

  test('a migration in the middle of a leak: each page leaves once, from where it is', () => {
    const harness = inflated(600, { generation });
    const free = harness.kernel.mm.freePages();
    const moving = hostPages(harness).filter((_, i) => i % 3 === 0);
    harness.device.setTarget(0);
    harness.kernel.spawn('migrator', function* () {
      yield* move(harness, moving);
    });
    harness.runFor(3 * SECOND);
    expect(harness.driver.numPages).toBe(0);
    expect(hostPages(harness)).toEqual([]);
    expect(harness.kernel.mm.freePages()).toBe(free + 600);
    expect(harness.kernel.mm.audit()).toEqual([]);
    expect(harness.driver.counters.balloon_deflate).toBe(600);
    expect(harness.device.protocolViolations).toBe(0);
  });

  test('balloon compaction off: the pages are not movable, and leave as they came', () => {
    const harness = inflated(50, { generation, compaction: false });
    const pfns = hostPages(harness);
    const { pages } = harness.kernel.mm;
    for (const pfn of pfns) expect(pages.migratetype[pfn]).toBe(MigrateType.UNMOVABLE);
    const isolated = run(harness, () => isolate(harness, pfns));
    expect(isolated.count).toBe(0);
    expect(harness.driver.audit()).toEqual([]);
    const free = harness.kernel.mm.freePages();
    harness.device.setTarget(0);
    harness.runFor(SECOND);
    expect(harness.kernel.mm.freePages()).toBe(free + 50);
    expect(harness.kernel.mm.audit()).toEqual([]);
  });

  test.each([false, true])('managed pages follow the balloon unless DEFLATE_ON_OOM (%s)', (oom) => {
    const device = { deflateOnOom: oom };
    const harness = inflated(0, { generation, movablePages: 8192, device });
    const zones = harness.kernel.mm.zones;
    const managed = () => zones.map((zone) => zone.managedPages);
    const atBoot = managed();
    const less = (counts: Record<number, number>) =>
      atBoot.map((pages, zone) => pages - (oom ? 0 : (counts[zone] ?? 0)));
    harness.device.setTarget(1000);
    harness.runFor(SECOND);
    expect(managed()).toEqual(less({ [ZoneType.MOVABLE]: 1000 }));
    run(harness, () => move(harness, hostPages(harness).slice(0, 7), Gfp.GFP_USER));
    expect(harness.driver.counters.balloon_migrate).toBe(7);
    expect(managed()).toEqual(less({ [ZoneType.MOVABLE]: 993, [ZoneType.DMA32]: 7 }));
    harness.device.setTarget(0);
    harness.runFor(SECOND);
    expect(managed()).toEqual(atBoot);
    expect(harness.kernel.mm.audit()).toEqual([]);
  });

  test('the plant that leaves isolated pages on the list is found', () => {
    const plants = { ...NO_PLANTS, balloonFreesIsolated: true };
    const harness = inflated(20, { generation, plants });
    const pfns = hostPages(harness);
    const deflate = (): string[] => {
      const isolated = run(harness, () => isolate(harness, pfns.slice(0, 3)));
      harness.device.setTarget(0);
      harness.runFor(SECOND);
      run(harness, () => harness.migration.putbackAll(isolated));
      return harness.driver.audit();
    };
    // Two lists through one page->lru are no lists any more.
    if (generation === 'list') expect(deflate).toThrow('what leaves the balloon list is on it');
    else expect(deflate()[0]).toBe('0 balloon pages are listed and 3 isolated, of 0');
  });
});

describe('DEFLATE_ON_OOM', () => {
  function boot(deflateOnOom: boolean) {
    const notifiers: { priority: number; notify: () => Kthread<number> }[] = [];
    const harness = new DriverHarness({
      device: { deflateOnOom },
      driver: {
        registerOomNotifier: (priority, notify) => {
          notifiers.push({ priority, notify });
          return () => void notifiers.pop();
        },
      },
    }).boot();
    return { harness, notifiers };
  }

  // spec: 5.5.6.1-driver-4
  test('not offered: nobody is notified', () => {
    expect(boot(false).notifiers).toEqual([]);
  });

  // spec: 5.5.6.1-driver-5
  test('an OOM takes up to 256 pages and writes actual; the target waits for an interrupt', () => {
    const { harness, notifiers } = boot(true);
    expect(notifiers.map(({ priority }) => priority)).toEqual([80]);
    const { notify } = notifiers[0]!;
    harness.device.setTarget(300);
    harness.runFor(SECOND);
    expect(run(harness, notify)).toBe(256);
    expect([harness.driver.numPages, harness.device.actualPages]).toEqual([44, 44]);
    expect(run(harness, notify)).toBe(44);
    expect(run(harness, notify)).toBe(0);
    expect([harness.driver.numPages, harness.device.actualPages]).toEqual([0, 0]);
    harness.device.setTarget(301);
    harness.runFor(SECOND);
    expect(harness.driver.numPages).toBe(301);
    expect(harness.device.protocolViolations).toBe(0);
  });
});
