/** What every user of movable pages owes page migration, in both generations. */
import { describe, expect, test } from 'vitest';
import { PageFlag } from '../../../../guest/mm/index.ts';
import { MigrateMode } from '../../../../guest/page-migration/index.ts';
import { Errno, Prng } from '../../../../shared/index.ts';
import { Interleaver } from '../page-migration/interleaver.ts';
import { GENERATIONS, MigrationMachine } from '../page-migration/machine.ts';
import { type MovableUser, USERS } from './users.ts';

const PAGES = 6;
const { ASYNC, SYNC } = MigrateMode;
const CASES = GENERATIONS.flatMap((generation) =>
  USERS.map(([name, create]) => ({ generation, name, create })),
);

describe.each(CASES)('$name, $generation generation:', ({ generation, create }) => {
  function boot(isExplored = false): { machine: MigrationMachine; user: MovableUser } {
    const machine = new MigrationMachine(generation, { isExplored });
    const user = machine.run(() => create(machine, PAGES));
    expect(user.pfns()).toHaveLength(PAGES);
    return { machine, user };
  }

  /** Nothing is isolated, nothing was lost, and without the user all memory is free. */
  function expectSound(machine: MigrationMachine, user: MovableUser): void {
    expect(user.audit()).toEqual([]);
    expect(machine.run(() => user.verify())).toEqual([]);
    for (const pfn of user.pfns()) expect(machine.generation.isIsolated(pfn)).toBe(false);
    machine.run(() => user.releaseAll());
    machine.mm.drainPcp(0);
    expect(machine.mm.freePages()).toBe(machine.freeAtStart);
    expect(machine.audit()).toEqual([]);
  }

  test('a page is isolated once, and as before after it was put back', () => {
    const { machine, user } = boot();
    const before = machine.run(() => user.content());
    const [pfn] = user.pfns();
    const { migration, generation: vm, pages } = machine;
    const references = pages.refcount[pfn!];
    expect(machine.run(() => migration.isolate(pfn!, SYNC))).toBe(true);
    expect(vm.isIsolated(pfn!)).toBe(true);
    expect(pages.refcount[pfn!]).toBe(generation === 'list' ? 2 : 0);
    expect(machine.run(() => migration.isolate(pfn!, SYNC))).toBe(false);
    expect(user.audit()).toEqual([]);
    machine.run(() => migration.putback(pfn!));
    expect(pages.refcount[pfn!]).toBe(references);
    expect(user.pfns()).toContain(pfn);
    expect(machine.run(() => user.content())).toEqual(before);
    expectSound(machine, user);
  });

  test.each([ASYNC, SYNC])('every page moves, with its content (mode %i)', (mode) => {
    const { machine, user } = boot();
    const before = machine.run(() => user.content());
    const old = user.pfns();
    expect(machine.run(() => machine.migrateAll(old, mode))).toBe(0);
    expect(user.pfns()).toHaveLength(PAGES);
    expect(user.pfns().filter((pfn) => old.includes(pfn))).toEqual([]);
    for (const pfn of old) expect(machine.mm.isFree(pfn)).toBe(true);
    for (const pfn of user.pfns()) {
      expect(machine.pages.refcount[pfn]).toBe(generation === 'list' ? 1 : 0);
      expect(machine.pages.hasFlag(pfn, PageFlag.MOVABLE)).toBe(true);
    }
    expect(machine.run(() => user.content())).toEqual(before);
    expect(machine.mm.vmstat.pgmigrate_success).toBe(PAGES);
    expectSound(machine, user);
  });

  test('pages move again and again', () => {
    const { machine, user } = boot();
    const before = machine.run(() => user.content());
    for (let i = 0; i < 5; i++) {
      expect(machine.run(() => machine.migrateAll(user.pfns(), SYNC))).toBe(0);
    }
    expect(machine.run(() => user.content())).toEqual(before);
    expectSound(machine, user);
  });

  test('a busy page stays where it is, unchanged, and moves later', () => {
    const { machine, user } = boot();
    const before = machine.run(() => user.content());
    const [pfn] = user.pfns();
    const end = machine.run(() => user.keepBusy());
    expect(machine.run(() => machine.migrateAll([pfn!], ASYNC))).toBe(1);
    // EAGAIN is tried in ten passes, everything else once.
    expect(user.busyCount()).toBe(user.busyErrno === Errno.EAGAIN ? 10 : 1);
    expect(user.pfns()).toContain(pfn);
    expect(machine.target.allocated - machine.target.freed).toBe(0);
    end();
    expect(machine.run(() => user.content())).toEqual(before);
    expect(machine.run(() => machine.migrateAll([pfn!], ASYNC))).toBe(0);
    expect(machine.run(() => user.content())).toEqual(before);
    expectSound(machine, user);
  });

  test('without memory for targets nothing changes', () => {
    const { machine, user } = boot();
    const before = machine.run(() => user.content());
    machine.target.leftUntilEnomem = 2;
    expect(machine.run(() => machine.migrateAll(user.pfns(), SYNC))).toBe(Errno.ENOMEM);
    expect(machine.run(() => user.content())).toEqual(before);
    machine.target.leftUntilEnomem = Number.POSITIVE_INFINITY;
    expectSound(machine, user);
  });

  test.each(['putback', 'migrate'])('pages given up while isolated are freed by %s', (how) => {
    const { machine, user } = boot();
    const pfns = user.pfns();
    const { migration } = machine;
    const isolated = machine.run(() => machine.isolateAll(pfns, SYNC));
    expect(isolated.count).toBe(PAGES);
    machine.spawn(() => user.releaseAll());
    machine.scheduler.run(machine.scheduler.now + 1e6, 0);
    for (const pfn of pfns) expect(machine.mm.isFree(pfn)).toBe(false);
    if (how === 'migrate') machine.run(() => migration.migrate(isolated, machine.request(SYNC)));
    machine.run(() => migration.putbackAll(isolated));
    machine.settle();
    expect(user.pfns()).toEqual([]);
    expect(user.audit()).toEqual([]);
    expect(machine.mm.freePages()).toBe(machine.freeAtStart);
    expect(machine.audit()).toEqual([]);
  });

  test('a page whose memory fails is emptied and never used again', () => {
    const { machine, user } = boot();
    const before = machine.run(() => user.content());
    const [pfn] = user.pfns();
    expect(machine.run(() => machine.memoryFailure.softOfflinePage(pfn!))).toBe(Errno.OK);
    expect(user.pfns()).not.toContain(pfn);
    expect(machine.run(() => user.content())).toEqual(before);
    expect(user.audit()).toEqual([]);
    machine.run(() => user.releaseAll());
    expect(machine.mm.freePages()).toBe(machine.freeAtStart - 1);
    expect(machine.pages.hasFlag(pfn!, PageFlag.HWPOISON)).toBe(true);
  });

  test('two migrators, a user and the end of it in any order lose nothing', () => {
    for (let seed = 1; seed <= 40; seed++) {
      const { machine, user } = boot(true);
      const prng = new Prng(seed);
      const random = (below: number) => prng.below(below);
      const threads = new Interleaver();
      for (let migrator = 0; migrator < 2; migrator++) {
        threads.add(function* () {
          for (let round = 0; round < 3; round++) {
            const isolated = yield* machine.isolateAll(user.pfns(), ASYNC);
            const request = machine.request(random(2) === 0 ? ASYNC : SYNC);
            if (random(3) > 0) yield* machine.migration.migrate(isolated, request);
            yield* machine.migration.putbackAll(isolated);
          }
        });
      }
      threads.add(function* () {
        for (let i = 0; i < 12; i++) yield* user.use(random);
        if (seed % 2 === 0) yield* user.releaseAll();
      });
      threads.run(random, () => {
        const problems = user.audit();
        if (problems.length > 0) throw new Error(`seed ${seed}: ${problems.join('; ')}`);
      });
      expectSound(machine, user);
    }
  });
});
