/**
 * Guest RAM as a content record per page: a 32-bit tag, 0 for the zero page and anything else for
 * "that content". Pages that a device really reads (rings, buffers) are backed by bytes as well;
 * their tag changes whenever the bytes do.
 */
import {
  assert,
  Bitmap,
  type Gpa,
  gpaToPfn,
  PAGE_SIZE_BYTES,
  type Pfn,
} from '../../shared/index.ts';
import { DirtyLog } from './dirty-log.ts';

export const ZERO_TAG = 0;
/** Content of a page filled with PAGE_POISON (0xaa bytes). */
export const POISON_TAG = 0xaaaaaaaa;
/** What the allocator fills a page with. */
export function tagOfFill(pattern: 'zero' | 'poison'): typeof ZERO_TAG | typeof POISON_TAG {
  return pattern === 'zero' ? ZERO_TAG : POISON_TAG;
}

/** Bytes of one content record on the channel. */
export const RECORD_SIZE_BYTES = 4;

export class Ram {
  readonly pageCount: number;
  readonly tags: Uint32Array;
  readonly dirtyLog: DirtyLog;
  /** Pages that the host has never had to back with memory; a first write costs a host fault. */
  readonly untouched: Bitmap;
  /** Handed out without content and not written since: what they hold is nobody's. */
  readonly undefinedPages: Bitmap;
  /** First touches so far: what changes while an operation runs is its number of host faults. */
  hostFaultCount = 0;
  /** Pages filled with zeroes or poison so far. */
  filledPageCount = 0;
  /** Whether somebody relies on what a page holds; who evaluates knows. */
  isInUse: ((pfn: Pfn) => boolean) | null = null;
  /** For evaluation: pages in use whose content a discard took, and the tag that they had. */
  readonly erased = new Map<Pfn, number>();
  #nextTag = 1;
  /** Byte-backed regions by each of their frames: region bytes and the frame's offset in them. */
  readonly #bytes = new Map<Pfn, Uint8Array>();
  /** No frame from here on was ever backed by bytes. */
  #bytesEnd: Pfn = 0;

  constructor(pageCount: number) {
    this.pageCount = pageCount;
    this.tags = new Uint32Array(pageCount);
    this.dirtyLog = new DirtyLog(pageCount);
    this.untouched = new Bitmap(pageCount);
    this.untouched.setAll();
    this.undefinedPages = new Bitmap(pageCount);
  }

  /** The guest writes new data, different from all before it, into one page. */
  write(pfn: Pfn): void {
    this.tags[pfn] = this.#takeTag();
    this.#touch(pfn);
    this.dirtyLog.mark(pfn);
  }

  /** The guest copies one page. */
  copy(from: Pfn, to: Pfn): void {
    this.tags[to] = this.tags[from]!;
    this.#touch(to);
    if (this.undefinedPages.get(from)) this.undefinedPages.set(to);
    const lostTag = this.erased.size > 0 ? this.erased.get(from) : undefined;
    if (lostTag !== undefined) this.erased.set(to, lostTag);
    this.dirtyLog.mark(to);
  }

  /** The guest fills pages with zeroes or with the poison pattern. */
  fill(pfn: Pfn, pageCount: number, tag: typeof ZERO_TAG | typeof POISON_TAG): void {
    this.tags.fill(tag, pfn, pfn + pageCount);
    this.filledPageCount += pageCount;
    if (pageCount === 1) this.#touch(pfn);
    else this.#touchRange(pfn, pageCount);
    this.dirtyLog.markRange(pfn, pageCount);
  }

  /** The host gave up the backing: the page reads as zero. Not a guest write, so not logged. */
  discard(pfn: Pfn, pageCount: number): void {
    const { tags } = this;
    // What the host never backed is zero, and so has nothing to lose.
    if (this.isInUse && this.untouched.countRange(pfn, pageCount) < pageCount) {
      for (let i = pfn; i < pfn + pageCount; i++) if (tags[i] !== ZERO_TAG) this.#noteErased(i);
    }
    tags.fill(ZERO_TAG, pfn, pfn + pageCount);
    this.untouched.setRange(pfn, pageCount);
    this.#clearBytes(pfn, pageCount);
  }

  /** Few pages are byte-backed: of a large range, it is they that are looked through. */
  #clearBytes(pfn: Pfn, pageCount: number): void {
    if (pfn >= this.#bytesEnd) return;
    if (pageCount <= this.#bytes.size) {
      for (let i = pfn; i < pfn + pageCount; i++) this.#bytes.get(i)?.fill(0);
      return;
    }
    for (const [one, bytes] of this.#bytes) {
      if (one >= pfn && one < pfn + pageCount) bytes.fill(0);
    }
  }

  /** A device wrote the record of a page: by DMA, so it is logged. */
  setRecord(pfn: Pfn, tag: number): void {
    this.tags[pfn] = tag;
    this.#touch(pfn);
    this.dirtyLog.mark(pfn);
  }

  /**
   * What the destination of a migration holds takes the place of what was here: no write, so no log
   * sees it. Bytes that did not arrive as they were cannot be made up: they read zero.
   * `isBacked`: the host backs the page there.
   */
  load(pfn: Pfn, tag: number, isBacked: boolean): void {
    if (isBacked) this.untouched.clear(pfn);
    else this.untouched.set(pfn);
    if (this.tags[pfn] === tag) return;
    this.tags[pfn] = tag;
    this.#bytes.get(pfn)?.fill(0);
  }

  /** Content before the run began; neither a write nor a touch. */
  setInitial(pfn: Pfn, zero: boolean, untouched: boolean): void {
    this.tags[pfn] = zero ? ZERO_TAG : this.#takeTag();
    if (!untouched) this.untouched.clear(pfn);
  }

  /**
   * Back a contiguous range with bytes and return them, live. After changing them call
   * `touchBytes`; give the pages back with `dropBytes` before they are freed.
   */
  bytesOf(pfn: Pfn, pageCount: number): Uint8Array {
    const region = new Uint8Array(pageCount * PAGE_SIZE_BYTES);
    this.#bytesEnd = Math.max(this.#bytesEnd, pfn + pageCount);
    for (let i = 0; i < pageCount; i++) {
      assert(!this.#bytes.has(pfn + i), 'a frame is in one byte-backed region at most');
      this.#bytes.set(pfn + i, region.subarray(i * PAGE_SIZE_BYTES, (i + 1) * PAGE_SIZE_BYTES));
      this.write(pfn + i);
    }
    return region;
  }

  dropBytes(pfn: Pfn, pageCount: number): void {
    for (let i = 0; i < pageCount; i++) this.#bytes.delete(pfn + i);
  }

  /** The frames that are backed by bytes now, and their live bytes. */
  get backed(): ReadonlyMap<Pfn, Uint8Array> {
    return this.#bytes;
  }

  /** The bytes of these frames were changed through a view. */
  touchBytes(pfn: Pfn, pageCount = 1): void {
    for (let i = 0; i < pageCount; i++) this.write(pfn + i);
  }

  /**
   * A live view of bytes in one region, for a device; null where guest memory is not byte-backed.
   * After changing them call `touched`.
   */
  map(gpa: Gpa, lengthBytes: number): Uint8Array | null {
    const page = this.#bytes.get(gpaToPfn(gpa));
    if (!page) return null;
    const start = page.byteOffset + (gpa % PAGE_SIZE_BYTES);
    if (start + lengthBytes > page.buffer.byteLength) return null;
    return new Uint8Array(page.buffer, start, lengthBytes);
  }

  /** A device wrote bytes through a view. */
  touched(gpa: Gpa, lengthBytes: number): void {
    const last = gpaToPfn(gpa + lengthBytes - 1);
    for (let pfn = gpaToPfn(gpa); pfn <= last; pfn++) this.write(pfn);
  }

  /** Bytes at an address, or null where guest memory there is not byte-backed or not there. */
  readBytes(gpa: Gpa, lengthBytes: number): Uint8Array | null {
    const out = new Uint8Array(lengthBytes);
    const whole = this.#forEachPiece(gpa, lengthBytes, (bytes, at, done) =>
      out.set(bytes.subarray(at.start, at.end), done),
    );
    return whole ? out : null;
  }

  /** False, and nothing written, where guest memory there is not byte-backed or not there. */
  writeBytes(gpa: Gpa, data: Uint8Array): boolean {
    if (!this.#forEachPiece(gpa, data.length, () => undefined)) return false;
    return this.#forEachPiece(gpa, data.length, (bytes, at, done) => {
      bytes.set(data.subarray(done, done + at.end - at.start), at.start);
      this.write(at.pfn);
    });
  }

  #forEachPiece(
    gpa: Gpa,
    lengthBytes: number,
    visit: (bytes: Uint8Array, at: { pfn: Pfn; start: number; end: number }, done: number) => void,
  ): boolean {
    let done = 0;
    while (done < lengthBytes) {
      const address = gpa + done;
      const pfn = Math.floor(address / PAGE_SIZE_BYTES);
      const bytes = this.#bytes.get(pfn);
      if (!bytes) return false;
      const start = address % PAGE_SIZE_BYTES;
      const end = Math.min(PAGE_SIZE_BYTES, start + lengthBytes - done);
      visit(bytes, { pfn, start, end }, done);
      done += end - start;
    }
    return true;
  }

  #takeTag(): number {
    const tag = this.#nextTag;
    this.#nextTag = this.#nextTag === POISON_TAG - 1 ? 1 : this.#nextTag + 1;
    return tag;
  }

  #noteErased(pfn: Pfn): void {
    if (this.isInUse?.(pfn)) this.erased.set(pfn, this.tags[pfn]!);
  }

  /** Each write passes here. */
  #touch(pfn: Pfn): void {
    this.undefinedPages.clear(pfn);
    if (this.erased.size > 0) this.erased.delete(pfn);
    if (!this.untouched.get(pfn)) return;
    this.untouched.clear(pfn);
    this.hostFaultCount++;
  }

  #touchRange(pfn: Pfn, pageCount: number): void {
    this.undefinedPages.clearRange(pfn, pageCount);
    if (this.erased.size > 0) {
      for (let i = pfn; i < pfn + pageCount; i++) this.erased.delete(i);
    }
    this.hostFaultCount += this.untouched.countRange(pfn, pageCount);
    this.untouched.clearRange(pfn, pageCount);
  }
}
