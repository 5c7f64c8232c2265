/**
 * The guest's page state when tracing began: what kpageflags says, completed by what the trace
 * gives away. docs/recordings.md explains each set.
 */
import { Bitmap } from '../../shared/index.ts';
import {
  EventKind,
  type GfpClass,
  Migratetype,
  PAGEBLOCK_ORDER,
  type StartState,
  type TraceEvents,
} from '../../shared/recording/index.ts';
import { Kpf, type PageFlags } from './kpageflags.ts';

export interface StartFacts {
  readonly flags: PageFlags;
  readonly events: TraceEvents;
  readonly gfpClasses: readonly GfpClass[];
  readonly migrateAtNs: number;
  readonly zeroAtMigrate: Bitmap;
  readonly freshBoot: boolean;
}

/** `events.atNs` and `migrateAtNs` count from the same origin. */
export function deriveStartState(facts: StartFacts): StartState {
  const { flags, zeroAtMigrate, freshBoot } = facts;
  const free = flags.select(Kpf.BUDDY);
  const reserved = flags.select(Kpf.RESERVED, Kpf.NOPAGE, Kpf.HWPOISON);
  const { onPcp, touched } = scanEvents(facts, free, reserved);
  const zero = new Bitmap(flags.frameCount);
  const neverTouched = new Bitmap(flags.frameCount);
  for (let pfn = 0; pfn < flags.frameCount; pfn++) {
    const isFree = free.get(pfn);
    if (!touched.get(pfn)) {
      if (!zeroAtMigrate.get(pfn)) continue;
      zero.set(pfn);
      if (isFree && freshBoot) neverTouched.set(pfn);
    } else if (isFree && freshBoot) {
      // The dump came too late for it; since power-on it was most likely never used.
      zero.set(pfn);
    }
  }
  return {
    free,
    onPcp,
    reserved,
    noPage: flags.select(Kpf.NOPAGE),
    zero,
    neverTouched,
    pageblockMigratetype: guessPageblocks(facts),
  };
}

/** `touched`: by any event before the dump of the memory. */
function scanEvents(
  facts: StartFacts,
  free: Bitmap,
  reserved: Bitmap,
): { onPcp: Bitmap; touched: Bitmap } {
  const { events, migrateAtNs, flags } = facts;
  const onPcp = new Bitmap(flags.frameCount);
  const touched = new Bitmap(flags.frameCount);
  const seen = new Bitmap(flags.frameCount);
  for (let i = 0; i < events.count; i++) {
    const first = events.pfn[i]!;
    const end = first + (1 << events.order[i]!);
    const beforeDump = events.atNs[i]! < migrateAtNs;
    for (let pfn = first; pfn < end; pfn++) {
      if (beforeDump) touched.set(pfn);
      if (seen.get(pfn)) continue;
      seen.set(pfn);
      // A reserved frame that is allocated was given to the allocator without a trace of it.
      const isKnown = free.get(pfn) || reserved.get(pfn);
      if (events.kind[i] === EventKind.ALLOC && !isKnown) onPcp.set(pfn);
    }
  }
  return { onPcp, touched };
}

/**
 * Nobody exports the real migrate types. Pages in use at the start vote for their block, and so
 * does the first allocation of each frame in the trace; a block without a vote is movable, as
 * all blocks are at power-on.
 */
function guessPageblocks(facts: StartFacts): Uint8Array {
  const { flags, events, gfpClasses } = facts;
  const blockCount = Math.ceil(flags.frameCount / (1 << PAGEBLOCK_ORDER));
  const votes = new Uint32Array(3 * blockCount);
  const vote = (pfn: number, migratetype: number): void => {
    votes[3 * (pfn >>> PAGEBLOCK_ORDER) + migratetype]!++;
  };
  for (let pfn = 0; pfn < flags.frameCount; pfn++) {
    if (flags.has(pfn, Kpf.ANON) || flags.has(pfn, Kpf.LRU)) vote(pfn, Migratetype.MOVABLE);
    else if (flags.has(pfn, Kpf.SLAB) || flags.has(pfn, Kpf.PGTABLE)) {
      vote(pfn, Migratetype.UNMOVABLE);
    }
  }
  const seen = new Bitmap(flags.frameCount);
  for (let i = 0; i < events.count; i++) {
    const gfpClass = gfpClasses[events.gfpClass[i]!];
    // Hinted blocks are borrowed from every list there is: they tell nothing.
    const tells = events.kind[i] === EventKind.ALLOC && gfpClass && !gfpClass.hintDriver;
    const first = events.pfn[i]!;
    const end = first + (1 << events.order[i]!);
    for (let pfn = first; pfn < end; pfn++) {
      if (!seen.get(pfn) && tells) vote(pfn, gfpClass.migratetype);
      seen.set(pfn);
    }
  }
  return Uint8Array.from({ length: blockCount }, (_, block) => {
    const [unmovable, movable, reclaimable] = votes.subarray(3 * block, 3 * block + 3);
    if (unmovable! > movable! && unmovable! >= reclaimable!) return Migratetype.UNMOVABLE;
    return reclaimable! > movable! ? Migratetype.RECLAIMABLE : Migratetype.MOVABLE;
  });
}
