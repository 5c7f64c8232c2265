/**
 * Gathers the lines of one trace into columns, and keeps account of what is not an event: marks,
 * failed allocations, lost events, lines that nobody can read.
 */
import { EventColumns, EventKind } from '../../shared/recording/index.ts';
import { LineKind, LineScanner } from './trace-line.ts';

const KEPT_MALFORMED = 10;
const FOUND_CHARS = 100;
const NOT_FREED = 0;
const FREED = 1;

export interface MalformedLine {
  readonly line: number;
  readonly expected: string;
  readonly found: string;
}

export interface TraceMark {
  readonly atNs: number;
  readonly text: string;
  readonly line: number;
}

export class TraceBuilder {
  /** Times are those of the guest's trace clock. */
  readonly events: EventColumns;
  readonly gfpTexts: string[] = [];
  readonly marks: TraceMark[] = [];
  readonly malformed: MalformedLine[] = [];
  malformedCount = 0;
  lines = 0;
  /** Lines that ftrace counts as entries. */
  entries = 0;
  allocs = 0;
  frees = 0;
  failedAllocs = 0;
  freeBatched = 0;
  batchedWithoutFree = 0;
  otherEvents = 0;
  timeReversals = 0;
  lostEvents = 0;
  /** Line of the first loss, 0 while there was none. */
  firstLostLine = 0;
  maxCpu = 0;
  maxCpuLine = 0;

  readonly #scanner = new LineScanner();
  readonly #frameCount: number;
  readonly #lastKind: Uint8Array;
  readonly #gfp = new Map<number, { index: number; bytes: Uint8Array }[]>();
  #lastAtNs = 0;

  constructor(frameCount: number, expectedEvents: number) {
    this.events = new EventColumns(expectedEvents);
    this.#frameCount = frameCount;
    this.#lastKind = new Uint8Array(frameCount);
  }

  /** bytes[start, end) is the next line, without its newline. Returns what it was. */
  addLine(bytes: Uint8Array, start: number, end: number): LineKind {
    this.lines++;
    const scanner = this.#scanner;
    const kind = scanner.scan(bytes, start, end);
    if (kind === LineKind.SKIP) return kind;
    if (kind === LineKind.LOST) {
      this.addLost(scanner.lostCount, this.lines);
      return kind;
    }
    if (kind === LineKind.MALFORMED) {
      this.#addMalformed(scanner.expected, bytes, scanner.oddStart, end);
      return kind;
    }
    this.entries++;
    if (kind === LineKind.ALLOC || kind === LineKind.FREE) this.#addEvent(kind, bytes, start, end);
    else if (kind === LineKind.FREE_BATCHED) this.#addBatched(bytes, start, end);
    else if (kind === LineKind.FAILED_ALLOC) this.failedAllocs++;
    else if (kind === LineKind.MARK) this.#addMark(bytes);
    else this.otherEvents++;
    return kind;
  }

  /** `count` is 0 where the trace does not say how many. */
  addLost(count: number, line: number): void {
    this.lostEvents += Math.max(1, count);
    if (this.firstLostLine === 0) this.firstLostLine = line;
  }

  #addEvent(kind: LineKind, bytes: Uint8Array, start: number, end: number): void {
    const { pfn, order, cpu, atNs, migratetype } = this.#scanner;
    const pages = 1 << order;
    if (pfn + pages > this.#frameCount) {
      this.#addMalformed(this.#pfnBound(pages), bytes, start, end);
      return;
    }
    if (pfn % pages !== 0) {
      this.#addMalformed(`pfn aligned to ${pages} pages (order=${order})`, bytes, start, end);
      return;
    }
    // Clocks of two CPUs may differ by a little; a replay needs one direction.
    if (atNs < this.#lastAtNs) this.timeReversals++;
    else this.#lastAtNs = atNs;
    if (cpu > this.maxCpu) {
      this.maxCpu = cpu;
      this.maxCpuLine = this.lines;
    }
    if (kind === LineKind.ALLOC) {
      const i = this.events.push(this.#lastAtNs, EventKind.ALLOC, pfn, order, cpu);
      this.events.gfpClass[i] = this.#gfpIndex(bytes);
      this.events.migratetype[i] = migratetype;
      this.allocs++;
    } else {
      this.events.push(this.#lastAtNs, EventKind.FREE, pfn, order, cpu);
      this.frees++;
    }
    this.#lastKind.fill(kind === LineKind.FREE ? FREED : NOT_FREED, pfn, pfn + pages);
  }

  #addBatched(bytes: Uint8Array, start: number, end: number): void {
    const { pfn } = this.#scanner;
    if (pfn >= this.#frameCount) {
      this.#addMalformed(this.#pfnBound(1), bytes, start, end);
      return;
    }
    this.freeBatched++;
    if (this.#lastKind[pfn] !== FREED) this.batchedWithoutFree++;
  }

  #addMark(bytes: Uint8Array): void {
    const { atNs, textStart, textEnd } = this.#scanner;
    this.marks.push({ atNs, text: toText(bytes, textStart, textEnd), line: this.lines });
  }

  #addMalformed(expected: string, bytes: Uint8Array, start: number, end: number): void {
    this.malformedCount++;
    if (this.malformed.length >= KEPT_MALFORMED) return;
    const found = toText(bytes, start, Math.min(end, start + FOUND_CHARS)).trim();
    this.malformed.push({ line: this.lines, expected, found });
  }

  #pfnBound(pages: number): string {
    return `pfn at most 0x${(this.#frameCount - pages).toString(16)} (kpageflags ends there)`;
  }

  /** A text is made only once per distinct gfp_flags: a hash finds it, the bytes decide. */
  #gfpIndex(bytes: Uint8Array): number {
    const { textStart, textEnd } = this.#scanner;
    let hash = textEnd - textStart;
    for (let p = textStart; p < textEnd; p++) hash = (Math.imul(hash, 31) + bytes[p]!) | 0;
    let bucket = this.#gfp.get(hash);
    if (!bucket) {
      bucket = [];
      this.#gfp.set(hash, bucket);
    }
    for (const known of bucket) {
      if (equalBytes(known.bytes, bytes, textStart, textEnd)) return known.index;
    }
    const index = this.gfpTexts.length;
    this.gfpTexts.push(toText(bytes, textStart, textEnd));
    bucket.push({ index, bytes: bytes.slice(textStart, textEnd) });
    return index;
  }
}

function equalBytes(known: Uint8Array, bytes: Uint8Array, start: number, end: number): boolean {
  if (known.length !== end - start) return false;
  for (let i = 0; i < known.length; i++) if (known[i] !== bytes[start + i]) return false;
  return true;
}

/** Of foreign bytes: nothing that could move a terminal's cursor. */
function toText(bytes: Uint8Array, start: number, end: number): string {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset + start, end - start).toString('utf8');
  return text.replace(/[^\x20-\x7e\u00a0-\uffff]/g, '?');
}
