/**
 * One line of an ftrace text, read byte by byte: `task-pid [cpu] flags seconds: event: fields`
 * (linux Documentation/trace/ftrace.rst). A recording has a million lines, so nothing is allocated
 * for a line that is well formed; fields are left in the scanner's properties.
 */

export const LineKind = {
  SKIP: 0, // empty, or a comment
  ALLOC: 1,
  FREE: 2,
  FREE_BATCHED: 3,
  FAILED_ALLOC: 4,
  MARK: 5,
  LOST: 6,
  OTHER: 7, // an event that is none of ours
  MALFORMED: 8,
} as const;
export type LineKind = (typeof LineKind)[keyof typeof LineKind];

const SPACE = 0x20;
const TAB = 0x09;
const CR = 0x0d;
const HASH = 0x23;
const COLON = 0x3a;
const MINUS = 0x2d;
const DOT = 0x2e;
const ZERO = 0x30;
const OPEN = 0x5b;
const CLOSE = 0x5d;
const CHAR_X = 0x78;

const MAX_ORDER = 10;
const MAX_CPU = 255;
/** What a number that does not fit (a failed allocation's pfn is −1) reads as. */
const TOO_LARGE = 0x1_0000_0000;
const POWERS_OF_TEN = [1, 10, 100, 1_000, 10_000, 100_000, 1e6, 1e7, 1e8, 1e9];

const ascii = (text: string): Uint8Array => new TextEncoder().encode(text);
const ALLOC = ascii('mm_page_alloc:');
const FREE = ascii('mm_page_free:');
const FREE_BATCHED = ascii('mm_page_free_batched:');
const MARK = ascii('tracing_mark_write:');
const PRINT = ascii('print:');
const CPU = ascii('CPU:');
const CPUS = ascii('cpus=');
const VERSION = ascii('version');
const KEY_PAGE = ascii('page=');
const KEY_PFN = ascii('pfn=');
const KEY_ORDER = ascii('order=');
const KEY_MIGRATETYPE = ascii('migratetype=');
const KEY_GFP = ascii('gfp_flags=');

const EXPECTED_LINE = 'task-pid [cpu] flags seconds.fraction: event: …';
const EXPECTED_ALLOC = 'mm_page_alloc: … pfn=0x… order=… migratetype=… gfp_flags=…';
const EXPECTED_FREE = 'mm_page_free: … pfn=0x… order=…';
const EXPECTED_BATCHED = 'mm_page_free_batched: … pfn=0x…';

export class LineScanner {
  cpu = 0;
  /** Of the guest's trace clock. */
  atNs = 0;
  pfn = 0;
  order = 0;
  migratetype = 0;
  /** Bounds of the gfp_flags text, or of a mark's text. */
  textStart = 0;
  textEnd = 0;
  /** After LOST: how many events, as far as the line says. */
  lostCount = 0;
  /** After MALFORMED: what should have stood there, and where the odd part begins. */
  expected = '';
  oddStart = 0;

  #p = 0;
  #value = 0;
  #pageIsNull = false;

  /** Reads bytes[start, end), a line without its newline. */
  scan(bytes: Uint8Array, start: number, lineEnd: number): LineKind {
    let end = lineEnd;
    while (end > start && isSpace(bytes[end - 1]!)) end--;
    const first = skipSpaces(bytes, start, end);
    if (first === end || bytes[first] === HASH) return LineKind.SKIP;
    if (bytes[first] === CPU[0] && startsWith(bytes, first, end, CPU)) {
      if (this.#scanLost(bytes, first, end)) return LineKind.LOST;
    }
    for (let i = first; i < end; i++) {
      if (bytes[i] === OPEN && this.#scanPrefix(bytes, first, i, end)) {
        return this.#scanEvent(bytes, this.#p, end);
      }
    }
    // trace-cmd report opens with these two.
    if (startsWith(bytes, first, end, CPUS)) return LineKind.SKIP;
    if (startsWith(bytes, first, end, VERSION)) return LineKind.SKIP;
    return this.#malformed(EXPECTED_LINE, first);
  }

  /** `CPU:0 [LOST 12 EVENTS]` (ftrace) or `CPU:0 [12 EVENTS DROPPED]` (trace-cmd). */
  #scanLost(bytes: Uint8Array, start: number, end: number): boolean {
    const text = Buffer.from(bytes.buffer, bytes.byteOffset + start, end - start).toString(
      'latin1',
    );
    const found =
      /^CPU:\s*\d+ \[(?:LOST (\d+) EVENTS|(\d+) EVENTS DROPPED|LOST EVENTS.*|EVENTS DROPPED)\]/i.exec(
        text,
      );
    if (!found) return false;
    this.lostCount = Number(found[1] ?? found[2] ?? 0);
    return true;
  }

  /** `bytes[open]` is a bracket: is it the CPU column, and does a time follow? */
  #scanPrefix(bytes: Uint8Array, first: number, open: number, end: number): boolean {
    if (!endsWithPid(bytes, first, open)) return false;
    let p = open + 1;
    let cpu = 0;
    while (p < end && isDigit(bytes[p]!)) cpu = cpu * 10 + bytes[p++]! - ZERO;
    if (p === open + 1 || bytes[p] !== CLOSE || cpu > MAX_CPU) return false;
    this.cpu = cpu;
    // Between CPU and time: the flags column of the irq-info option, or nothing.
    for (let column = 0; column < 3; column++) {
      p = skipSpaces(bytes, p + (column === 0 ? 1 : 0), end);
      if (this.#scanTime(bytes, p, end)) return true;
      while (p < end && !isSpace(bytes[p]!)) p++;
    }
    return false;
  }

  /** `12.345678:`, micro- or nanoseconds. */
  #scanTime(bytes: Uint8Array, start: number, end: number): boolean {
    let p = start;
    let seconds = 0;
    while (p < end && isDigit(bytes[p]!)) seconds = seconds * 10 + bytes[p++]! - ZERO;
    if (p === start || bytes[p] !== DOT) return false;
    const fractionStart = ++p;
    let fraction = 0;
    while (p < end && isDigit(bytes[p]!)) fraction = fraction * 10 + bytes[p++]! - ZERO;
    const digits = p - fractionStart;
    if (digits === 0 || digits > 9 || bytes[p] !== COLON || seconds > 9e6) return false;
    this.atNs = seconds * 1e9 + fraction * POWERS_OF_TEN[9 - digits]!;
    this.#p = skipSpaces(bytes, p + 1, end);
    return true;
  }

  #scanEvent(bytes: Uint8Array, start: number, end: number): LineKind {
    if (startsWith(bytes, start, end, FREE_BATCHED)) {
      const ok = this.#scanFields(bytes, start + FREE_BATCHED.length, end) & Field.PFN;
      if (!ok || this.pfn >= TOO_LARGE) return this.#malformed(EXPECTED_BATCHED, start);
      return LineKind.FREE_BATCHED;
    }
    if (startsWith(bytes, start, end, FREE)) {
      const fields = this.#scanFields(bytes, start + FREE.length, end);
      const complete = (fields & FREE_FIELDS) === FREE_FIELDS && !this.#pageIsNull;
      if (!complete || this.pfn >= TOO_LARGE) return this.#malformed(EXPECTED_FREE, start);
      return LineKind.FREE;
    }
    if (startsWith(bytes, start, end, ALLOC)) {
      const fields = this.#scanFields(bytes, start + ALLOC.length, end);
      if ((fields & ALLOC_FIELDS) !== ALLOC_FIELDS) return this.#malformed(EXPECTED_ALLOC, start);
      const failed = this.#pageIsNull || this.pfn >= TOO_LARGE;
      return failed ? LineKind.FAILED_ALLOC : LineKind.ALLOC;
    }
    const isMark = startsWith(bytes, start, end, MARK);
    if (isMark || startsWith(bytes, start, end, PRINT)) {
      this.textStart = skipSpaces(bytes, start + (isMark ? MARK : PRINT).length, end);
      this.textEnd = end;
      return LineKind.MARK;
    }
    for (let p = start; p < end && !isSpace(bytes[p]!); p++) {
      if (p > start && bytes[p] === COLON) return LineKind.OTHER;
    }
    return this.#malformed(EXPECTED_LINE, start);
  }

  /** `key=value` in any order; returns which fields were there and well formed. */
  #scanFields(bytes: Uint8Array, start: number, end: number): number {
    let fields = 0;
    let p = skipSpaces(bytes, start, end);
    this.#pageIsNull = false;
    while (p < end) {
      let stop = p;
      while (stop < end && !isSpace(bytes[stop]!)) stop++;
      fields |= this.#scanField(bytes, p, stop);
      p = skipSpaces(bytes, stop, end);
    }
    return fields;
  }

  #scanField(bytes: Uint8Array, p: number, end: number): number {
    if (startsWith(bytes, p, end, KEY_PAGE)) {
      this.#pageIsNull = isNull(bytes, p + KEY_PAGE.length, end);
      return 0;
    }
    if (startsWith(bytes, p, end, KEY_PFN)) {
      if (!this.#scanNumber(bytes, p + KEY_PFN.length, end)) return 0;
      this.pfn = this.#value;
      return Field.PFN;
    }
    if (startsWith(bytes, p, end, KEY_ORDER)) {
      if (!this.#scanNumber(bytes, p + KEY_ORDER.length, end)) return 0;
      this.order = this.#value;
      return this.order <= MAX_ORDER ? Field.ORDER : 0;
    }
    if (startsWith(bytes, p, end, KEY_MIGRATETYPE)) {
      if (!this.#scanNumber(bytes, p + KEY_MIGRATETYPE.length, end)) return 0;
      this.migratetype = this.#value;
      return this.migratetype < 16 ? Field.MIGRATETYPE : 0;
    }
    if (startsWith(bytes, p, end, KEY_GFP)) {
      this.textStart = p + KEY_GFP.length;
      this.textEnd = end;
      return this.textEnd > this.textStart ? Field.GFP : 0;
    }
    return 0;
  }

  /** `0x1a2b` or `6699`, the whole of bytes[start, end). */
  #scanNumber(bytes: Uint8Array, start: number, end: number): boolean {
    let value = 0;
    let p = start;
    if (bytes[p] === ZERO && p + 2 < end && bytes[p + 1] === CHAR_X) {
      for (p += 2; p < end; p++) {
        const digit = hexDigit(bytes[p]!);
        if (digit < 0) return false;
        value = value * 16 + digit;
      }
    } else {
      if (p >= end) return false;
      for (; p < end; p++) {
        if (!isDigit(bytes[p]!)) return false;
        value = value * 10 + bytes[p]! - ZERO;
      }
    }
    this.#value = Math.min(value, TOO_LARGE);
    return true;
  }

  #malformed(expected: string, oddStart: number): LineKind {
    this.expected = expected;
    this.oddStart = oddStart;
    return LineKind.MALFORMED;
  }
}

const Field = { PFN: 1, ORDER: 2, MIGRATETYPE: 4, GFP: 8 } as const;
const FREE_FIELDS = Field.PFN | Field.ORDER;
const ALLOC_FIELDS = Field.PFN | Field.ORDER | Field.MIGRATETYPE | Field.GFP;

function isSpace(byte: number): boolean {
  return byte === SPACE || byte === TAB || byte === CR;
}

function isDigit(byte: number): boolean {
  return byte >= ZERO && byte <= ZERO + 9;
}

function hexDigit(byte: number): number {
  if (isDigit(byte)) return byte - ZERO;
  const lower = byte | 0x20;
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x57 : -1;
}

function skipSpaces(bytes: Uint8Array, start: number, end: number): number {
  let p = start;
  while (p < end && isSpace(bytes[p]!)) p++;
  return p;
}

function startsWith(bytes: Uint8Array, start: number, end: number, prefix: Uint8Array): boolean {
  if (end - start < prefix.length) return false;
  for (let i = 0; i < prefix.length; i++) if (bytes[start + i] !== prefix[i]) return false;
  return true;
}

/** Before the CPU column: `-pid`, then perhaps a `(tgid)` column. A task's name may hold anything. */
function endsWithPid(bytes: Uint8Array, first: number, open: number): boolean {
  let p = open - 1;
  while (p > first && isSpace(bytes[p]!)) p--;
  if (bytes[p] === 0x29) {
    while (p > first && bytes[p] !== 0x28) p--;
    p--;
    while (p > first && isSpace(bytes[p]!)) p--;
  }
  const last = p;
  while (p > first && isDigit(bytes[p]!)) p--;
  return p < last && bytes[p] === MINUS;
}

/** `0000000000000000`, `0x0`, `(null)`, `(nil)`: the allocation failed. */
function isNull(bytes: Uint8Array, start: number, end: number): boolean {
  if (bytes[start] === 0x28) return bytes[start + 1] === 0x6e && end - start <= 6;
  for (let p = start; p < end; p++) {
    if (bytes[p] !== ZERO && !(p === start + 1 && bytes[p] === CHAR_X)) return false;
  }
  return end > start;
}
