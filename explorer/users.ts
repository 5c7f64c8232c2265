/**
 * Users of movable pages: objects in a compressed pool, a driver's pages that user space maps, leaf
 * page tables. Each looks whether it still finds what it stored, wherever its pages are by then.
 */

import { PteBits } from '../guest/movable/index.ts';
import type { Process } from '../guest/process/process.ts';
import { type Kthread, preempt } from '../guest/sched/kthread.ts';
import type { ExploreThread } from '../protocol/index.ts';
import { Errno } from '../shared/index.ts';
import type { ExploredMachine } from './machine.ts';
import { Violation } from './violation.ts';

type ThreadOf<K extends ExploreThread['kind']> = Extract<ExploreThread, { kind: K }>;

const PAUSE = preempt('in user space');
/** Of objects: some fit a page several times, some lie across two. */
const SIZES_BYTES = [1360, 2720, 3264] as const;
const PTRS_PER_TABLE = 512;

export function* zspoolUser(
  machine: ExploredMachine,
  { objects, times }: ThreadOf<'zspool'>,
  name: string,
): Kthread {
  const { ghost, system } = machine;
  const pool = system.zspool;
  const prng = machine.seed.split(name);
  let value = prng.nextU32();
  for (let i = 0; i < times; i++) {
    const stored = new Map<number, number>();
    for (let j = 0; j < objects; j++) {
      yield PAUSE;
      const handle = yield* pool.malloc(SIZES_BYTES[prng.below(SIZES_BYTES.length)]!);
      if (handle < 0) continue;
      yield* pool.write(handle, ++value);
      ghost.say(`zs_malloc object ${handle}, in page ${pool.locations.get(handle)?.pfn}`);
      stored.set(handle, value);
    }
    for (const [handle, expected] of stored) {
      const found = yield* pool.read(handle);
      if (found !== expected) throw changed(`object ${handle}`, found, expected);
    }
    for (const handle of stored.keys()) {
      yield PAUSE;
      ghost.say(`zs_free object ${handle}`);
      yield* pool.free(handle);
    }
  }
}

/** User space stores to the pages of a file, a device reads some of them, the file is closed. */
export function* mappedUser(
  machine: ExploredMachine,
  { pages, times }: ThreadOf<'mapped_driver'>,
  name: string,
): Kthread {
  const { ghost, system } = machine;
  const driver = system.mappedDriver;
  const prng = machine.seed.split(name);
  for (let i = 0; i < times; i++) {
    yield PAUSE;
    const file = driver.open(pages);
    if (!file) continue;
    ghost.say(`mmap pages ${driver.pfnsOf(file).join(' ')}`);
    for (let index = 0; index < pages; index++) {
      yield* driver.store(file, index);
      if (!prng.chance(1, 2) || !(yield* driver.beginDma(file, index))) continue;
      yield PAUSE;
      driver.endDma(file, index);
    }
    yield PAUSE;
    ghost.say('munmap, close');
    yield* driver.close(file);
  }
}

/** Address spaces of one table or more come, are walked, and go. */
export function* tablesUser(
  machine: ExploredMachine,
  { pages, times }: ThreadOf<'page_tables'>,
): Kthread {
  const { ghost, system } = machine;
  const tables = system.pageTables;
  for (let i = 0; i < times; i++) {
    const space = tables.newSpace(pages * PTRS_PER_TABLE);
    for (let leaf = 0; leaf < pages; leaf++) {
      yield PAUSE;
      const vpn = leaf * PTRS_PER_TABLE + i;
      const entry = ((vpn + 1) << PteBits.SHIFT) | PteBits.PRESENT;
      if ((yield* tables.set(space, vpn, entry)) !== Errno.OK) continue;
      ghost.say(`table ${space.leaves[leaf]?.pfn} maps ${vpn}`);
      yield* tables.walk(space, vpn, true);
      const found = yield* tables.get(space, vpn);
      const expected = entry | PteBits.ACCESSED | PteBits.DIRTY;
      if (found !== expected) throw changed(`the entry of ${vpn}`, found, expected);
    }
    yield PAUSE;
    ghost.say('exit of the address space');
    yield* tables.exit(space);
  }
}

/** A process that faults its pages in, forks, and is pinned for a while. */
export function* processUser(
  machine: ExploredMachine,
  { pages, times }: ThreadOf<'process'>,
  name: string,
): Kthread {
  const { ghost, system } = machine;
  const prng = machine.seed.split(name);
  for (let i = 0; i < times; i++) {
    const title = `${name}.${i}`;
    const isShared = prng.chance(1, 2);
    const process = system.users.startProcess({ name: title, anonPages: isShared ? 0 : pages })!;
    if (isShared) {
      process.mmap(system.users.createSpace({ name: title, kind: 'shmem', sizePages: pages })!);
    }
    const tags: number[] = [];
    for (let vpn = 0; vpn < pages; vpn++) {
      yield PAUSE;
      if ((yield* process.touch(vpn, true)) !== Errno.OK) break;
      tags.push(system.ram.tags[process.pfnAt(vpn)]!);
      ghost.say(`page fault, page ${process.pfnAt(vpn)}`);
    }
    if (prng.chance(1, 2)) yield* forkAndWrite(machine, title, tags.length);
    if (prng.chance(1, 2)) yield* pinForAWhile(machine, process, tags.length);
    yield PAUSE;
    for (const [vpn, tag] of tags.entries()) {
      // The OOM killer may have come, and a page that moves can wait.
      if (!process.isAlive || (yield* process.touch(vpn, false)) !== Errno.OK) break;
      const found = system.ram.tags[process.pfnAt(vpn)]!;
      if (found !== tag) throw changed(`page ${vpn} of ${title}`, found, tag);
    }
    ghost.say('exit');
    system.users.exit(title);
    if (isShared) yield* system.users.removeSpace(title);
  }
}

/** A child that writes to what it shares with its parent, and ends. */
function* forkAndWrite({ ghost, system }: ExploredMachine, parent: string, pages: number): Kthread {
  const name = `${parent} child`;
  const child = system.users.fork(parent, name);
  if (typeof child === 'number') return;
  ghost.say('fork');
  // Shared memory stays shared, and its content would change.
  for (let vpn = 0; vpn < Math.min(pages, child.anonPages); vpn++) {
    yield PAUSE;
    if ((yield* child.touch(vpn, true)) === Errno.OK) ghost.say(`copy, page ${child.pfnAt(vpn)}`);
  }
  ghost.say('exit of the child');
  system.users.exit(name);
}

function* pinForAWhile(
  { ghost, system }: ExploredMachine,
  process: Process,
  pages: number,
): Kthread {
  if (pages === 0 || (yield* process.touch(0, false)) !== Errno.OK) return;
  const pfn = process.pfnAt(0);
  system.users.gup.get(pfn);
  ghost.say(`get_page ${pfn}`);
  yield PAUSE;
  ghost.say(`put_page ${pfn}`);
  system.users.gup.put(pfn);
}

function changed(what: string, found: number, expected: number): Violation {
  return new Violation(
    'a user finds what it stored',
    `${what} holds ${found}, its user stored ${expected}`,
  );
}
