/**
 * How a compact file is laid out, for its reader and its writer (docs/recordings.md):
 * magic, version, SHA-256 of the body, length of the body; body = length of the JSON, the JSON,
 * then the sections that it lists, each compressed with brotli. Numbers are little-endian u32.
 */
import type { Recording, RecordingHeader } from './format.ts';

export const MAGIC_BYTES = 8;
export const VERSION_OFFSET = 8;
export const DIGEST_OFFSET = 12;
export const DIGEST_BYTES = 32;
export const BODY_LENGTH_OFFSET = DIGEST_OFFSET + DIGEST_BYTES;
export const BODY_OFFSET = BODY_LENGTH_OFFSET + 4;

/** In the order of the file. The sets are bitmaps, the event columns varints. */
export const SECTION_NAMES = [
  'free',
  'onPcp',
  'reserved',
  'noPage',
  'zero',
  'neverTouched',
  'zeroAtMigrate',
  'freeAtEnd',
  'pageblockMigratetype',
  'eventTimes',
  'eventSignatures',
  'eventPfns',
] as const;
export type SectionName = (typeof SECTION_NAMES)[number];

export const SET_NAMES = SECTION_NAMES.slice(0, 8) as readonly SetName[];
export type SetName = Exclude<
  SectionName,
  'pageblockMigratetype' | 'eventTimes' | 'eventSignatures' | 'eventPfns'
>;

interface SectionEntry {
  readonly name: SectionName;
  readonly packedBytes: number;
  readonly rawBytes: number;
}

/** What all events of one kind have in common: [kind, order, gfpClass, cpu, migratetype]. */
export type EventSignature = readonly [number, number, number, number, number];

/** The JSON of a file. gfp classes travel as their texts and are parsed again. */
export interface FileHeader {
  readonly header: Omit<RecordingHeader, 'gfpClasses'>;
  readonly gfpTexts: readonly string[];
  readonly eventCount: number;
  /** 1 or 1000: times are stored in this unit. */
  readonly timeUnitNs: number;
  readonly signatures: readonly EventSignature[];
  readonly sections: readonly SectionEntry[];
}

export function setsOf(recording: Recording): Readonly<Record<SetName, Uint8Array>> {
  const { start } = recording;
  return {
    free: start.free.bytes,
    onPcp: start.onPcp.bytes,
    reserved: start.reserved.bytes,
    noPage: start.noPage.bytes,
    zero: start.zero.bytes,
    neverTouched: start.neverTouched.bytes,
    zeroAtMigrate: recording.zeroAtMigrate.bytes,
    freeAtEnd: recording.freeAtEnd.bytes,
  };
}

export function bitmapBytes(frameCount: number): number {
  return 4 * ((frameCount + 31) >>> 5);
}
