import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Gfp, ZoneType } from '../../guest/mm/index.ts';
import type { AddressSpace } from '../../guest/page-cache/page-cache.ts';
import {
  ListGeneration,
  MigrateMode,
  type MigrateRequest,
  PageMigration,
} from '../../guest/page-migration/index.ts';
import type { Process } from '../../guest/process/process.ts';
import type { Kthread } from '../../guest/sched/kthread.ts';
import { Errno, type Pfn, Prng } from '../../shared/index.ts';
import { Machine } from '../unit/guest/memory-users/machine.ts';

const KINDS = [
  'touch',
  'touchRange',
  'fork',
  'exit',
  'dontNeed',
  'read',
  'write',
  'sync',
  'truncate',
  'pin',
  'unpin',
  'get',
  'isolate',
  'putback',
  'slab',
  'freeSlab',
  'reclaim',
  'migrate',
] as const;

/** Together much more than there is memory. */
const ANON_PAGES = 1200;
const FILE_PAGES = 500;

interface Operation {
  readonly kind: (typeof KINDS)[number];
  readonly who: number;
  readonly at: number;
  readonly count: number;
  readonly write: boolean;
}

const operation: fc.Arbitrary<Operation> = fc.record({
  kind: fc.constantFrom(...KINDS),
  who: fc.nat(7),
  at: fc.nat(ANON_PAGES - 1),
  count: fc.integer({ min: 1, max: 1000 }),
  write: fc.boolean(),
});

/** Threads of one round run together; `failing`: one allocation in so many fails; 0: none. */
const rounds = fc.array(
  fc.record({
    operations: fc.array(operation, { minLength: 1, maxLength: 6 }),
    failing: fc.constantFrom(0, 0, 2, 5, 20),
  }),
  { maxLength: 12 },
);

class World {
  readonly machine = new Machine({ ramPages: 2048, movablePages: 1024 });
  readonly #taken: number[] = [];
  readonly #isolated: number[] = [];
  readonly #migration: PageMigration;
  #forks = 0;

  constructor() {
    const { users, kernel, folios } = this.machine;
    this.#migration = new PageMigration(kernel, folios, new ListGeneration(kernel, folios));
    users.gup.migrateForPin = (pfns) => this.#migrate(pfns, 'longterm_pin', MigrateMode.SYNC);
    for (const [name, kind] of [
      ['file', 'file'],
      ['other', 'file'],
      ['shmem', 'shmem'],
    ] as const) {
      users.createSpace({ name, kind, sizePages: FILE_PAGES });
    }
    for (const name of ['a', 'b']) this.#start(name);
  }

  #start(name: string): void {
    const { users } = this.machine;
    const process = users.startProcess({ name, anonPages: ANON_PAGES });
    for (const space of users.spaces.values()) process?.mmap(space);
  }

  *apply({ kind, who, at, count, write }: Operation): Kthread {
    const { machine } = this;
    const { users } = machine;
    const processes = [...users.processes.values()];
    const process = processes[who % processes.length]!;
    const space = [...users.spaces.values()][who % 3]!;
    const start = at % FILE_PAGES;
    const length = Math.min(count, FILE_PAGES - start);
    switch (kind) {
      case 'touch':
        yield* process.touch((at * 7) % process.sizePages, write);
        return;
      case 'touchRange':
        yield* process.touchRange(at, count, write, who % 2);
        return;
      case 'fork':
        if (process.isAlive) users.fork(process.name, `child ${this.#forks++}`);
        return;
      case 'exit':
        users.exit(process.name);
        if (users.processes.size < 2) this.#start(`new ${this.#forks++}`);
        return;
      case 'dontNeed':
        if (process.isAlive) process.dontNeed(at, Math.min(count, ANON_PAGES - at));
        return;
      case 'read':
        yield* space.read(start, length);
        return;
      case 'write':
        yield* space.write(start, length);
        return;
      case 'sync':
        yield* space.sync(start, length);
        return;
      case 'truncate':
        yield* space.truncate(start, length);
        return;
      default:
        yield* this.#disturb({ kind, who, at, count, write }, process, space);
    }
  }

  *#disturb(op: Operation, process: Process, space: AddressSpace): Kthread {
    const { users, folios } = this.machine;
    switch (op.kind) {
      case 'pin': {
        const source = op.write ? process : space;
        const count = Math.min(op.count, FILE_PAGES);
        yield* users.container(`c${op.who}`).pinRange(source, op.write ? op.at : 0, count);
        return;
      }
      case 'unpin':
        users.closeContainer(`c${op.who}`);
        return;
      case 'get': {
        const pfn = process.pfnAt(op.at);
        if (op.write && pfn >= 0) {
          users.gup.get(pfn);
          this.#taken.push(pfn);
        } else if (this.#taken.length > 0) users.gup.put(this.#taken.pop()!);
        return;
      }
      case 'isolate': {
        const pfn = op.write ? process.pfnAt(op.at) : space.pfnAt(op.at % FILE_PAGES);
        if (pfn >= 0 && folios.lruvec.isolate(pfn)) this.#isolated.push(pfn);
        return;
      }
      case 'putback':
        for (const pfn of this.#isolated.splice(0, op.count)) folios.putbackLru(pfn);
        return;
      case 'slab':
        yield* users.slab('s', { order: 1, type: 'unmovable' }).alloc(op.count >> 2);
        return;
      case 'freeSlab':
        users.slab('s', { order: 1, type: 'unmovable' }).freeSome(op.count, new Prng(op.at));
        return;
      case 'reclaim':
        users.vmscan.tryToFreeNow(ZoneType.MOVABLE);
        return;
      case 'migrate': {
        const pfns: Pfn[] = [];
        for (let i = 0; i < op.count; i++) {
          pfns.push(i % 2 === 0 ? process.pfnAt(op.at + i) : space.pfnAt((op.at + i) % FILE_PAGES));
        }
        yield* this.#migrate(pfns, 'compaction', op.write ? MigrateMode.SYNC : MigrateMode.ASYNC);
      }
    }
  }

  *#migrate(
    pfns: readonly Pfn[],
    reason: MigrateRequest['reason'],
    mode: MigrateMode,
  ): Kthread<Errno> {
    const { machine } = this;
    const isolated = this.#migration.newSet(pfns.length);
    for (const pfn of pfns) {
      if (pfn >= 0 && (yield* this.#migration.isolate(pfn, mode))) isolated.add(pfn);
    }
    const left = yield* this.#migration.migrate(isolated, {
      mode,
      reason,
      target: {
        alloc: (_src, order) => machine.mm.alloc(order, Gfp.GFP_USER),
        free: (dst) => void machine.folios.put(dst),
      },
    });
    yield* this.#migration.putbackAll(isolated);
    this.#migration.recycle(isolated);
    return left === 0 ? Errno.OK : Errno.ENOMEM;
  }

  end(): void {
    const { machine } = this;
    for (const pfn of this.#taken.splice(0)) machine.users.gup.put(pfn);
    for (const pfn of this.#isolated.splice(0)) machine.folios.putbackLru(pfn);
    machine.run(() => machine.users.releaseAll());
  }

  /** A clean page in the cache holds what is on storage. */
  get unsaved(): number {
    const { machine } = this;
    let count = 0;
    for (const space of machine.users.spaces.values()) {
      for (let index = 0; space.kind === 'file' && index < FILE_PAGES; index++) {
        const pfn = space.pfnAt(index);
        const isDirty = pfn >= 0 && (machine.mm.pages.flags[pfn]! & (1 << 10)) !== 0;
        if (pfn >= 0 && !isDirty && machine.ram.tags[pfn] !== space.storedTag(index)) count++;
      }
    }
    return count;
  }
}

test('whatever users of memory do, every reference is accounted for, and in the end all is free', () => {
  fc.assert(
    fc.property(rounds, fc.nat(), (all, seed) => {
      const world = new World();
      const { machine } = world;
      const prng = new Prng(seed);
      for (const { operations, failing } of all) {
        machine.failsNow = () => failing > 0 && prng.below(failing) === 0;
        machine.run(...operations.map((op) => () => world.apply(op)));
        expect(machine.audit()).toEqual([]);
        expect(world.unsaved).toBe(0);
      }
      machine.failsNow = () => false;
      world.end();
      expect(machine.audit()).toEqual([]);
      expect(machine.usedPages).toBe(0);
    }),
    { numRuns: 60 },
  );
});
