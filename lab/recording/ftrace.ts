/**
 * Streaming reader of an ftrace text (the kernel's `trace` file, or what `trace-cmd report`
 * prints): kmem:mm_page_alloc, mm_page_free, mm_page_free_batched, and marks.
 * What is odd is refused with its line number, unless the caller tolerates it.
 */
import { basename } from 'node:path';
import { BallastError } from '../../shared/index.ts';
import { type Consistency, type EventColumns, MAX_EVENTS } from '../../shared/recording/index.ts';
import { readSource } from './source-file.ts';
import { type MalformedLine, TraceBuilder, type TraceMark } from './trace-builder.ts';
import { LineKind } from './trace-line.ts';

const NEWLINE = 0x0a;
const HASH = 0x23;
const MAX_LINE_BYTES = 1 << 16;

export interface TraceOptions {
  /** Frames of the guest; a pfn beyond is malformed. */
  readonly frameCount: number;
  readonly allowLostEvents?: boolean | undefined;
  readonly tolerateMalformed?: boolean | undefined;
  /** Called about once per MiB of text, with the lines read so far. */
  readonly onLines?: ((lines: number) => void) | undefined;
}

/** A trace as read: `events.atNs` is still the guest's trace clock. */
export interface Trace
  extends Pick<
    Consistency,
    | 'allocs'
    | 'frees'
    | 'failedAllocs'
    | 'freeBatched'
    | 'batchedWithoutFree'
    | 'otherEvents'
    | 'lostEvents'
    | 'timeReversals'
  > {
  readonly events: EventColumns;
  readonly gfpTexts: readonly string[];
  readonly marks: readonly TraceMark[];
  /** The first few; `malformedCount` counts them all. */
  readonly malformed: readonly MalformedLine[];
  readonly malformedCount: number;
  readonly lines: number;
  readonly maxCpu: number;
  /** The first line that names it. */
  readonly maxCpuLine: number;
}

/** Reads the file at `path`. Throws BallastError RECORDING_MALFORMED, RECORDING_LOST_EVENTS. */
export function readTraceFile(path: string, options: TraceOptions): Promise<Trace> {
  return readTrace(readSource(path), basename(path), options);
}

/** Reads chunks of text; `file` is the name that messages give. */
export async function readTrace(
  chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  file: string,
  options: TraceOptions,
): Promise<Trace> {
  const reader = new TraceReader(file, options);
  for await (const chunk of chunks) {
    reader.push(chunk);
    options.onLines?.(reader.builder.lines);
  }
  return reader.finish();
}

class TraceReader {
  readonly builder: TraceBuilder;
  readonly #file: string;
  readonly #options: TraceOptions;
  /** The start of a line whose end has not come yet. */
  #rest: Uint8Array = new Uint8Array(0);
  /** What the header says the file holds; -1 until it was read. */
  #headerEntries = -1;

  constructor(file: string, options: TraceOptions) {
    this.#file = file;
    this.#options = options;
    this.builder = new TraceBuilder(options.frameCount, 1 << 16);
  }

  push(chunk: Uint8Array): void {
    let bytes = chunk;
    if (this.#rest.length > 0) bytes = Buffer.concat([this.#rest, chunk]);
    let start = 0;
    for (;;) {
      const end = bytes.indexOf(NEWLINE, start);
      if (end < 0) break;
      this.#line(bytes, start, end);
      start = end + 1;
    }
    // Copied: a stream may reuse its chunk.
    this.#rest = bytes.slice(start);
    if (this.#rest.length > MAX_LINE_BYTES) {
      throw this.#error(this.builder.lines + 1, 'lines of an ftrace text', 'a line without end');
    }
  }

  finish(): Trace {
    const builder = this.builder;
    if (this.#rest.length > 0) this.#line(this.#rest, 0, this.#rest.length);
    const first = builder.malformed[0];
    const { tolerateMalformed, allowLostEvents } = this.#options;
    if (first && !tolerateMalformed) {
      const more = builder.malformedCount - 1;
      const tail = more > 0 ? ` (and ${more} more such line${more > 1 ? 's' : ''})` : '';
      throw this.#error(first.line, first.expected, first.found, tail);
    }
    const seen = builder.entries + builder.malformedCount;
    if (seen < this.#headerEntries && !tolerateMalformed) {
      const expected = `${this.#headerEntries} entries, as the header says`;
      throw this.#error(builder.lines, expected, `the end of the file after ${seen}`);
    }
    if (builder.firstLostLine > 0 && !allowLostEvents) throw this.#lost(builder.firstLostLine);
    return builder;
  }

  #line(bytes: Uint8Array, start: number, end: number): void {
    const builder = this.builder;
    const kind = builder.addLine(bytes, start, end);
    if (kind === LineKind.SKIP && bytes[start] === HASH) this.#header(bytes, start, end);
    if (kind === LineKind.LOST && !this.#options.allowLostEvents) throw this.#lost(builder.lines);
    if (builder.events.count > MAX_EVENTS) {
      throw this.#error(builder.lines, `at most ${MAX_EVENTS} events`, 'more');
    }
  }

  /** `# entries-in-buffer/entries-written: 657502/657502   #P:1` */
  #header(bytes: Uint8Array, start: number, end: number): void {
    if (this.#headerEntries >= 0 || end - start > 200) return;
    const text = Buffer.from(bytes.subarray(start, end)).toString('latin1');
    const found = /entries-in-buffer\/entries-written:\s*(\d+)\/(\d+)/.exec(text);
    if (!found) return;
    const inBuffer = Number(found[1]);
    const written = Number(found[2]);
    this.#headerEntries = inBuffer;
    if (inBuffer < written) {
      this.builder.addLost(written - inBuffer, this.builder.lines);
      if (!this.#options.allowLostEvents) throw this.#lost(this.builder.lines);
    }
  }

  #lost(line: number): BallastError {
    const count = this.builder.lostEvents;
    return new BallastError(
      'RECORDING_LOST_EVENTS',
      `${this.#file}:${line}: expected a trace without lost events, found ${count} lost; enlarge ` +
        'the trace buffer, or import with --allow-lost-events',
    );
  }

  #error(line: number, expected: string, found: string, tail = ''): BallastError {
    const message = `${this.#file}:${line}: expected "${expected}", found "${found}"${tail}`;
    return new BallastError('RECORDING_MALFORMED', message);
  }
}
