/** Console command that takes pages out of use, as writing to soft_offline_page in sysfs does. */
import type { Pfn } from '../../../shared/index.ts';
import { PageFlag, PageOwner } from '../../mm/index.ts';
import type { Kthread } from '../../sched/kthread.ts';
import type { CommandLine } from '../command-line.ts';
import type { CommandTable } from '../console.ts';
import type { System } from '../system.ts';

const TARGETS = ['process', 'balloon', 'free'] as const;
type Target = (typeof TARGETS)[number];

/** Tries so many pages of a kind, ascending; those that cannot be emptied are only counted. */
export function softOfflineCommand(system: System): CommandTable {
  return {
    *soft_offline(args: CommandLine): Kthread<string | null> {
      const target = args.oneOf('of', TARGETS);
      const count = args.number('pages');
      const pfns = candidates(system, target, count);
      if (pfns.length < count) return `only ${pfns.length} pages of ${target} to take offline`;
      for (const pfn of pfns) yield* system.memoryFailure.softOfflinePage(pfn);
      return null;
    },
  };
}

function candidates(system: System, target: Target, count: number): Pfn[] {
  const { pages } = system.mm;
  const found: Pfn[] = [];
  for (let pfn = 0; pfn < pages.ramPages && found.length < count; pfn++) {
    if (isOf(system, target, pfn)) found.push(pfn);
  }
  return found;
}

function isOf({ mm: { pages } }: System, target: Target, pfn: Pfn): boolean {
  if (target === 'free') return pages.isFree(pfn);
  if (!pages.hasFlag(pfn, PageFlag.ALLOCATED) || pages.hasFlag(pfn, PageFlag.HWPOISON))
    return false;
  const owner = pages.owner[pfn];
  if (target === 'balloon') return owner === PageOwner.BALLOON;
  return owner === PageOwner.ANON || owner === PageOwner.FILE;
}
