/** Every user of movable pages behind one interface, so that one suite holds for all of them. */
import { BalloonPages } from '../../../../guest/balloon/pages.ts';
import {
  MappedDriver,
  type MappedObject,
  PageTables,
  PteBits,
  Zspool,
} from '../../../../guest/movable/index.ts';
import { type Kthread, preempt } from '../../../../guest/sched/kthread.ts';
import { Mutex } from '../../../../guest/sched/locks.ts';
import { Errno } from '../../../../shared/index.ts';
import type { MigrationMachine } from '../page-migration/machine.ts';

const LOOK = preempt('look');

export interface MovableUser {
  /** Pages of it now. */
  pfns(): number[];
  /** What the pages hold, as the user sees it. */
  content(): Kthread<number[]>;
  /** Changes some of the content, now and then giving up a page or taking another. */
  use(random: (below: number) => number): Kthread;
  /** Empty, or where the content is not what was written last. */
  verify(): Kthread<string[]>;
  /** Gives up every page, in whatever state it is. */
  releaseAll(): Kthread;
  /** Until the result is called, no page can be moved. */
  keepBusy(): Kthread<() => void>;
  /** How often a page was asked to move and was busy. */
  busyCount(): number;
  readonly busyErrno: Errno;
  audit(): string[];
}

export type NewUser = (machine: MigrationMachine, pageCount: number) => Kthread<MovableUser>;

export const USERS: readonly (readonly [name: string, create: NewUser])[] = [
  ['balloon', newBalloon],
  ['zspool', newZspool],
  ['mapped driver', newMappedDriver],
  ['page tables', newPageTables],
];

function must<T>(value: T | null | undefined): T {
  if (value === null || value === undefined) throw new Error('the machine is large enough');
  return value;
}

/** mm/balloon.c, with a host that knows which pages it has. */
function* newBalloon(machine: MigrationMachine, pageCount: number): Kthread<MovableUser> {
  const host = new Set<number>();
  const lock = new Mutex('balloon_lock');
  const pfns = new Int32Array(64);
  const counters = { balloon_inflate: 0, balloon_deflate: 0, balloon_migrate: 0 };
  let numPages = 0;
  let busyCount = 0;
  const pages = new BalloonPages({
    kernel: machine.kernel,
    folios: machine.folios,
    generation: machine.generation,
    compaction: true,
    counters,
    *migratePage(dst, src) {
      if (!lock.tryLock()) {
        busyCount++;
        return Errno.EAGAIN;
      }
      yield { kind: 'sleep', ns: 100 };
      host.add(dst);
      yield { kind: 'sleep', ns: 100 };
      host.delete(src);
      lock.unlock();
      return Errno.OK;
    },
  });
  function* fill(count: number): Kthread {
    const fresh = new Int32Array(count);
    for (let i = 0; i < count; i++) fresh[i] = pages.alloc();
    yield* lock.lock();
    yield* pages.enqueue(fresh, count);
    numPages += count;
    yield { kind: 'sleep', ns: 100 };
    for (const pfn of fresh) host.add(pfn);
    lock.unlock();
  }
  function* leak(count: number): Kthread {
    yield* lock.lock();
    const taken = yield* pages.dequeue(pfns, Math.min(count, numPages));
    numPages -= taken;
    yield { kind: 'sleep', ns: 100 };
    for (const pfn of pfns.subarray(0, taken)) host.delete(pfn);
    yield* pages.release(pfns, taken);
    lock.unlock();
  }
  yield* fill(pageCount);
  return {
    pfns: () => [...host],
    *content() {
      yield LOOK;
      return [host.size];
    },
    *use(random) {
      yield* random(2) === 0 ? fill(1) : leak(1);
    },
    *verify() {
      yield LOOK;
      return host.size === numPages ? [] : [`the host has ${host.size} of ${numPages} pages`];
    },
    *releaseAll() {
      while (numPages > 0) {
        yield* leak(numPages);
        yield { kind: 'sleep', ns: 50_000 };
      }
    },
    *keepBusy() {
      yield* lock.lock();
      return () => lock.unlock();
    },
    busyCount: () => busyCount,
    busyErrno: Errno.EAGAIN,
    audit() {
      const held = pages.listedPages + pages.isolatedPages;
      const left = counters.balloon_inflate - counters.balloon_deflate;
      return [
        ...pages.audit(),
        ...(held === numPages ? [] : [`${held} pages listed or isolated of ${numPages}`]),
        ...(left === numPages ? [] : [`counters say ${left} pages, there are ${numPages}`]),
      ];
    },
  };
}

function* newZspool(machine: MigrationMachine, pageCount: number): Kthread<MovableUser> {
  const pool = new Zspool(machine.kernel, machine.folios, machine.generation);
  const values = new Map<number, number>();
  let nextValue = 1;
  function* add(sizeBytes: number): Kthread {
    const handle = yield* pool.malloc(sizeBytes);
    yield* pool.write(handle, nextValue);
    values.set(handle, nextValue++);
  }
  // Two pages hold three, one of which lies in both.
  while (pool.pages().length < pageCount) yield* add(2720);
  return {
    pfns: () => pool.pages(),
    *content() {
      const all: number[] = [];
      for (const handle of values.keys()) all.push(yield* pool.read(handle));
      return all;
    },
    *use(random) {
      const handles = [...values.keys()];
      const handle = handles[random(handles.length)];
      if (handle === undefined || random(3) === 0) return yield* add(2720);
      if (random(2) === 0) {
        values.delete(handle);
        return yield* pool.free(handle);
      }
      yield* pool.write(handle, nextValue);
      values.set(handle, nextValue++);
    },
    *verify() {
      const wrong: string[] = [];
      for (const [handle, value] of values) {
        const found = yield* pool.read(handle);
        if (found !== value) wrong.push(`object ${handle} is ${found}, not ${value}`);
      }
      return wrong;
    },
    *releaseAll() {
      for (const handle of [...values.keys()]) {
        values.delete(handle);
        yield* pool.free(handle);
      }
    },
    *keepBusy() {
      const mapped: MappedObject[] = [];
      for (const handle of values.keys()) mapped.push(yield* pool.map(handle));
      return () => {
        for (const one of mapped) pool.unmap(one);
      };
    },
    busyCount: () => pool.counters.zs_migrate_busy,
    busyErrno: Errno.EINVAL,
    audit: () => pool.audit(machine.holds),
  };
}

function* newMappedDriver(machine: MigrationMachine, pageCount: number): Kthread<MovableUser> {
  const driver = new MappedDriver(machine.kernel, machine.folios, machine.generation);
  let files = [must(driver.open(pageCount))];
  for (let i = 0; i < pageCount; i++) yield* driver.store(files[0]!, i);
  const pfns = () => files.flatMap((file) => driver.pfnsOf(file));
  return {
    pfns,
    *content() {
      yield LOOK;
      return pfns().map((pfn) => machine.ram.tags[pfn]!);
    },
    *use(random) {
      if (files.length === 0 || random(6) === 0) {
        files.push(must(driver.open(2)));
        return;
      }
      const file = files[random(files.length)]!;
      const index = random(file.pages.length);
      const what = random(6);
      if (what === 0) {
        files = files.filter((other) => other !== file);
        yield* driver.close(file);
      } else if (what === 1) {
        const began = yield* driver.beginDma(file, index);
        yield { kind: 'sleep', ns: 100 };
        if (began) driver.endDma(file, index);
      } else yield* driver.store(file, index);
    },
    *verify() {
      yield LOOK;
      return driver.audit(machine.holds);
    },
    *releaseAll() {
      for (const file of files.splice(0)) yield* driver.close(file);
    },
    *keepBusy() {
      const [file] = files;
      for (let i = 0; i < pageCount; i++) yield* driver.beginDma(file!, i);
      return () => {
        for (let i = 0; i < pageCount; i++) driver.endDma(file!, i);
      };
    },
    busyCount: () => driver.counters.mapped_dma_busy,
    busyErrno: Errno.EAGAIN,
    audit: () => driver.audit(machine.holds),
  };
}

function* newPageTables(machine: MigrationMachine, pageCount: number): Kthread<MovableUser> {
  const tables = new PageTables(machine.kernel, machine.folios, machine.generation);
  const vpns = pageCount * 512;
  let space = tables.newSpace(vpns);
  /** Entry of each page, with the bits that must be set by now. */
  const expected = new Map<number, number>();
  let nextFrame = 1;
  function* set(vpn: number): Kthread {
    const entry = (nextFrame++ << PteBits.SHIFT) | PteBits.PRESENT;
    yield* tables.set(space, vpn, entry);
    expected.set(vpn, entry);
  }
  for (let vpn = 7; vpn < vpns; vpn += 128) yield* set(vpn);
  return {
    pfns: () => tables.pages(),
    *content() {
      const all: number[] = [];
      for (const vpn of expected.keys()) all.push(yield* tables.get(space, vpn));
      return all;
    },
    *use(random) {
      const vpn = 7 + 128 * random(vpns / 128);
      if (random(12) === 0) {
        const old = space;
        expected.clear();
        space = tables.newSpace(vpns);
        return yield* tables.exit(old);
      }
      const entry = expected.get(vpn);
      if (entry === undefined) return yield* set(vpn);
      const isWrite = random(2) === 0;
      yield* tables.walk(space, vpn, isWrite);
      expected.set(vpn, entry | PteBits.ACCESSED | (isWrite ? PteBits.DIRTY : 0));
    },
    *verify() {
      const wrong: string[] = [];
      for (const [vpn, entry] of expected) {
        const found = yield* tables.get(space, vpn);
        if (found !== entry) wrong.push(`entry ${vpn} is ${found}, not ${entry}`);
      }
      return wrong;
    },
    *releaseAll() {
      expected.clear();
      yield* tables.exit(space);
    },
    *keepBusy() {
      for (const lock of space.locks) yield* lock.lock();
      return () => {
        for (const lock of space.locks) lock.unlock();
      };
    },
    busyCount: () => tables.counters.table_busy,
    busyErrno: Errno.EAGAIN,
    audit: () => tables.audit(machine.holds),
  };
}
