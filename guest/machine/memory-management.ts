/** What serves users of memory, with what runs above it plugged in: compaction and page migration. */
import { Errno, type Pfn } from '../../shared/index.ts';
import type { HintingStrategy } from '../balloon/hinting.ts';
import type { Compaction, Kcompactd } from '../compaction/index.ts';
import type { Folios } from '../folio/index.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { MemoryUsers } from '../memory-users/memory-users.ts';
import { Gfp } from '../mm/index.ts';
import { MigrateMode, type PageMigration } from '../page-migration/index.ts';
import type { Kthread } from '../sched/kthread.ts';

interface Above {
  readonly kernel: Kernel;
  readonly folios: Folios;
  readonly migration: PageMigration;
  readonly compaction: Compaction;
  readonly kcompactd: Kcompactd;
}

export function memoryUsers(above: Above): MemoryUsers {
  const { kernel, folios, compaction, kcompactd } = above;
  const users = new MemoryUsers(kernel, folios);
  users.kswapd.hooks = {
    onSleep(order) {
      compaction.onKswapdSleep();
      if (order > 0) kcompactd.wake(order);
    },
  };
  compaction.isKswapdRunning = () => users.kswapd.isRunning;
  users.source.directCompact = (order, gfp, cpu) => compaction.directCompact(order, gfp, cpu);
  users.gup.migrateForPin = (pfns) => migrateForPin(above, pfns);
  return users;
}

/** The virtio-balloon shrinker: blocks that are held for hinting go back under pressure. */
export function registerHintShrinker(users: MemoryUsers, strategy: HintingStrategy | null): void {
  const shrink = strategy?.shrink?.bind(strategy);
  if (!strategy || !shrink) return;
  users.vmscan.shrinkers.register({
    name: 'virtio-balloon',
    count: () => strategy.heldPages,
    scan: shrink,
  });
}

/** migrate_longterm_unpinnable_folios */
function* migrateForPin(above: Above, pfns: readonly Pfn[]): Kthread<Errno> {
  const { kernel, folios, migration } = above;
  const isolated = migration.newSet(pfns.length);
  for (const pfn of pfns) {
    if (yield* migration.isolate(pfn, MigrateMode.SYNC)) isolated.add(pfn);
  }
  const result = yield* migration.migrate(isolated, {
    mode: MigrateMode.SYNC,
    reason: 'longterm_pin',
    target: {
      alloc: (_src, order) => kernel.mm.alloc(order, Gfp.GFP_USER),
      free: (dst) => void folios.put(dst),
    },
  });
  yield* migration.putbackAll(isolated);
  migration.recycle(isolated);
  return result === 0 ? Errno.OK : Errno.ENOMEM;
}
