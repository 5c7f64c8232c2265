/**
 * The RAM of an x86 machine as the host sees it: records of 4096 bytes, and a dirty log by comparison
 * with what each page held when its bit was cleared. Also the view that the device's hand on the
 * rings has of it.
 *
 * A write that changes nothing, or is undone before anybody looks, is not seen: as good, where the
 * other side has the page as it was then. So who reads a page looks, and a page that a hint kept back
 * counts as written once somebody uses it.
 */
import type { GuestBytes } from '../../guest/virtio/queue.ts';
import type { Message } from '../../protocol/index.ts';
import { toUint32 } from '../../protocol/index.ts';
import { BallastError, Bitmap, type Gpa, PAGE_SIZE_BYTES } from '../../shared/index.ts';
import type { X86Machine } from './x86-machine.ts';

/** The legacy video memory is no RAM. */
const VIDEO_HOLE = { firstPfn: 0xa0, endPfn: 0xc0 } as const;
/** One answer to `read`: below what a frame may hold. */
const READ_PAGES_MAX = 8192;

type MemoryMachine = Pick<X86Machine, 'memory' | 'memoryBytes' | 'invalidateCode'>;

/** Pairs of first frame and count. */
export function ramSegments(memoryBytes: number): Uint32Array {
  const { firstPfn, endPfn } = VIDEO_HOLE;
  return Uint32Array.of(0, firstPfn, endPfn, memoryBytes / PAGE_SIZE_BYTES - endPfn);
}

export class X86Memory implements GuestBytes {
  readonly #machine: MemoryMachine;
  readonly #pages: number;
  readonly #unused: () => Bitmap;
  #log: DirtyLog | null = null;

  /** `unused`: pages that nobody uses now, those held for hinting among them. */
  constructor(machine: MemoryMachine, unused: () => Bitmap) {
    this.#machine = machine;
    this.#unused = unused;
    this.#pages = machine.memoryBytes / PAGE_SIZE_BYTES;
  }

  map(gpa: Gpa, lengthBytes: number): Uint8Array | null {
    if (gpa < 0 || gpa + lengthBytes > this.#machine.memoryBytes) return null;
    return this.#machine.memory.subarray(gpa, gpa + lengthBytes);
  }

  touched(gpa: Gpa, lengthBytes: number): void {
    this.#machine.invalidateCode(gpa, lengthBytes);
  }

  /** The driver hinted these pages. */
  hinted(firstPfn: number, pageCount: number): void {
    this.#log?.hinted(firstPfn, pageCount);
  }

  /** The memory group. Null: posted; undefined: another message. */
  handle(message: Message): Message | null | undefined {
    switch (message.name) {
      case 'read':
        return { name: 'records', data: this.#read(this.#checked(message.ranges)) };
      case 'write':
        this.#write(this.#checked(message.ranges), message.data);
        return null;
      case 'discard':
        this.#discard(this.#checked(message.ranges));
        return null;
      case 'dirtyLogEnable':
        this.#log = message.enabled
          ? new DirtyLog(this.#machine.memory, message.initially_set)
          : null;
        return null;
      case 'getDirtyLog':
        return { name: 'dirtyLog', bits: this.#dirty(message.clear).bytes.slice() };
      case 'clearDirtyLog':
        this.#log?.clear(this.#machine.memory, message.first_pfn, message.bits);
        return null;
      default:
        return undefined;
    }
  }

  /** A piece of what a destination holds, ascending; true: that was the last one. */
  load({ first_pfn: first, data }: Message<'loadRam'>): boolean {
    const count = data.length / PAGE_SIZE_BYTES;
    const end = first + count;
    if (!Number.isInteger(count) || end > this.#pages) {
      throw new BallastError(
        'MESSAGE_INVALID',
        `loadRam: expected whole pages below ${this.#pages}, found ${first}+${count}`,
      );
    }
    const { memory } = this.#machine;
    for (let pfn = first; pfn < end; pfn++) {
      if (pfn >= VIDEO_HOLE.firstPfn && pfn < VIDEO_HOLE.endPfn) continue;
      const at = (pfn - first) * PAGE_SIZE_BYTES;
      memory.set(data.subarray(at, at + PAGE_SIZE_BYTES), pfn * PAGE_SIZE_BYTES);
    }
    this.#machine.invalidateCode(first * PAGE_SIZE_BYTES, data.length);
    return end === this.#pages;
  }

  #dirty(clear: boolean): Bitmap {
    if (!this.#log) return new Bitmap(this.#pages);
    return this.#log.sync(this.#machine.memory, clear, this.#unused);
  }

  #read(ranges: Uint32Array): Uint8Array {
    let pages = 0;
    for (let i = 1; i < ranges.length; i += 2) pages += ranges[i]!;
    if (pages > READ_PAGES_MAX) {
      throw new BallastError(
        'MESSAGE_INVALID',
        `read: expected at most ${READ_PAGES_MAX} pages, found ${pages}`,
      );
    }
    const data = new Uint8Array(pages * PAGE_SIZE_BYTES);
    const { memory } = this.#machine;
    forEachRange(ranges, (start, end, offset) => {
      this.#log?.compare(memory, start, end);
      data.set(memory.subarray(start, end), offset);
    });
    return data;
  }

  #write(ranges: Uint32Array, data: Uint8Array): void {
    let pages = 0;
    for (let i = 1; i < ranges.length; i += 2) pages += ranges[i]!;
    if (pages * PAGE_SIZE_BYTES !== data.length) {
      throw new BallastError(
        'MESSAGE_INVALID',
        `write: expected ${pages} records, found ${data.length} bytes`,
      );
    }
    const { memory } = this.#machine;
    forEachRange(ranges, (start, end, offset) => {
      memory.set(data.subarray(offset, offset + end - start), start);
      this.touched(start, end - start);
    });
  }

  #discard(ranges: Uint32Array): void {
    const { memory } = this.#machine;
    forEachRange(ranges, (start, end) => {
      memory.fill(0, start, end);
      this.touched(start, end - start);
    });
  }

  #checked(bytes: Uint8Array): Uint32Array {
    const ranges = toUint32(bytes);
    if (ranges === null || ranges.length % 2 !== 0 || !this.#areInside(ranges)) {
      throw new BallastError('MESSAGE_INVALID', 'ranges: expected pairs inside guest memory');
    }
    return ranges;
  }

  #areInside(ranges: Uint32Array): boolean {
    for (let i = 0; i < ranges.length; i += 2) {
      if (ranges[i]! + ranges[i + 1]! > this.#pages) return false;
    }
    return true;
  }
}

/** `visit` gets byte positions in RAM, and where the range begins in the records of all of them. */
function forEachRange(
  ranges: Uint32Array,
  visit: (start: number, end: number, offset: number) => void,
): void {
  let offset = 0;
  for (let i = 0; i < ranges.length; i += 2) {
    const start = ranges[i]! * PAGE_SIZE_BYTES;
    const end = start + ranges[i + 1]! * PAGE_SIZE_BYTES;
    visit(start, end, offset);
    offset += end - start;
  }
}

class DirtyLog {
  /** Each page as it was when its bit was last clear. */
  readonly #shadow: Buffer;
  readonly #bits: Bitmap;
  /** Hinted, and used by nobody since. */
  readonly #hinted: Bitmap;

  constructor(memory: Uint8Array, initiallySet: boolean) {
    this.#shadow = Buffer.from(memory);
    this.#bits = new Bitmap(memory.length / PAGE_SIZE_BYTES);
    if (initiallySet) this.#bits.setAll();
    this.#hinted = new Bitmap(this.#bits.bitCount);
  }

  /** The log as it is now; valid until the next call. */
  sync(memory: Uint8Array, clear: boolean, unused: () => Bitmap): Bitmap {
    this.#noteReused(unused);
    this.compare(memory, 0, memory.length);
    if (!clear) return this.#bits;
    const taken = this.#bits.clone();
    this.clear(memory, 0, taken.bytes);
    return taken;
  }

  /** Notes which pages differ now; positions are bytes, of whole pages. */
  compare(memory: Uint8Array, from: number, to: number): void {
    const now = Buffer.from(memory.buffer, memory.byteOffset, memory.length);
    for (let start = from; start < to; start += PAGE_SIZE_BYTES) {
      const end = start + PAGE_SIZE_BYTES;
      if (now.compare(this.#shadow, start, end, start, end) === 0) continue;
      this.#bits.set(start / PAGE_SIZE_BYTES);
    }
  }

  hinted(firstPfn: number, pageCount: number): void {
    this.#hinted.setRange(firstPfn, pageCount);
  }

  #noteReused(unused: () => Bitmap): void {
    let pfn = this.#hinted.nextSet(0);
    if (pfn < 0) return;
    const free = unused();
    for (; pfn >= 0; pfn = this.#hinted.nextSet(pfn + 1)) {
      if (free.get(pfn)) continue;
      this.#hinted.clear(pfn);
      this.#bits.set(pfn);
    }
  }

  clear(memory: Uint8Array, firstPfn: number, bits: Uint8Array): void {
    for (let i = 0; i < bits.length * 8; i++) {
      const pfn = firstPfn + i;
      if (pfn >= this.#bits.bitCount) return;
      if ((bits[i >>> 3]! & (1 << (i & 7))) === 0) continue;
      this.#bits.clear(pfn);
      const start = pfn * PAGE_SIZE_BYTES;
      this.#shadow.set(memory.subarray(start, start + PAGE_SIZE_BYTES), start);
    }
  }
}
