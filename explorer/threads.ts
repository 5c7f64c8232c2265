/**
 * The threads of a scenario: users of memory, monitors and kernel threads that get into each other's
 * way. What they choose is drawn from the seed; when they run is the policy's affair.
 */

import { CompactPriority } from '../guest/compaction/index.ts';
import { Gfp, PageFlag, PageOwner } from '../guest/mm/index.ts';
import { MigrateMode } from '../guest/page-migration/index.ts';
import { type Kthread, preempt } from '../guest/sched/kthread.ts';
import { HintStatus } from '../host/balloon/hinting.ts';
import type { ExploreThread, PageUser } from '../protocol/index.ts';
import { Errno, errnoName, type Pfn, type Prng } from '../shared/index.ts';
import type { ExploredMachine } from './machine.ts';
import { Violation } from './violation.ts';

type ThreadOf<K extends ExploreThread['kind']> = Extract<ExploreThread, { kind: K }>;

const PAUSE = preempt('in user space');
const BETWEEN_COMMANDS = preempt('between two commands');

const PRIORITY_OF = {
  async: CompactPriority.ASYNC,
  sync_light: CompactPriority.SYNC_LIGHT,
} as const;

/** Pages of these owners are movable ones that isolation may be tried on. */
const OWNERS_OF: Readonly<Record<PageUser, readonly PageOwner[]>> = {
  balloon: [PageOwner.BALLOON],
  zspool: [PageOwner.ZSMALLOC],
  process: [PageOwner.ANON, PageOwner.SHMEM],
  mapped_driver: [PageOwner.DRIVER],
  page_tables: [PageOwner.TABLE],
  any: [
    PageOwner.BALLOON,
    PageOwner.ZSMALLOC,
    PageOwner.ANON,
    PageOwner.DRIVER,
    PageOwner.TABLE,
    PageOwner.SHMEM,
    PageOwner.FILE,
  ],
};

/** A page in use by one of them, or −1; waits until there is one, if there ever will be. */
function* pickPage(machine: ExploredMachine, of: PageUser, prng: Prng): Kthread<Pfn> {
  const count = countPages(machine, of);
  if (count === 0) yield machine.scheduler.until(() => countPages(machine, of) > 0);
  const found = countPages(machine, of);
  return found === 0 ? -1 : nthPage(machine, of, prng.below(found));
}

/** Of the pages that they use the n-th, or −1 if there are not so many. */
function nthPage(machine: ExploredMachine, of: PageUser, n: number): Pfn {
  let left = n;
  return findPage(machine, of, () => left-- === 0);
}

function countPages(machine: ExploredMachine, of: PageUser): number {
  let count = 0;
  findPage(machine, of, () => ++count < 0);
  return count;
}

function findPage(
  { runs, system }: ExploredMachine,
  of: PageUser,
  isIt: (pfn: Pfn) => boolean,
): Pfn {
  const { flags, order, owner } = system.mm.pages;
  const owners = OWNERS_OF[of];
  for (const [start, end] of runs) {
    for (let pfn = start; pfn < end; pfn += 1 << order[pfn]!) {
      if ((flags[pfn]! & PageFlag.ALLOCATED) === 0 || order[pfn] !== 0) continue;
      if (owners.includes(owner[pfn]! as PageOwner) && isIt(pfn)) return pfn;
    }
  }
  return -1;
}

/** balloon: the target goes up or down by so many pages, so many times. */
export function* balloonMonitor(
  machine: ExploredMachine,
  { kind, pages, times }: ThreadOf<'inflate' | 'deflate'>,
): Kthread {
  const { device, ghost } = machine;
  for (let i = 0; i < times; i++) {
    const change = kind === 'inflate' ? pages : -pages;
    device.setTarget(Math.max(0, device.targetPages + change));
    ghost.say(`balloon target ${device.targetPages}`);
    yield BETWEEN_COMMANDS;
  }
}

/** Rounds of hinting that no migration asked for, as Firecracker's API starts them. */
export function* hintMonitor(machine: ExploredMachine, { times }: ThreadOf<'hint'>): Kthread {
  const { device, ghost, scheduler } = machine;
  const isOver = (): boolean => device.hintStatus === HintStatus.STOP;
  for (let i = 0; i < times; i++) {
    device.hintStart();
    ghost.say(`hinting starts, id ${device.hintCmdId}`);
    // Sometimes the host ends the round, sometimes the guest.
    if (machine.seed.split(`hint ${i}`).chance(1, 2)) yield BETWEEN_COMMANDS;
    else yield scheduler.until(isOver);
    device.hintStop();
    ghost.say('hinting stops');
    yield BETWEEN_COMMANDS;
  }
  device.hintDone();
  ghost.say('hinting is done');
}

/** A kernel user of plain pages, which must keep what is written to them. */
export function* churn(
  machine: ExploredMachine,
  { cpu, pages, order, keep, awaits, times }: ThreadOf<'churn'>,
): Kthread {
  const { mm, ram } = machine.system;
  const { ghost, scheduler } = machine;
  const held: Pfn[] = [];
  const freeOldest = (): void => {
    const pfn = held.shift()!;
    ghost.forget(pfn);
    ghost.say(`free ${pfn}`);
    mm.free(pfn, order, cpu);
  };
  for (let i = 0; i < times; i++) {
    if (awaits !== 'nothing') yield scheduler.until(hintOf(machine, awaits, i));
    for (let j = 0; j < pages; j++) {
      const pfn = mm.alloc(order, Gfp.GFP_KERNEL, cpu);
      if (pfn < 0) break;
      held.push(pfn);
      ghost.wrote(ram, pfn);
      ghost.say(`alloc and write ${pfn}`);
      yield PAUSE;
    }
    if (keep && i === times - 1) break;
    while (held.length > 0) {
      freeOldest();
      yield PAUSE;
    }
  }
  machine.atEnd.push(() => {
    while (held.length > 0) freeOldest();
  });
}

/** Another hint since now; or any, in a round after the `roundsBefore` first ones. */
function hintOf(
  { system }: ExploredMachine,
  awaits: 'hint' | 'round',
  roundsBefore: number,
): () => boolean {
  const counters = system.driver.hinting?.counters;
  if (!counters) return () => false;
  const { hint_blocks: blocksBefore } = counters;
  if (awaits === 'hint') return () => counters.hint_blocks > blocksBefore;
  return () => counters.hint_blocks > blocksBefore && counters.hint_rounds > roundsBefore;
}

/** Reclaim, as the shrinker of held blocks sees it. */
export function* shrink(
  { system, ghost, scheduler }: ExploredMachine,
  { pages, times }: ThreadOf<'shrink'>,
): Kthread {
  for (let i = 0; i < times; i++) {
    yield scheduler.until(() => (system.strategy?.heldPages ?? 0) > 0);
    const freed = system.strategy?.shrink?.(pages) ?? 0;
    if (freed > 0) ghost.say(`shrinker frees ${freed} pages`);
  }
}

export function* softOffline(
  machine: ExploredMachine,
  { of, times }: ThreadOf<'soft_offline'>,
): Kthread {
  const { system, ghost } = machine;
  const prng = machine.seed.split('soft_offline');
  for (let i = 0; i < times; i++) {
    yield PAUSE;
    const pfn = yield* pickPage(machine, of, prng);
    if (pfn < 0) continue;
    ghost.say(`soft_offline_page ${pfn}`);
    const result = yield* system.memoryFailure.softOfflinePage(pfn);
    ghost.say(`soft_offline_page ${pfn}: ${errnoName(result)}`);
    if (result !== Errno.OK || system.mm.pages.hasFlag(pfn, PageFlag.HWPOISON)) continue;
    throw new Violation(
      'soft offline that succeeds takes the frame out of use',
      `soft_offline_page of ${pfn} says it succeeded, and PG_hwpoison is not set`,
    );
  }
}

/** By hand over the whole zone, or as an allocation of that order would. */
export function* compact(
  machine: ExploredMachine,
  { cpu, mode, order, times }: ThreadOf<'compact'>,
): Kthread {
  const { ghost, scheduler } = machine;
  const { compaction } = machine.system;
  for (let i = 0; i < times; i++) {
    yield scheduler.until(() => countPages(machine, 'any') > 0);
    ghost.say(mode === 'sync' ? 'compact_memory' : `try_to_compact_pages, order ${order}`);
    if (mode === 'sync') yield* compaction.compactMemory(1);
    else yield* compaction.tryToCompact(order, Gfp.GFP_HIGHUSER_MOVABLE, PRIORITY_OF[mode], cpu);
  }
}

/** Isolates movable pages as compaction would, and migrates them or puts them back. */
export function* isolator(
  machine: ExploredMachine,
  { cpu, of, pages, then, times }: ThreadOf<'isolate'>,
  name: string,
): Kthread {
  const { system, ghost } = machine;
  const { migration, mm, folios } = system;
  const prng = machine.seed.split(name);
  const target = {
    alloc: (_src: Pfn, order: number) => mm.alloc(order, Gfp.GFP_HIGHUSER_MOVABLE, cpu),
    free: (dst: Pfn) => void folios.put(dst, cpu),
  };
  for (let i = 0; i < times; i++) {
    yield PAUSE;
    const isolated = migration.newSet(pages);
    const mode = prng.chance(1, 2) ? MigrateMode.ASYNC : MigrateMode.SYNC;
    for (let j = 0; j < pages; j++) {
      const pfn = yield* pickPage(machine, of, prng);
      if (pfn >= 0 && (yield* migration.isolate(pfn, mode))) isolated.add(pfn);
    }
    const migrates = then === 'migrate' || (then === 'either' && prng.chance(1, 2));
    if (migrates && isolated.count > 0) {
      ghost.say(`migrate_pages of ${isolated.count}`);
      yield* migration.migrate(isolated, { mode, reason: 'syscall_or_cpuset', target });
    }
    yield* migration.putbackAll(isolated);
    migration.recycle(isolated);
  }
}
