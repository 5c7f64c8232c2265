import { describe, expect, test } from 'vitest';
import { Zspool } from '../../../../guest/movable/index.ts';
import { sizeClasses } from '../../../../guest/movable/size-class.ts';
import { MigrateMode } from '../../../../guest/page-migration/index.ts';
import { Errno } from '../../../../shared/index.ts';
import { GENERATIONS, MigrationMachine } from '../page-migration/machine.ts';

function newPool(generation: (typeof GENERATIONS)[number] = 'list') {
  const machine = new MigrationMachine(generation);
  const pool = new Zspool(machine.kernel, machine.folios, machine.generation);
  /** Stores `count` objects, each with its number as content. */
  const store = (count: number, sizeBytes: number): number[] =>
    machine.run(function* () {
      const handles: number[] = [];
      for (let i = 1; i <= count; i++) {
        const handle = yield* pool.malloc(sizeBytes);
        yield* pool.write(handle, i);
        handles.push(handle);
      }
      return handles;
    });
  const load = (handles: readonly number[]): number[] =>
    machine.run(function* () {
      const values: number[] = [];
      for (const handle of handles) values.push(yield* pool.read(handle));
      return values;
    });
  const migrate = (pfns: readonly number[]) =>
    machine.run(() => machine.migrateAll(pfns, MigrateMode.ASYNC));
  return { machine, pool, store, load, migrate };
}

test('a class takes as many pages a zspage as waste least', () => {
  expect(
    sizeClasses().map((one) => [one.sizeBytes, one.pagesPerZspage, one.objectsPerZspage]),
  ).toEqual([
    [256, 1, 16],
    [640, 3, 19],
    [1360, 1, 3],
    [2720, 2, 3],
    [3264, 4, 5],
    [4096, 1, 1],
  ]);
});

describe.each(GENERATIONS)('%s generation:', (generation) => {
  test.each([0, 1, 2, 3])('objects that lie across pages survive the move of page %i', (page) => {
    const { machine, pool, store, load, migrate } = newPool(generation);
    const handles = store(5, 3264);
    const pfns = pool.pages();
    expect(pfns).toHaveLength(4);
    expect(migrate([pfns[page]!])).toBe(0);
    expect(pool.pages().map((pfn, i) => pfn === pfns[i])).toEqual(
      [0, 1, 2, 3].map((i) => i !== page),
    );
    expect(load(handles)).toEqual([1, 2, 3, 4, 5]);
    machine.run(() => pool.write(handles[page]!, 77));
    expect(load(handles)[page]).toBe(77);
    expect(pool.audit(machine.holds)).toEqual([]);
  });

  test('a mapped object keeps its zspage where it is (EINVAL), and no other', () => {
    const { machine, pool, store, load, migrate } = newPool(generation);
    const handles = store(6, 2720);
    const [a, b, c, d] = pool.pages();
    const mapped = machine.run(() => pool.map(handles[0]!));
    expect(migrate([a!, b!, c!, d!])).toBe(2);
    expect(pool.counters).toMatchObject({ zs_migrate_busy: 2, zs_migrated: 2 });
    pool.unmap(mapped);
    expect(pool.pages()).toEqual(expect.arrayContaining([a, b]));
    expect(migrate([a!, b!])).toBe(0);
    expect(load(handles)).toEqual([1, 2, 3, 4, 5, 6]);
    expect(pool.audit(machine.holds)).toEqual([]);
  });

  test('a zspage whose last object is freed while a page of it is isolated is freed', () => {
    const { machine, pool, store } = newPool(generation);
    const handles = store(5, 3264);
    const pfns = pool.pages();
    const isolated = machine.run(() => machine.isolateAll([pfns[2]!], MigrateMode.SYNC));
    for (const handle of handles) machine.run(() => pool.free(handle));
    expect(pfns.map((pfn) => machine.mm.isFree(pfn))).toEqual([true, true, false, true]);
    expect(pool.counters).toMatchObject({ zs_pages: 0, zs_objects: 0 });
    machine.run(() => machine.migration.putbackAll(isolated));
    expect(machine.mm.freePages()).toBe(machine.freeAtStart);
    expect(pool.audit(machine.holds)).toEqual([]);
  });
});

test('room in a zspage is used again before there is another', () => {
  const { machine, pool, store } = newPool();
  const handles = store(6, 1360);
  expect(pool.pages()).toHaveLength(2);
  machine.run(() => pool.free(handles[1]!));
  store(1, 1360);
  expect(pool.pages()).toHaveLength(2);
  expect(pool.audit(machine.holds)).toEqual([]);
});

test.each([
  ['nothing', 0],
  ['more than a page', 4097],
])('an object of %s is refused', (_what, sizeBytes) => {
  const { machine, pool } = newPool();
  expect(machine.run(() => pool.malloc(sizeBytes))).toBe(Errno.EINVAL);
});

test.each([0, 1, 3])('with memory for %i of four pages malloc fails and keeps nothing', (pages) => {
  const { machine, pool } = newPool();
  const alloc = machine.mm.alloc.bind(machine.mm);
  let left = pages;
  machine.mm.alloc = (...request) => (left-- > 0 ? alloc(...request) : Errno.ENOMEM);
  expect(machine.run(() => pool.malloc(3264))).toBe(Errno.ENOMEM);
  expect(machine.mm.freePages()).toBe(machine.freeAtStart);
  expect(pool.counters).toMatchObject({ zs_pages: 0, zs_objects: 0 });
});

test('an object is freed once', () => {
  const { machine, pool, store } = newPool();
  const [first] = store(2, 256);
  machine.run(() => pool.free(first!));
  expect(() => machine.run(() => pool.free(first!))).toThrow('a handle is of an object');
});

test('the audit sees content that was discarded or overwritten', () => {
  for (const damage of ['discard', 'write'] as const) {
    const { machine, pool, store } = newPool();
    store(3, 2720);
    if (damage === 'discard') machine.ram.discard(pool.pages()[1]!, 1);
    else machine.ram.write(pool.pages()[1]!);
    expect(pool.audit(machine.holds)).toHaveLength(1);
  }
});
