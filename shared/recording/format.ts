/**
 * A recording in memory: what a real guest's page allocator did, its state before and after, and
 * what QEMU measured when that guest was migrated. docs/recordings.md describes the file.
 */
import type { Bitmap } from '../bitmap.ts';
import type { Nanoseconds } from '../units.ts';
import type { GfpClass } from './gfp.ts';

export const FORMAT_VERSION = 1;
/** First eight bytes of a compact file; the last one makes text mode transfers visible. */
export const MAGIC = 'BALLAST\n';
/** 2 MiB on x86: the unit in which the allocator groups pages by migrate type. */
export const PAGEBLOCK_ORDER = 9;

/** Limits on what a file may ask for: 64 GiB of guest, and as many events as an hour gives. */
export const MAX_FRAMES = 1 << 24;
export const MAX_EVENTS = 1 << 26;

export const EventKind = { ALLOC: 0, FREE: 1 } as const;
export type EventKind = (typeof EventKind)[keyof typeof EventKind];

/** Structure of arrays; index i is the i-th event, in the order of the trace. */
export interface TraceEvents {
  readonly count: number;
  /** Nanoseconds since the first event; never decreasing. */
  readonly atNs: Float64Array;
  /** First frame of the block. */
  readonly pfn: Uint32Array;
  readonly order: Uint8Array;
  /** EventKind. */
  readonly kind: Uint8Array;
  /** Index into `RecordingHeader.gfpClasses`; 0 and without meaning for a free. */
  readonly gfpClass: Uint16Array;
  readonly cpu: Uint8Array;
  /** That was asked for, as the kernel numbers them; 0 and without meaning for a free. */
  readonly migratetype: Uint8Array;
}

/** One reading of query-migrate while the real migration ran. */
interface MeasuredSample {
  readonly ms: number;
  readonly transferred: number;
  readonly remaining: number;
  readonly normal: number;
  readonly duplicate: number;
  readonly dirty_sync_count: number;
}

/** One real migration of the recorded guest, by the names of query-migrate. */
export interface MeasuredRun {
  readonly free_page_hint: boolean;
  readonly status: string;
  readonly total_ms: number;
  readonly downtime_ms: number;
  readonly setup_ms: number | null;
  readonly transferred_bytes: number;
  readonly normal_pages: number;
  readonly duplicate_pages: number;
  readonly dirty_sync_count: number;
  readonly ram_total_bytes: number | null;
  /** Thinned at import. */
  readonly series: readonly MeasuredSample[];
}

/** Facts that the import computed by replaying the events over the state at the start. */
export interface Consistency {
  readonly allocs: number;
  readonly frees: number;
  /** Allocations that the real kernel could not serve; not among the events. */
  readonly failedAllocs: number;
  readonly freeBatched: number;
  /** mm_page_free_batched of a page whose last event was not a free. */
  readonly batchedWithoutFree: number;
  readonly otherEvents: number;
  readonly lostEvents: number;
  readonly malformedLines: number;
  /** Times that went backwards between two lines; they were held at the earlier one. */
  readonly timeReversals: number;
  /** Frames on per-CPU lists at the start. */
  readonly onPcpPages: number;
  readonly doubleAllocPages: number;
  readonly doubleFreePages: number;
  /** Frames that the replay leaves free and kpageflags.end does not, or the other way round. */
  readonly endMismatchPages: number;
}

export interface RecordingHeader {
  readonly name: string;
  readonly memMiB: number;
  /** Page frame numbers are below this; more than memMiB holds if there is a hole below 4 GiB. */
  readonly frameCount: number;
  readonly vcpus: number;
  readonly kernel: string;
  readonly kernelParameters: string;
  readonly initOnAlloc: boolean;
  readonly freshBoot: boolean;
  readonly workload: string;
  readonly hypervisor: string;
  /** The trace holds the balloon driver's own allocations too. */
  readonly recordedWithFreePageHint: boolean;
  readonly bandwidthBytesPerS: number;
  readonly downtimeLimitMs: number;
  /** The guest's trace clock at the first event; every other time counts from there. */
  readonly traceStartNs: Nanoseconds;
  readonly traceEndNs: Nanoseconds;
  readonly migrateAtNs: Nanoseconds;
  readonly migratedAtNs: Nanoseconds;
  /** Pages rewritten in place, which an allocator's trace cannot show. */
  readonly inPlaceDirty: { readonly pagesPerSecond: number; readonly setPages: number } | null;
  readonly measured: readonly MeasuredRun[];
  readonly gfpClasses: readonly GfpClass[];
  readonly consistency: Consistency;
}

/** What every frame was when tracing began. Sets are bitmaps of `frameCount` bits by pfn. */
export interface StartState {
  /** In the buddy lists. */
  readonly free: Bitmap;
  /** On a per-CPU list: not BUDDY, yet the first thing that happens to it is an allocation. */
  readonly onPcp: Bitmap;
  /** RESERVED, NOPAGE or HWPOISON: never the allocator's. */
  readonly reserved: Bitmap;
  /** NOPAGE only: no RAM is there (the hole below 4 GiB). */
  readonly noPage: Bitmap;
  /** All zero, as far as a dump at `migrateAtNs` can tell. */
  readonly zero: Bitmap;
  /** Free and untouched since power-on: the host has not backed it yet. */
  readonly neverTouched: Bitmap;
  /** A guess for each pageblock (Migratetype). */
  readonly pageblockMigratetype: Uint8Array;
}

export interface Recording {
  readonly header: RecordingHeader;
  readonly start: StartState;
  /** Dumped, not inferred: frames that were all zero at `migrateAtNs`. */
  readonly zeroAtMigrate: Bitmap;
  /** BUDDY when tracing ended. */
  readonly freeAtEnd: Bitmap;
  readonly events: TraceEvents;
}
