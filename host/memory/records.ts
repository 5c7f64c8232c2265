/**
 * Content records of guest memory as the host works with them: one tag a page, 0 for a zero page. A
 * record of 4 bytes is its tag. Of a record that is the page itself the tag is a checksum, and the
 * bytes go to whoever carries them on.
 */
import { crc32 } from 'node:zlib';
import { type Message, toUint32, u32Bytes } from '../../protocol/index.ts';
import { BallastError, type Pfn } from '../../shared/index.ts';

export const TAG_RECORD_BYTES = 4;
/** Pages of one request for whole pages, 8 MiB: a frame holds 64 MiB. */
const WHOLE_PAGES_MAX = 2048;

/** Who wants the bytes of pages that were read: pairs of first frame and count, one record a page. */
export type OnPages = (ranges: Uint32Array, data: Uint8Array) => void;

export class RecordReader {
  readonly recordSizeBytes: number;
  readonly #request: (message: Message) => Promise<Message<'records'>>;
  readonly #tags: RecordTags;
  /** For records that are whole pages; called before `read` resolves. */
  onPages: OnPages | null = null;

  constructor(recordSizeBytes: number, request: (message: Message) => Promise<Message<'records'>>) {
    this.recordSizeBytes = recordSizeBytes;
    this.#request = request;
    this.#tags = new RecordTags(recordSizeBytes);
  }

  /**
   * The tags of pages, ranges as pairs of first frame and count.
   * @throws BallastError MESSAGE_INVALID when the guest's answer has another length.
   */
  async read(ranges: Uint32Array): Promise<Uint32Array> {
    if (this.recordSizeBytes === TAG_RECORD_BYTES) {
      return toUint32(await this.#readPiece(ranges))!;
    }
    const tags = new Uint32Array(pageCountOf(ranges));
    let at = 0;
    for (const piece of pieces(ranges, WHOLE_PAGES_MAX)) {
      const data = await this.#readPiece(piece);
      this.onPages?.(piece, data);
      for (let start = 0; start < data.length; start += this.recordSizeBytes) {
        tags[at++] = this.#tags.tagOf(data.subarray(start, start + this.recordSizeBytes));
      }
    }
    return tags;
  }

  async #readPiece(ranges: Uint32Array): Promise<Uint8Array> {
    const { data } = await this.#request({ name: 'read', ranges: u32Bytes(ranges) });
    const pages = pageCountOf(ranges);
    if (data.length !== pages * this.recordSizeBytes) {
      throw new BallastError(
        'MESSAGE_INVALID',
        `records: expected ${pages} records of ${this.recordSizeBytes} bytes, found ${data.length} bytes`,
      );
    }
    return data;
  }
}

/** The tag of a record that is a whole page: its checksum; only the zero page has 0. */
export class RecordTags {
  readonly #bytes: Uint8Array;
  readonly #crc: number;

  constructor(sizeBytes: number) {
    this.#bytes = new Uint8Array(sizeBytes);
    this.#crc = crc32(this.#bytes);
  }

  tagOf(record: Uint8Array): number {
    const crc = crc32(record);
    if (crc === this.#crc && Buffer.compare(record, this.#bytes) === 0) return 0;
    return crc === 0 ? 1 : crc;
  }
}

function pageCountOf(ranges: Uint32Array): number {
  let pages = 0;
  for (let i = 1; i < ranges.length; i += 2) pages += ranges[i]!;
  return pages;
}

/** Pairs of first frame and count, in the given order. */
export function rangesOf(pfns: readonly Pfn[]): Uint32Array {
  const ranges: number[] = [];
  for (const pfn of pfns) {
    const last = ranges.length - 2;
    if (last >= 0 && ranges[last]! + ranges[last + 1]! === pfn) ranges[last + 1]!++;
    else ranges.push(pfn, 1);
  }
  return Uint32Array.from(ranges);
}

/** The same pages in order, at most `pagesMax` at once. */
function* pieces(ranges: Uint32Array, pagesMax: number): Generator<Uint32Array> {
  let piece: number[] = [];
  let room = pagesMax;
  for (let i = 0; i < ranges.length; i += 2) {
    const end = ranges[i]! + ranges[i + 1]!;
    for (let pfn = ranges[i]!; pfn < end; ) {
      const count = Math.min(room, end - pfn);
      piece.push(pfn, count);
      pfn += count;
      room -= count;
      if (room > 0) continue;
      yield Uint32Array.from(piece);
      piece = [];
      room = pagesMax;
    }
  }
  if (piece.length > 0) yield Uint32Array.from(piece);
}
