/**
 * What is in a recording: free memory by order over time, events, allocation classes, what went
 * on around the migration. Plain data first; lab/recording/inspection-table.ts prints it.
 */
import { type Bitmap, NS_PER_MS, NS_PER_S } from '../../shared/index.ts';
import {
  EventKind,
  type MeasuredRun,
  Migratetype,
  type Recording,
  type RecordingHeader,
} from '../../shared/recording/index.ts';
import { FreeReplay } from './free-replay.ts';

const MAX_ORDER = 10;
const SAMPLES = 12;

/** Free memory at one time, as the largest aligned blocks that fit into it. */
interface FreeSample {
  /** Since the first event. */
  readonly atMs: number;
  readonly mark: 'migrate' | 'migrated' | null;
  readonly freePages: number;
  /** Pages in free blocks of order 0 … 10. */
  readonly pagesByOrder: readonly number[];
}

interface ClassUse {
  readonly gfpFlags: string;
  readonly allocs: number;
  readonly pages: number;
  readonly hintDriver: boolean;
}

/** Events per second in one part of the recording. */
interface PhaseRates {
  readonly phase: 'before' | 'during' | 'after';
  readonly seconds: number;
  readonly allocs: number;
  readonly frees: number;
  /** null for a phase without length. */
  readonly allocsPerSecond: number | null;
}

export interface Inspection {
  readonly header: Omit<RecordingHeader, 'gfpClasses' | 'measured'>;
  /** Without their series. */
  readonly measured: readonly Omit<MeasuredRun, 'series'>[];
  readonly events: { readonly count: number; readonly allocs: number; readonly frees: number };
  readonly freeByOrder: readonly FreeSample[];
  /** Most used first. */
  readonly classes: readonly ClassUse[];
  readonly phases: readonly PhaseRates[];
  readonly pages: {
    readonly frames: number;
    readonly freeAtStart: number;
    readonly onPcpAtStart: number;
    readonly reserved: number;
    readonly zeroAtMigrate: number;
    readonly freeAtMigrate: number;
    readonly zeroFreeAtMigrate: number;
    readonly neverTouched: number;
  };
  /** By Migratetype, as guessed at import. */
  readonly pageblocks: {
    readonly unmovable: number;
    readonly movable: number;
    readonly reclaimable: number;
  };
}

/** Pure; about as long as one replay of the recording takes. */
export function inspectRecording(recording: Recording): Inspection {
  const { gfpClasses, measured, ...header } = recording.header;
  const { start, zeroAtMigrate, events } = recording;
  const { freeByOrder, freeAtMigrate } = sampleFree(recording);
  const blocks = start.pageblockMigratetype;
  const blocksOf = (type: number) => blocks.reduce((n, t) => n + (t === type ? 1 : 0), 0);
  const { allocs, frees } = header.consistency;
  return {
    header,
    measured: measured.map(({ series: _, ...figures }) => figures),
    events: { count: events.count, allocs, frees },
    freeByOrder,
    classes: countClasses(recording),
    phases: countPhases(recording),
    pages: {
      frames: header.frameCount,
      freeAtStart: start.free.count(),
      onPcpAtStart: start.onPcp.count(),
      reserved: start.reserved.count(),
      zeroAtMigrate: zeroAtMigrate.count(),
      freeAtMigrate: freeAtMigrate.count(),
      zeroFreeAtMigrate: freeAtMigrate.countAnd(zeroAtMigrate),
      neverTouched: start.neverTouched.count(),
    },
    pageblocks: {
      unmovable: blocksOf(Migratetype.UNMOVABLE),
      movable: blocksOf(Migratetype.MOVABLE),
      reclaimable: blocksOf(Migratetype.RECLAIMABLE),
    },
  };
}

/** Pages in the largest free blocks that are aligned to their size, by order 0 … 10. */
export function freePagesByOrder(free: Bitmap): number[] {
  const pagesByOrder = new Array<number>(MAX_ORDER + 1).fill(0);
  let pfn = free.nextSet(0);
  while (pfn >= 0) {
    const end = free.nextClear(pfn);
    // A run is cut where alignment or its end forces it: greedy is maximal, as buddies merge.
    while (pfn < end) {
      let order = 0;
      while (order < MAX_ORDER && fits(pfn, order + 1, end)) order++;
      pagesByOrder[order]! += 1 << order;
      pfn += 1 << order;
    }
    pfn = free.nextSet(end);
  }
  return pagesByOrder;
}

function fits(pfn: number, order: number, end: number): boolean {
  const pages = 1 << order;
  return pfn % pages === 0 && pfn + pages <= end;
}

function sampleFree(recording: Recording): { freeByOrder: FreeSample[]; freeAtMigrate: Bitmap } {
  const { migrateAtNs, migratedAtNs, traceEndNs } = recording.header;
  const marks = new Map<number, 'migrate' | 'migrated'>([
    [migratedAtNs, 'migrated'],
    [migrateAtNs, 'migrate'],
  ]);
  const endNs = Math.max(traceEndNs, migratedAtNs);
  const evenly = Array.from({ length: SAMPLES - 2 }, (_, i) =>
    Math.round((endNs * i) / (SAMPLES - 3)),
  );
  const times = [...new Set([...evenly, ...marks.keys()])].sort((a, b) => a - b);
  const replay = new FreeReplay(recording.start, recording.events);
  let freeAtMigrate = replay.free;
  const freeByOrder = times.map((atNs, i): FreeSample => {
    replay.runUntil(i === times.length - 1 ? Number.POSITIVE_INFINITY : atNs);
    if (atNs === migrateAtNs) freeAtMigrate = replay.free.clone();
    const pagesByOrder = freePagesByOrder(replay.free);
    const freePages = pagesByOrder.reduce((sum, pages) => sum + pages, 0);
    return { atMs: atNs / NS_PER_MS, mark: marks.get(atNs) ?? null, freePages, pagesByOrder };
  });
  return { freeByOrder, freeAtMigrate };
}

function countClasses({ header, events }: Recording): ClassUse[] {
  const allocs = new Float64Array(header.gfpClasses.length);
  const pages = new Float64Array(header.gfpClasses.length);
  for (let i = 0; i < events.count; i++) {
    if (events.kind[i] !== EventKind.ALLOC) continue;
    allocs[events.gfpClass[i]!]!++;
    pages[events.gfpClass[i]!]! += 1 << events.order[i]!;
  }
  return header.gfpClasses
    .map(({ text, hintDriver }, i) => {
      return { gfpFlags: text, allocs: allocs[i]!, pages: pages[i]!, hintDriver };
    })
    .sort((a, b) => b.pages - a.pages || (a.gfpFlags < b.gfpFlags ? -1 : 1));
}

function countPhases({ header, events }: Recording): PhaseRates[] {
  const { migrateAtNs, migratedAtNs, traceEndNs } = header;
  const bounds = [0, migrateAtNs, migratedAtNs, Math.max(traceEndNs, migratedAtNs)];
  const counts = [0, 1, 2].map(() => ({ allocs: 0, frees: 0 }));
  for (let i = 0; i < events.count; i++) {
    const atNs = events.atNs[i]!;
    const phase = atNs < migrateAtNs ? 0 : atNs < migratedAtNs ? 1 : 2;
    if (events.kind[i] === EventKind.ALLOC) counts[phase]!.allocs++;
    else counts[phase]!.frees++;
  }
  return (['before', 'during', 'after'] as const).map((phase, i) => {
    const seconds = (bounds[i + 1]! - bounds[i]!) / NS_PER_S;
    const { allocs, frees } = counts[i]!;
    return {
      phase,
      seconds,
      allocs,
      frees,
      allocsPerSecond: seconds > 0 ? allocs / seconds : null,
    };
  });
}
