/** Console commands that make users of movable pages: a zsmalloc pool, a driver, page tables. */
import { Errno, errnoName } from '../../../shared/index.ts';
import { PteBits } from '../../movable/index.ts';
import type { Kthread } from '../../sched/kthread.ts';
import type { CommandLine } from '../command-line.ts';
import type { CommandTable } from '../console.ts';
import type { System } from '../system.ts';
import type { Held } from './held.ts';

export function movableCommands(system: System, held: Held): CommandTable {
  return {
    zspool: (args) => zspool(system, held, args),
    mapped_driver: (args) => mappedDriver(system, held, args),
    page_tables: (args) => pageTables(system, held, args),
  };
}

/** Stores objects; with `keep_every` all but every n-th are freed again. */
function* zspool(system: System, held: Held, args: CommandLine): Kthread<string | null> {
  const name = held.newName(args);
  const keepEvery = args.number('keep_every', 1);
  const pool = system.zspool;
  const handles: number[] = [];
  held.add(name, function* () {
    for (const handle of handles) yield* pool.free(handle);
  });
  const count = args.number('objects');
  while (handles.length < count) {
    const handle = yield* pool.malloc(args.number('size'));
    if (handle < 0) return `${errnoName(handle as Errno)} after ${handles.length} objects`;
    handles.push(handle);
    yield* pool.write(handle, handle);
  }
  const given = handles.splice(0);
  for (const [index, handle] of given.entries()) {
    if (index % keepEvery === 0) handles.push(handle);
    else yield* pool.free(handle);
  }
  return null;
}

/** Opens and maps a file of the driver; with `dma` the device uses every page until it is closed. */
function* mappedDriver(system: System, held: Held, args: CommandLine): Kthread<string | null> {
  const name = held.newName(args);
  const driver = system.mappedDriver;
  const file = driver.open(args.pages('size'));
  if (!file) return errnoName(Errno.ENOMEM);
  const usesDma = args.flag('dma');
  held.add(name, function* () {
    if (usesDma) for (const index of file.pages.keys()) driver.endDma(file, index);
    yield* driver.close(file);
  });
  for (const index of file.pages.keys()) {
    yield* driver.store(file, index);
    if (usesDma) yield* driver.beginDma(file, index);
  }
  return null;
}

/** An address space of that size in which every page has an entry. */
function* pageTables(system: System, held: Held, args: CommandLine): Kthread<string | null> {
  const name = held.newName(args);
  const tables = system.pageTables;
  const pageCount = args.pages('size');
  const space = tables.newSpace(pageCount);
  held.add(name, () => tables.exit(space));
  for (let vpn = 0; vpn < pageCount; vpn++) {
    const entry = (vpn << PteBits.SHIFT) | PteBits.PRESENT;
    const result = yield* tables.set(space, vpn, entry);
    if (result !== Errno.OK) return `${errnoName(result)} at page ${vpn}`;
  }
  return null;
}
