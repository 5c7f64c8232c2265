/**
 * Reads a compact recording. The file is not trusted: lengths are checked before anything is
 * allocated for them, the digest before anything is unpacked, every decoded value before use.
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { brotliDecompressSync } from 'node:zlib';
import { Bitmap } from '../bitmap.ts';
import { BallastError } from '../errors.ts';
import { EventColumns } from './event-columns.ts';
import {
  FORMAT_VERSION,
  MAGIC,
  PAGEBLOCK_ORDER,
  type Recording,
  type RecordingHeader,
  type StartState,
  type TraceEvents,
} from './format.ts';
import { parseGfp } from './gfp.ts';
import { parseFileHeader } from './header.ts';
import {
  BODY_LENGTH_OFFSET,
  BODY_OFFSET,
  bitmapBytes,
  DIGEST_BYTES,
  DIGEST_OFFSET,
  type FileHeader,
  MAGIC_BYTES,
  SECTION_NAMES,
  SET_NAMES,
  type SectionName,
  type SetName,
  VERSION_OFFSET,
} from './layout.ts';
import { VarintReader } from './varint.ts';

const MAX_VARINT_BYTES = 8;

/** Reads a file. Throws BallastError FILE_MISSING, BAD_INPUT or RECORDING_MALFORMED, one line. */
export function readRecording(path: string): Recording {
  let bytes: Uint8Array;
  try {
    bytes = readFileSync(path);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? 'unknown error';
    if (code === 'ENOENT') {
      throw new BallastError('FILE_MISSING', `${path}: expected a recording, found no file`);
    }
    throw new BallastError('BAD_INPUT', `${path}: cannot be read (${code})`);
  }
  const recording = decodeRecording(bytes, path);
  mustBePartition(recording.start, path);
  return recording;
}

/** A frame has one state at the start: the allocator that adopts it relies on that. */
function mustBePartition({ free, onPcp, reserved, noPage }: StartState, source: string): void {
  const shared = free.countAnd(onPcp) + free.countAnd(reserved) + onPcp.countAnd(reserved);
  if (shared + noPage.countAndNot(reserved) === 0) return;
  throw malformed(source, 'each frame free, on a per-CPU list or reserved', 'some twice');
}

/** `source` is the name that messages give. Throws BallastError RECORDING_MALFORMED. */
export function decodeRecording(bytes: Uint8Array, source: string): Recording {
  const { file, sections } = openBody(bytes, source);
  const gfpClasses = file.gfpTexts.map(parseGfp);
  const header: RecordingHeader = { ...file.header, gfpClasses };
  const sets = unpackSets(sections, header.frameCount, source);
  const { zeroAtMigrate, freeAtEnd, ...startSets } = sets;
  const pageblockMigratetype = sections.unpack('pageblockMigratetype', {
    exactBytes: Math.ceil(header.frameCount / (1 << PAGEBLOCK_ORDER)),
  });
  if (pageblockMigratetype.some((type) => type > 2)) {
    throw malformed(source, 'a migrate type below 3 for each pageblock', 'another');
  }
  const start: StartState = { ...startSets, pageblockMigratetype };
  return { header, start, zeroAtMigrate, freeAtEnd, events: decodeEvents(file, sections, source) };
}

interface Sections {
  unpack(name: SectionName, size: { exactBytes?: number; maxBytes?: number }): Uint8Array;
}

function openBody(bytes: Uint8Array, source: string): { file: FileHeader; sections: Sections } {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  if (view.toString('latin1', 0, MAGIC_BYTES) !== MAGIC || view.length < BODY_OFFSET + 4) {
    throw malformed(source, 'a compact recording (ballast import makes one)', 'another file');
  }
  const version = view.readUInt32LE(VERSION_OFFSET);
  if (version !== FORMAT_VERSION) {
    throw malformed(source, `format version ${FORMAT_VERSION}`, `version ${version}`);
  }
  const body = view.subarray(BODY_OFFSET);
  const bodyBytes = view.readUInt32LE(BODY_LENGTH_OFFSET);
  if (body.length !== bodyBytes) {
    throw malformed(source, `${BODY_OFFSET + bodyBytes} bytes`, `${view.length}`);
  }
  const digest = createHash('sha256').update(body).digest();
  if (!digest.equals(view.subarray(DIGEST_OFFSET, DIGEST_OFFSET + DIGEST_BYTES))) {
    throw malformed(source, 'the content that its SHA-256 tells', 'damaged data');
  }
  const jsonBytes = body.readUInt32LE(0);
  if (4 + jsonBytes > body.length) throw malformed(source, 'a whole header', 'a cut one');
  const file = parseFileHeader(body.toString('utf8', 4, 4 + jsonBytes), source);
  return { file, sections: locateSections(file, body.subarray(4 + jsonBytes), source) };
}

function locateSections(file: FileHeader, data: Uint8Array, source: string): Sections {
  const found = new Map<SectionName, { packed: Uint8Array; rawBytes: number }>();
  let offset = 0;
  for (const { name, packedBytes, rawBytes } of file.sections) {
    const end = offset + packedBytes;
    if (end > data.length) throw malformed(source, `a whole section ${name}`, 'a cut one');
    found.set(name, { packed: data.subarray(offset, end), rawBytes });
    offset = end;
  }
  if (offset !== data.length || found.size !== SECTION_NAMES.length) {
    throw malformed(source, `the sections ${SECTION_NAMES.join(', ')}`, 'others');
  }
  return {
    unpack(name, { exactBytes, maxBytes }) {
      const { packed, rawBytes } = found.get(name)!;
      const limit = exactBytes ?? maxBytes ?? 0;
      if (rawBytes > limit || (exactBytes !== undefined && rawBytes !== exactBytes)) {
        throw malformed(source, `section ${name} of ${limit} bytes`, `${rawBytes}`);
      }
      const raw = decompress(packed, rawBytes);
      if (raw?.length !== rawBytes) {
        throw malformed(source, `section ${name} of ${rawBytes} bytes`, 'damaged data');
      }
      // A plain view of the same bytes: not a Buffer, which has other methods of the same names.
      return new Uint8Array(raw.buffer, raw.byteOffset, raw.length);
    },
  };
}

/** Undefined if it is no brotli data or would unpack to more than it claims. */
function decompress(packed: Uint8Array, rawBytes: number): Uint8Array | undefined {
  try {
    return brotliDecompressSync(packed, { maxOutputLength: Math.max(1, rawBytes) });
  } catch {
    return undefined;
  }
}

function unpackSets(sections: Sections, frameCount: number, source: string) {
  const exactBytes = bitmapBytes(frameCount);
  const unpackSet = (name: SetName): Bitmap => {
    const bitmap = Bitmap.fromBytes(sections.unpack(name, { exactBytes }), frameCount);
    const tail = frameCount & 31;
    if (tail !== 0 && bitmap.words[bitmap.words.length - 1]! >>> tail !== 0) {
      throw malformed(source, `set ${name} of ${frameCount} frames`, 'frames beyond');
    }
    return bitmap;
  };
  return Object.fromEntries(SET_NAMES.map((name) => [name, unpackSet(name)])) as Record<
    SetName,
    Bitmap
  >;
}

function decodeEvents(file: FileHeader, sections: Sections, source: string): TraceEvents {
  const count = file.eventCount;
  const maxBytes = count * MAX_VARINT_BYTES;
  const column = (name: SectionName) => new VarintReader(sections.unpack(name, { maxBytes }));
  const events = new EventColumns(count);
  events.count = count;
  const columns = {
    times: column('eventTimes'),
    signatures: column('eventSignatures'),
    pfns: column('eventPfns'),
  };
  const valid =
    decodeTimes(events, columns.times, file) &&
    decodeSignatures(events, columns.signatures, file) &&
    decodePfns(events, columns.pfns, file.header.frameCount);
  const complete = Object.values(columns).every(({ atEnd, overrun }) => atEnd && !overrun);
  if (!valid || !complete) throw malformed(source, `${count} valid events`, 'others');
  return events.trimmed();
}

function decodeTimes(events: EventColumns, column: VarintReader, file: FileHeader): boolean {
  let atNs = 0;
  for (let i = 0; i < events.count; i++) {
    atNs += column.unsigned() * file.timeUnitNs;
    events.atNs[i] = atNs;
  }
  return Number.isSafeInteger(atNs);
}

function decodeSignatures(events: EventColumns, column: VarintReader, file: FileHeader): boolean {
  // One typed table for each field: the loop below runs once per event.
  const table = file.signatures;
  const kinds = Uint8Array.from(table, ([kind]) => kind);
  const orders = Uint8Array.from(table, ([, order]) => order);
  const gfpClasses = Uint16Array.from(table, ([, , gfpClass]) => gfpClass);
  const cpus = Uint8Array.from(table, ([, , , cpu]) => cpu);
  const migratetypes = Uint8Array.from(table, ([, , , , migratetype]) => migratetype);
  for (let i = 0; i < events.count; i++) {
    const index = column.unsigned();
    if (index >= table.length) return false;
    events.kind[i] = kinds[index]!;
    events.order[i] = orders[index]!;
    events.gfpClass[i] = gfpClasses[index]!;
    events.cpu[i] = cpus[index]!;
    events.migratetype[i] = migratetypes[index]!;
  }
  return true;
}

function decodePfns(events: EventColumns, column: VarintReader, frameCount: number): boolean {
  const last = new Float64Array(2);
  for (let i = 0; i < events.count; i++) {
    const kind = events.kind[i]!;
    const pfn = last[kind]! + column.signed();
    const pages = 1 << events.order[i]!;
    if (!(pfn >= 0 && pfn + pages <= frameCount) || pfn % pages !== 0) return false;
    events.pfn[i] = pfn;
    last[kind] = pfn;
  }
  return true;
}

function malformed(source: string, expected: string, found: string): BallastError {
  return new BallastError('RECORDING_MALFORMED', `${source}: expected ${expected}, found ${found}`);
}
