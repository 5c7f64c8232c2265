/** Pages of a balloon whose driver is not virtio's. */
import { expect, test } from 'vitest';
import { BalloonPages } from '../../../../guest/balloon/pages.ts';
import { MigrateMode } from '../../../../guest/page-migration/index.ts';
import { Errno } from '../../../../shared/index.ts';
import { GENERATIONS, MigrationMachine } from '../page-migration/machine.ts';

const PAGES = 8;

function newBalloon(machine: MigrationMachine, answer: Errno) {
  const counters = { balloon_inflate: 0, balloon_deflate: 0, balloon_migrate: 0 };
  const pages = new BalloonPages({
    kernel: machine.kernel,
    folios: machine.folios,
    generation: machine.generation,
    compaction: true,
    counters,
    *migratePage() {
      yield { kind: 'sleep', ns: 100 };
      return answer;
    },
  });
  const pfns = Int32Array.from({ length: PAGES }, () => pages.alloc());
  machine.run(() => pages.enqueue(pfns, PAGES));
  return { pages, counters, pfns };
}

test.each(GENERATIONS)('a host that gives back and takes nothing (ENOENT), %s', (generation) => {
  const machine = new MigrationMachine(generation);
  const { pages, counters, pfns } = newBalloon(machine, Errno.ENOENT);
  const moving = [...pfns.subarray(0, 3)];
  expect(machine.run(() => machine.migrateAll(moving, MigrateMode.ASYNC))).toBe(0);
  expect(pages.listedPages).toBe(PAGES - 3);
  expect(pages.isolatedPages).toBe(0);
  expect(counters).toEqual({ balloon_inflate: PAGES, balloon_deflate: 3, balloon_migrate: 0 });
  expect(machine.mm.freePages()).toBe(machine.freeAtStart - PAGES + 3);
  expect([...pages.audit(), ...machine.audit()]).toEqual([]);
});

test.each(GENERATIONS)('a host that refuses: the page is put back, %s', (generation) => {
  const machine = new MigrationMachine(generation);
  const { pages, counters, pfns } = newBalloon(machine, Errno.EIO);
  expect(machine.run(() => machine.migrateAll([...pfns], MigrateMode.SYNC))).toBe(PAGES);
  expect(pages.listedPages).toBe(PAGES);
  expect(counters).toEqual({ balloon_inflate: PAGES, balloon_deflate: 0, balloon_migrate: 0 });
  expect([...pages.audit(), ...machine.audit()]).toEqual([]);
});

test.each(GENERATIONS)('the last page in leaves first, %s', (generation) => {
  const machine = new MigrationMachine(generation);
  const { pages, pfns } = newBalloon(machine, Errno.OK);
  const out = new Int32Array(PAGES);
  machine.run(() => pages.dequeue(out, 3));
  expect([...out.subarray(0, 3)]).toEqual([...pfns].reverse().slice(0, 3));
});
