/**
 * Makes a compact recording from a folder of the shared format: recording.json, kpageflags at
 * start and end, the trace, and the bitmap of zero pages (docs/recordings.md).
 */
import { renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { BallastError, type Bitmap } from '../../shared/index.ts';
import {
  type Consistency,
  encodeRecording,
  type GfpClass,
  type MeasuredRun,
  parseGfp,
  type Recording,
  type StartState,
  type TraceEvents,
} from '../../shared/recording/index.ts';
import { FreeReplay } from './free-replay.ts';
import { readTraceFile, type Trace } from './ftrace.ts';
import { Kpf, readPageFlags } from './kpageflags.ts';
import { type Manifest, readManifest } from './manifest.ts';
import { findSource } from './source-file.ts';
import { deriveStartState } from './start-state.ts';
import { readZeroBitmap } from './zero-bitmap.ts';

/** Points that are kept of each measured series: enough for a curve. */
const SERIES_POINTS = 32;
/** Marks are written by the guest, times are read by the host: they may differ by a little. */
const MARK_TOLERANCE_NS = 1_000_000;

export interface ImportOptions {
  /** Import although the kernel dropped events, or could not keep them. */
  readonly allowLostEvents?: boolean | undefined;
  /** Leave out lines that cannot be read, and count them. */
  readonly tolerateMalformed?: boolean | undefined;
  readonly onProgress?: ((progress: ImportProgress) => void) | undefined;
}

interface ImportProgress {
  readonly what: 'lines';
  readonly done: number;
  /** As recording.json says; null if it does not. */
  readonly total: number | null;
}

/** Throws BallastError FILE_MISSING, RECORDING_MALFORMED or RECORDING_LOST_EVENTS: one line. */
export async function importRecording(
  folder: string,
  options: ImportOptions = {},
): Promise<Recording> {
  requireFolder(folder);
  const manifest = readManifest(join(folder, 'recording.json'));
  const paths = {
    trace: findSource(folder, 'trace.txt'),
    start: findSource(folder, 'kpageflags.start'),
    end: findSource(folder, 'kpageflags.end'),
    zero: findSource(folder, 'zero-pages.bitmap'),
  };
  const flags = await readPageFlags(paths.start, manifest.mem_MiB);
  const endFlags = await readPageFlags(paths.end, manifest.mem_MiB);
  if (endFlags.frameCount !== flags.frameCount) {
    const expected = `${flags.frameCount} frames, as ${basename(paths.start)}`;
    throw malformed(basename(paths.end), expected, String(endFlags.frameCount));
  }
  const zeroAtMigrate = await readZeroBitmap(paths.zero, flags, manifest.mem_MiB);
  const { onProgress } = options;
  const total = manifest.trace?.events ?? null;
  const trace = await readTraceFile(paths.trace, {
    frameCount: flags.frameCount,
    allowLostEvents: options.allowLostEvents,
    tolerateMalformed: options.tolerateMalformed,
    onLines: onProgress && ((done) => onProgress({ what: 'lines', done, total })),
  });
  const traceFile = basename(paths.trace);
  checkTrace(trace, manifest, traceFile);

  const gfpClasses = trace.gfpTexts.map(parseGfp);
  const times = toRelativeTimes(trace.events, manifest);
  const { freshBoot, migrateAtNs } = { freshBoot: manifest.fresh_boot, ...times };
  const events = trace.events.trimmed();
  const facts = { flags, events, gfpClasses, migrateAtNs, zeroAtMigrate, freshBoot };
  const start = deriveStartState(facts);
  const freeAtEnd = endFlags.select(Kpf.BUDDY);
  const consistency = computeConsistency(trace, start, freeAtEnd);
  const header = { ...toHeader(manifest, gfpClasses), ...times, consistency };
  return {
    header: { ...header, frameCount: flags.frameCount },
    start,
    zeroAtMigrate,
    freeAtEnd,
    events,
  };
}

/** Writes the compact form; a file of that name is replaced at once, or not at all. */
export function writeRecording(recording: Recording, path: string): { sizeBytes: number } {
  const bytes = encodeRecording(recording);
  const partial = `${path}.part`;
  try {
    writeFileSync(partial, bytes);
    renameSync(partial, path);
  } catch (error) {
    rmSync(partial, { force: true });
    const code = (error as NodeJS.ErrnoException).code ?? 'unknown error';
    throw new BallastError('BAD_INPUT', `${path}: cannot be written (${code})`);
  }
  return { sizeBytes: bytes.length };
}

function requireFolder(folder: string): void {
  const stat = statSync(folder, { throwIfNoEntry: false });
  if (!stat) {
    throw new BallastError('FILE_MISSING', `${folder}: expected a recording's folder, found none`);
  }
  if (!stat.isDirectory()) {
    throw new BallastError('BAD_INPUT', `${folder}: expected a recording's folder, found a file`);
  }
}

/** Does the trace belong to this recording.json? */
function checkTrace(trace: Trace, manifest: Manifest, file: string): void {
  if (trace.events.count === 0) {
    throw malformed(file, 'mm_page_alloc and mm_page_free events', 'none of them');
  }
  if (trace.maxCpu >= manifest.vcpus) {
    const expected = `a CPU below ${manifest.vcpus} (recording.json: vcpus)`;
    throw malformed(`${file}:${trace.maxCpuLine}`, expected, `CPU ${trace.maxCpu}`);
  }
  const told = [
    ['mark migrate', 'migrate_at_s'],
    ['mark migrated', 'migrated_at_s'],
  ] as const;
  for (const [text, key] of told) {
    const mark = trace.marks.find((candidate) => candidate.text === text);
    if (!mark) continue;
    const differenceNs = Math.abs(mark.atNs - toNs(manifest[key]));
    if (differenceNs > MARK_TOLERANCE_NS) {
      const expected = `${mark.atNs / 1e9} (the mark "${text}" in ${file}:${mark.line})`;
      throw malformed(`recording.json: ${key}`, expected, String(manifest[key]));
    }
  }
}

/** Makes the times count from the first event (in place: a trace is long). */
function toRelativeTimes(events: TraceEvents, manifest: Manifest) {
  const migrateAtNs = toNs(manifest.migrate_at_s);
  const traceStartNs = Math.min(events.atNs[0]!, migrateAtNs);
  for (let i = 0; i < events.count; i++) events.atNs[i]! -= traceStartNs;
  return {
    traceStartNs,
    traceEndNs: events.atNs[events.count - 1]!,
    migrateAtNs: migrateAtNs - traceStartNs,
    migratedAtNs: toNs(manifest.migrated_at_s) - traceStartNs,
  };
}

function computeConsistency(trace: Trace, start: StartState, freeAtEnd: Bitmap): Consistency {
  const replay = new FreeReplay(start, trace.events);
  replay.runUntil(Number.POSITIVE_INFINITY);
  return {
    allocs: trace.allocs,
    frees: trace.frees,
    failedAllocs: trace.failedAllocs,
    freeBatched: trace.freeBatched,
    batchedWithoutFree: trace.batchedWithoutFree,
    otherEvents: trace.otherEvents,
    lostEvents: trace.lostEvents,
    malformedLines: trace.malformedCount,
    timeReversals: trace.timeReversals,
    onPcpPages: start.onPcp.count(),
    doubleAllocPages: replay.doubleAllocPages,
    doubleFreePages: replay.doubleFreePages,
    endMismatchPages: replay.free.countAndNot(freeAtEnd) + freeAtEnd.countAndNot(replay.free),
  };
}

function toHeader(manifest: Manifest, gfpClasses: readonly GfpClass[]) {
  const dirty = manifest.in_place_dirty;
  return {
    name: manifest.name,
    memMiB: manifest.mem_MiB,
    vcpus: manifest.vcpus,
    kernel: manifest.kernel,
    kernelParameters: manifest.kernel_parameters.trim(),
    initOnAlloc: manifest.init_on_alloc,
    freshBoot: manifest.fresh_boot,
    workload: manifest.workload,
    hypervisor: manifest.hypervisor,
    recordedWithFreePageHint: manifest.recorded_with_free_page_hint,
    bandwidthBytesPerS: manifest.bandwidth_bytes_per_s,
    downtimeLimitMs: manifest.downtime_limit_ms,
    inPlaceDirty: dirty && {
      pagesPerSecond: dirty.pages_per_second,
      setPages: dirty.set_pages,
    },
    measured: manifest.measured.map(toMeasuredRun),
    gfpClasses,
  };
}

function toMeasuredRun(run: Manifest['measured'][number]): MeasuredRun {
  const { series } = run;
  const step = Math.max(1, (series.length - 1) / (SERIES_POINTS - 1));
  const points = Math.min(series.length, SERIES_POINTS);
  return {
    ...run,
    setup_ms: run.setup_ms ?? null,
    ram_total_bytes: run.ram_total_bytes ?? null,
    // Evenly spaced, with the first and the last.
    series: Array.from({ length: points }, (_, i) => series[Math.round(i * step)]!),
  };
}

function toNs(seconds: number): number {
  // Rounded: 8.422937 has no exact binary form, and times must be integers.
  return Math.round(seconds * 1e9);
}

function malformed(where: string, expected: string, found: string): BallastError {
  return new BallastError('RECORDING_MALFORMED', `${where}: expected ${expected}, found ${found}`);
}
