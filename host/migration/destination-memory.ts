/**
 * The destination's memory: content records as they arrive. It begins as QEMU's does: every page
 * that nothing was received for reads zero.
 */
import { Bitmap, type Pfn } from '../../shared/index.ts';
import { RecordTags, TAG_RECORD_BYTES } from '../memory/records.ts';

export class DestinationMemory {
  readonly recordSizeBytes: number;
  /** Pages that were received with content at least once, so that the host backs them. */
  readonly backed: Bitmap;
  readonly #records: Uint8Array;
  /** The same bytes where a record is a tag. */
  readonly #tags: Uint32Array | null;
  readonly #tagger: RecordTags;

  constructor(pageCount: number, recordSizeBytes: number = TAG_RECORD_BYTES) {
    this.recordSizeBytes = recordSizeBytes;
    this.backed = new Bitmap(pageCount);
    this.#records = new Uint8Array(pageCount * recordSizeBytes);
    const isTag = recordSizeBytes === TAG_RECORD_BYTES;
    this.#tags = isTag ? new Uint32Array(this.#records.buffer) : null;
    this.#tagger = new RecordTags(recordSizeBytes);
  }

  get pageCount(): number {
    return this.backed.bitCount;
  }

  /** Pages with content, records in the order of the ranges (pairs of first frame and count). */
  receive(ranges: Uint32Array, data: Uint8Array): void {
    let at = 0;
    for (let i = 0; i < ranges.length; i += 2) {
      const first = ranges[i]!;
      const bytes = ranges[i + 1]! * this.recordSizeBytes;
      this.#records.set(data.subarray(at, at + bytes), first * this.recordSizeBytes);
      this.backed.setRange(first, ranges[i + 1]!);
      at += bytes;
    }
  }

  receiveZero(ranges: Uint32Array): void {
    for (let i = 0; i < ranges.length; i += 2) {
      const start = ranges[i]! * this.recordSizeBytes;
      this.#records.fill(0, start, start + ranges[i + 1]! * this.recordSizeBytes);
    }
  }

  /** The page's content as a tag: 0 for zero, anything else for that content. */
  tagOf(pfn: Pfn): number {
    if (this.#tags) return this.#tags[pfn]!;
    return this.#tagger.tagOf(this.recordsOf(pfn, 1));
  }

  /** The records of `pageCount` pages from `first` on; live. */
  recordsOf(first: Pfn, pageCount: number): Uint8Array {
    const start = first * this.recordSizeBytes;
    return this.#records.subarray(start, start + pageCount * this.recordSizeBytes);
  }
}
