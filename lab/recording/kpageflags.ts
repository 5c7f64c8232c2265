/**
 * /proc/kpageflags: one little-endian u64 of KPF_* bits per page frame
 * (linux Documentation/admin-guide/mm/pagemap.rst, include/uapi/linux/kernel-page-flags.h).
 */
import { basename } from 'node:path';
import { BallastError, Bitmap, MIB, PAGE_SIZE_BYTES } from '../../shared/index.ts';
import { MAX_FRAMES } from '../../shared/recording/index.ts';
import { readSourceWhole } from './source-file.ts';

/** Bit numbers. */
export const Kpf = {
  LRU: 5,
  SLAB: 7,
  BUDDY: 10,
  ANON: 12,
  HWPOISON: 19,
  NOPAGE: 20,
  OFFLINE: 23,
  PGTABLE: 26,
  RESERVED: 32,
} as const;
export type Kpf = (typeof Kpf)[keyof typeof Kpf];

const BYTES_PER_FRAME = 8;

export class PageFlags {
  readonly frameCount: number;
  readonly #low: Uint32Array;
  readonly #high: Uint32Array;

  /** `bytes` holds whole frames (`parsePageFlags` checks it). */
  constructor(bytes: Uint8Array) {
    this.frameCount = bytes.length / BYTES_PER_FRAME;
    this.#low = new Uint32Array(this.frameCount);
    this.#high = new Uint32Array(this.frameCount);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    for (let pfn = 0; pfn < this.frameCount; pfn++) {
      this.#low[pfn] = view.getUint32(pfn * BYTES_PER_FRAME, true);
      this.#high[pfn] = view.getUint32(pfn * BYTES_PER_FRAME + 4, true);
    }
  }

  has(pfn: number, bit: Kpf): boolean {
    const word = bit < 32 ? this.#low[pfn]! : this.#high[pfn]!;
    return ((word >>> (bit & 31)) & 1) === 1;
  }

  /** The frames with any of `bits`. */
  select(...bits: Kpf[]): Bitmap {
    const frames = new Bitmap(this.frameCount);
    for (let pfn = 0; pfn < this.frameCount; pfn++) {
      for (const bit of bits) if (this.has(pfn, bit)) frames.set(pfn);
    }
    return frames;
  }
}

/** Reads and checks a file against the memory size that recording.json states. */
export async function readPageFlags(path: string, memMiB: number): Promise<PageFlags> {
  const bytes = await readSourceWhole(path, MAX_FRAMES * BYTES_PER_FRAME);
  return parsePageFlags(bytes, basename(path), memMiB);
}

/** Throws BallastError RECORDING_MALFORMED where the size or the holes do not fit `memMiB`. */
function parsePageFlags(bytes: Uint8Array, file: string, memMiB: number): PageFlags {
  if (bytes.length % BYTES_PER_FRAME !== 0) {
    throw malformed(file, 'a multiple of 8 bytes (a u64 per page frame)', `${bytes.length} bytes`);
  }
  const flags = new PageFlags(bytes);
  const memFrames = (memMiB * MIB) / PAGE_SIZE_BYTES;
  const sizes = `${memFrames * BYTES_PER_FRAME} bytes (mem_MiB ${memMiB})`;
  if (flags.frameCount < memFrames) throw malformed(file, sizes, `${bytes.length} bytes`);
  // Guests above 3 GiB have a hole below 4 GiB, and the file is rounded up to 128 MiB sections:
  // what exceeds the memory must then be frames without a page.
  const beyond = flags.frameCount - memFrames;
  if (beyond > 0 && flags.select(Kpf.NOPAGE, Kpf.RESERVED).count() < beyond) {
    throw malformed(file, sizes, `${bytes.length} bytes, and no hole in them`);
  }
  return flags;
}

function malformed(file: string, expected: string, found: string): BallastError {
  return new BallastError('RECORDING_MALFORMED', `${file}: expected ${expected}, found ${found}`);
}
