/** The destination's memory: content records as they arrive, and which of them arrived with content. */
import { Bitmap, type Pfn } from '../../shared/index.ts';

/** What a page holds that nothing was ever received for: no guest writes this. */
export const UNRECEIVED_TAG = 0xdbdbdbdb;

export class Destination {
  readonly tags: Uint32Array;
  /** Received with content at least once. */
  readonly normal: Bitmap;

  constructor(pageCount: number) {
    this.tags = new Uint32Array(pageCount).fill(UNRECEIVED_TAG);
    this.normal = new Bitmap(pageCount);
  }

  receive(pfn: Pfn, tag: number): void {
    this.tags[pfn] = tag;
    if (tag !== 0) this.normal.set(pfn);
  }
}
