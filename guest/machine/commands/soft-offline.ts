/** Console command that takes pages out of use, as writing to soft_offline_page in sysfs does. */
import type { Pfn } from '../../../shared/index.ts';
import { PageFlag, PageOwner, type Pages } from '../../mm/index.ts';
import type { Kthread } from '../../sched/kthread.ts';
import type { CommandLine } from '../command-line.ts';
import type { CommandTable } from '../console.ts';
import type { System } from '../system.ts';

/** Owners of the pages that `of` names. */
const OWNERS: Readonly<Record<string, readonly PageOwner[]>> = {
  process: [PageOwner.ANON, PageOwner.SHMEM],
  balloon: [PageOwner.BALLOON],
  zspool: [PageOwner.ZSMALLOC],
  mapped_driver: [PageOwner.DRIVER],
  page_tables: [PageOwner.TABLE],
  slab: [PageOwner.SLAB],
};
const FREE = 'free';

/** Tries so many pages of a kind, ascending; those that cannot be emptied are only counted. */
export function softOfflineCommand(system: System): CommandTable {
  return {
    *soft_offline(args: CommandLine): Kthread<string | null> {
      const target = args.oneOf('of', [FREE, ...Object.keys(OWNERS)]);
      const count = args.number('pages');
      const pfns = candidates(system.mm.pages, target, count);
      if (pfns.length < count) return `only ${pfns.length} pages of ${target} to take offline`;
      for (const pfn of pfns) yield* system.memoryFailure.softOfflinePage(pfn);
      return null;
    },
  };
}

function candidates(pages: Pages, target: string, count: number): Pfn[] {
  const owners: readonly number[] = OWNERS[target] ?? [];
  const found: Pfn[] = [];
  for (let pfn = 0; pfn < pages.ramPages && found.length < count; pfn++) {
    const isOf = target === FREE ? pages.isFree(pfn) : isOwned(pages, pfn, owners);
    if (isOf) found.push(pfn);
  }
  return found;
}

function isOwned(pages: Pages, pfn: Pfn, owners: readonly number[]): boolean {
  return pages.hasFlag(pfn, PageFlag.ALLOCATED) && owners.includes(pages.owner[pfn]!);
}
