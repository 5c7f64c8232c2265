/** zero-pages.bitmap: one bit per page, least significant first; 1 = all zero in the dump. */
import { basename } from 'node:path';
import { BallastError, Bitmap, MIB, PAGE_SIZE_BYTES } from '../../shared/index.ts';
import { MAX_FRAMES } from '../../shared/recording/index.ts';
import { Kpf, type PageFlags } from './kpageflags.ts';
import { readSourceWhole } from './source-file.ts';

/** A run of frames without a page as long as a memory section (128 MiB) is a hole. */
const HOLE_FRAMES = 1 << 15;

export async function readZeroBitmap(
  path: string,
  flags: PageFlags,
  memMiB: number,
): Promise<Bitmap> {
  const bytes = await readSourceWhole(path, MAX_FRAMES / 8);
  return parseZeroBitmap(bytes, basename(path), flags, memMiB);
}

/**
 * Bits go by page frame number; a dump of RAM alone has no bits for the hole below 4 GiB, and is
 * spread over the frames here. Throws BallastError RECORDING_MALFORMED if the size fits neither.
 */
function parseZeroBitmap(
  bytes: Uint8Array,
  file: string,
  flags: PageFlags,
  memMiB: number,
): Bitmap {
  const memFrames = (memMiB * MIB) / PAGE_SIZE_BYTES;
  const { frameCount } = flags;
  const byFrame = bytes.length === Math.ceil(frameCount / 8);
  const byRam = bytes.length === Math.ceil(memFrames / 8);
  if (!byFrame && !byRam) {
    const expected = `${Math.ceil(memFrames / 8)} bytes (a bit per page of mem_MiB ${memMiB})`;
    const message = `${file}: expected ${expected}, found ${bytes.length}`;
    throw new BallastError('RECORDING_MALFORMED', message);
  }
  const zero = new Bitmap(frameCount);
  let bit = 0;
  let pfn = 0;
  while (pfn < frameCount && bit < 8 * bytes.length) {
    if (!byFrame && flags.has(pfn, Kpf.NOPAGE)) {
      const end = endOfRun(flags, pfn);
      if (end - pfn >= HOLE_FRAMES) {
        pfn = end;
        continue;
      }
    }
    if ((bytes[bit >>> 3]! >>> (bit & 7)) & 1) zero.set(pfn);
    bit++;
    pfn++;
  }
  return zero;
}

function endOfRun(flags: PageFlags, start: number): number {
  let end = start;
  while (end < flags.frameCount && flags.has(end, Kpf.NOPAGE)) end++;
  return end;
}
