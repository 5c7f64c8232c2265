/** Writes a recording in its compact form: columns of differences, then brotli. */
import { createHash } from 'node:crypto';
import { brotliCompressSync, constants } from 'node:zlib';
import { NS_PER_US } from '../units.ts';
import { FORMAT_VERSION, MAGIC, type Recording, type TraceEvents } from './format.ts';
import {
  BODY_LENGTH_OFFSET,
  BODY_OFFSET,
  DIGEST_OFFSET,
  type EventSignature,
  type FileHeader,
  MAGIC_BYTES,
  SECTION_NAMES,
  type SectionName,
  setsOf,
  VERSION_OFFSET,
} from './layout.ts';
import { VarintWriter } from './varint.ts';

/** Beyond 9 the time to import grows tenfold for a tenth of the size. */
const BROTLI_QUALITY = 9;

/** The bytes of a `.ballast` file. The same recording always gives the same bytes. */
export function encodeRecording(recording: Recording): Uint8Array {
  const { gfpClasses, ...header } = recording.header;
  const timeUnitNs = timeUnit(recording.events);
  const times = new VarintWriter();
  encodeTimes(recording.events, timeUnitNs, times);
  const signatures = encodeSignatures(recording.events);
  const raw: Record<SectionName, Uint8Array> = {
    ...setsOf(recording),
    pageblockMigratetype: recording.start.pageblockMigratetype,
    eventTimes: times.bytes,
    eventSignatures: signatures.column,
    eventPfns: encodePfns(recording.events),
  };
  const packed = SECTION_NAMES.map((name) => compress(raw[name]));
  const fileHeader: FileHeader = {
    header,
    gfpTexts: gfpClasses.map((gfpClass) => gfpClass.text),
    eventCount: recording.events.count,
    timeUnitNs,
    signatures: signatures.table,
    sections: SECTION_NAMES.map((name, i) => ({
      name,
      packedBytes: packed[i]!.length,
      rawBytes: raw[name].length,
    })),
  };
  return assemble(Buffer.from(JSON.stringify(fileHeader), 'utf8'), packed);
}

function assemble(json: Uint8Array, sections: readonly Uint8Array[]): Uint8Array {
  const jsonLength = Buffer.alloc(4);
  jsonLength.writeUInt32LE(json.length);
  const body = Buffer.concat([jsonLength, json, ...sections]);
  const prefix = Buffer.alloc(BODY_OFFSET);
  prefix.write(MAGIC, 0, MAGIC_BYTES, 'latin1');
  prefix.writeUInt32LE(FORMAT_VERSION, VERSION_OFFSET);
  createHash('sha256').update(body).digest().copy(prefix, DIGEST_OFFSET);
  prefix.writeUInt32LE(body.length, BODY_LENGTH_OFFSET);
  // A plain array: a Buffer's slice() shares its bytes where an array's copies them.
  return new Uint8Array(Buffer.concat([prefix, body]));
}

function compress(bytes: Uint8Array): Uint8Array {
  return brotliCompressSync(bytes, {
    params: {
      [constants.BROTLI_PARAM_QUALITY]: BROTLI_QUALITY,
      [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length,
    },
  });
}

/** Most traces have microseconds, which keeps a difference in one byte. */
function timeUnit(events: TraceEvents): number {
  for (let i = 0; i < events.count; i++) if (events.atNs[i]! % NS_PER_US !== 0) return 1;
  return NS_PER_US;
}

function encodeTimes(events: TraceEvents, unitNs: number, column: VarintWriter): void {
  let lastNs = 0;
  for (let i = 0; i < events.count; i++) {
    const atNs = events.atNs[i]!;
    column.unsigned((atNs - lastNs) / unitNs);
    lastNs = atNs;
  }
}

function encodeSignatures(events: TraceEvents): { table: EventSignature[]; column: Uint8Array } {
  const column = new VarintWriter();
  const table: EventSignature[] = [];
  const known = new Map<number, number>();
  for (let i = 0; i < events.count; i++) {
    const kind = events.kind[i]!;
    const order = events.order[i]!;
    const gfpClass = events.gfpClass[i]!;
    const cpu = events.cpu[i]!;
    const migratetype = events.migratetype[i]!;
    const key = (((gfpClass * 256 + cpu) * 16 + migratetype) * 16 + order) * 2 + kind;
    let index = known.get(key);
    if (index === undefined) {
      index = table.length;
      known.set(key, index);
      table.push([kind, order, gfpClass, cpu, migratetype]);
    }
    column.unsigned(index);
  }
  return { table, column: column.bytes };
}

/** Blocks are allocated and freed mostly in order of address: one running address for each kind. */
function encodePfns(events: TraceEvents): Uint8Array {
  const column = new VarintWriter();
  const last = [0, 0];
  for (let i = 0; i < events.count; i++) {
    const kind = events.kind[i]!;
    const pfn = events.pfn[i]!;
    column.signed(pfn - last[kind]!);
    last[kind] = pfn;
  }
  return column.bytes;
}
