/** Recordings that a test writes out by hand: few frames, and the events it is about. */
import { Bitmap } from '../../shared/index.ts';
import {
  EventColumns,
  EventKind,
  parseGfp,
  type Recording,
  type RecordingHeader,
} from '../../shared/recording/index.ts';

export interface TinyEvent {
  readonly atNs: number;
  readonly kind: 'alloc' | 'free';
  readonly pfn: number;
  readonly order?: number;
  /** Index into `gfp`; default 0. */
  readonly gfpClass?: number;
}

interface TinyOptions {
  readonly frameCount: number;
  /** Ranges of frames as (first, count); all others hold data of the kernel's. */
  readonly free: readonly (readonly [pfn: number, pageCount: number])[];
  readonly events: readonly TinyEvent[];
  readonly gfp?: readonly string[];
  readonly header?: Partial<RecordingHeader>;
}

const CONSISTENCY = {
  allocs: 0,
  frees: 0,
  failedAllocs: 0,
  freeBatched: 0,
  batchedWithoutFree: 0,
  otherEvents: 0,
  lostEvents: 0,
  malformedLines: 0,
  timeReversals: 0,
  onPcpPages: 0,
  doubleAllocPages: 0,
  doubleFreePages: 0,
  endMismatchPages: 0,
};

/** Free frames are zero and untouched; in-use frames have content. */
export function tinyRecording(options: TinyOptions): Recording {
  const { frameCount } = options;
  const set = () => new Bitmap(frameCount);
  const free = set();
  for (const [pfn, pageCount] of options.free) free.setRange(pfn, pageCount);
  const columns = new EventColumns(Math.max(1, options.events.length));
  for (const { atNs, kind, pfn, order = 0, gfpClass = 0 } of options.events) {
    const kindCode = kind === 'alloc' ? EventKind.ALLOC : EventKind.FREE;
    const i = columns.push(atNs, kindCode, pfn, order, 0);
    if (kind === 'alloc') columns.gfpClass[i] = gfpClass;
  }
  const header: RecordingHeader = {
    name: 'tiny',
    memMiB: Math.max(1, frameCount / 256),
    frameCount,
    vcpus: 1,
    kernel: 'Linux',
    kernelParameters: '',
    initOnAlloc: false,
    freshBoot: true,
    workload: 'by hand',
    hypervisor: 'none',
    recordedWithFreePageHint: false,
    bandwidthBytesPerS: 1e8,
    downtimeLimitMs: 300,
    traceStartNs: 0,
    traceEndNs: options.events.at(-1)?.atNs ?? 0,
    migrateAtNs: 0,
    migratedAtNs: 0,
    inPlaceDirty: null,
    measured: [],
    gfpClasses: (options.gfp ?? ['GFP_HIGHUSER_MOVABLE']).map(parseGfp),
    consistency: CONSISTENCY,
    ...options.header,
  };
  return {
    header,
    start: {
      free,
      onPcp: set(),
      reserved: set(),
      noPage: set(),
      zero: free.clone(),
      neverTouched: free.clone(),
      pageblockMigratetype: new Uint8Array(Math.ceil(frameCount / 512)).fill(1),
    },
    zeroAtMigrate: free.clone(),
    freeAtEnd: free.clone(),
    events: columns.trimmed(),
  };
}
