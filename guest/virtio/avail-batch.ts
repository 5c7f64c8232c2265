/**
 * Chains on their way from a ring to one `avail` message, as columns. Readable bytes are copied
 * when the chain is taken: the guest runs on before the message is sent.
 */
import {
  DescFlag,
  MAX_BATCH_OUT_BYTES,
  MAX_BATCH_SEGMENTS,
  type Message,
} from '../../protocol/index.ts';
import { type Gpa, type Nanoseconds, PAGE_SIZE_BYTES } from '../../shared/index.ts';
import type { GuestBytes } from './queue.ts';

/** Not a defect of the chain: it would fit into an empty batch. */
export const BATCH_FULL = 'the batch is full';

export class AvailBatch {
  readonly #queueIndex: number;
  readonly #memory: GuestBytes;
  readonly #heads: Uint16Array;
  readonly #atNs: Float64Array;
  readonly #outBytes: Uint32Array;
  readonly #inCount: Uint16Array;
  #inGpa: Float64Array;
  #inBytes: Uint32Array;
  #out = new Uint8Array(0);
  #chainCount = 0;
  #segmentCount = 0;
  #outTotalBytes = 0;
  /** Of the chain that is being added. */
  #openSegments = 0;
  #openOutBytes = 0;

  /** Holds at most one ring full of chains. */
  constructor(queueIndex: number, size: number, memory: GuestBytes) {
    this.#queueIndex = queueIndex;
    this.#memory = memory;
    this.#heads = new Uint16Array(size);
    this.#atNs = new Float64Array(size);
    this.#outBytes = new Uint32Array(size);
    this.#inCount = new Uint16Array(size);
    this.#inGpa = new Float64Array(size);
    this.#inBytes = new Uint32Array(size);
  }

  /** One element of the open chain. Returns what is wrong with it, BATCH_FULL, or null. */
  addSegment(gpa: Gpa, lengthBytes: number, flags: number): string | null {
    if (lengthBytes === 0) return 'zero-length descriptor';
    if (gpa < 0 || gpa + lengthBytes > Number.MAX_SAFE_INTEGER) return 'address beyond 2^53';
    if ((flags & DescFlag.WRITE) === 0) return this.#addReadable(gpa, lengthBytes);
    const at = this.#segmentCount + this.#openSegments;
    if (at === this.#inGpa.length) {
      if (at === MAX_BATCH_SEGMENTS) return BATCH_FULL;
      this.#growSegments();
    }
    this.#inGpa[at] = gpa;
    this.#inBytes[at] = lengthBytes;
    this.#openSegments++;
    return null;
  }

  /** A whole chain of one writable element: the hot path of hinting. Returns as `addSegment`. */
  addSingle(head: number, now: Nanoseconds, gpa: Gpa, lengthBytes: number): string | null {
    const at = this.#segmentCount;
    const isPlain = lengthBytes > 0 && gpa >= 0 && gpa + lengthBytes <= Number.MAX_SAFE_INTEGER;
    if (!isPlain || at === this.#inGpa.length) {
      const problem = this.addSegment(gpa, lengthBytes, DescFlag.WRITE);
      if (problem === null) this.close(head, now);
      return problem;
    }
    const chain = this.#chainCount;
    this.#inGpa[at] = gpa;
    this.#inBytes[at] = lengthBytes;
    this.#segmentCount = at + 1;
    this.#heads[chain] = head;
    this.#atNs[chain] = now;
    this.#outBytes[chain] = 0;
    this.#inCount[chain] = 1;
    this.#chainCount = chain + 1;
    return null;
  }

  /** The open chain is whole. */
  close(head: number, now: Nanoseconds): void {
    const chain = this.#chainCount++;
    this.#heads[chain] = head;
    this.#atNs[chain] = now;
    this.#outBytes[chain] = this.#openOutBytes;
    this.#inCount[chain] = this.#openSegments;
    this.#outTotalBytes += this.#openOutBytes;
    this.#segmentCount += this.#openSegments;
    this.#openOutBytes = 0;
    this.#openSegments = 0;
  }

  /** The open chain is none. */
  drop(): void {
    this.#openOutBytes = 0;
    this.#openSegments = 0;
  }

  /** The closed chains as one message, or null; the batch is empty afterwards. */
  drain(): Message<'avail'> | null {
    const chains = this.#chainCount;
    if (chains === 0) return null;
    const segments = this.#segmentCount;
    const out = this.#out.slice(0, this.#outTotalBytes);
    this.#chainCount = 0;
    this.#segmentCount = 0;
    this.#outTotalBytes = 0;
    return {
      name: 'avail',
      queue: this.#queueIndex,
      heads: copyBytes(this.#heads, chains),
      at_ns: copyBytes(this.#atNs, chains),
      out_bytes: copyBytes(this.#outBytes, chains),
      out,
      in_count: copyBytes(this.#inCount, chains),
      in_gpa: copyBytes(this.#inGpa, segments),
      in_bytes: copyBytes(this.#inBytes, segments),
    };
  }

  #addReadable(gpa: Gpa, lengthBytes: number): string | null {
    if (this.#openSegments > 0) return 'readable descriptor after a writable one';
    if (this.#openOutBytes + lengthBytes > MAX_BATCH_OUT_BYTES) return 'too many readable bytes';
    const start = this.#outTotalBytes + this.#openOutBytes;
    if (start + lengthBytes > MAX_BATCH_OUT_BYTES) return BATCH_FULL;
    this.#growOut(start + lengthBytes);
    // Neighbouring frames need not be neighbours in the machine's memory.
    for (let done = 0; done < lengthBytes; ) {
      const inPage = PAGE_SIZE_BYTES - ((gpa + done) % PAGE_SIZE_BYTES);
      const piece = this.#memory.map(gpa + done, Math.min(inPage, lengthBytes - done));
      if (piece === null) return 'readable buffer outside memory';
      this.#out.set(piece, start + done);
      done += piece.length;
    }
    this.#openOutBytes += lengthBytes;
    return null;
  }

  #growSegments(): void {
    const length = Math.min(this.#inGpa.length * 2, MAX_BATCH_SEGMENTS);
    const inGpa = new Float64Array(length);
    const inBytes = new Uint32Array(length);
    inGpa.set(this.#inGpa);
    inBytes.set(this.#inBytes);
    this.#inGpa = inGpa;
    this.#inBytes = inBytes;
  }

  #growOut(neededBytes: number): void {
    if (neededBytes <= this.#out.length) return;
    const out = new Uint8Array(
      Math.max(neededBytes, Math.min(2 * this.#out.length, MAX_BATCH_OUT_BYTES)),
    );
    out.set(this.#out);
    this.#out = out;
  }
}

type Column = Uint16Array | Uint32Array | Float64Array;

function copyBytes(column: Column, count: number): Uint8Array {
  const lengthBytes = count * column.BYTES_PER_ELEMENT;
  return new Uint8Array(column.buffer, column.byteOffset, lengthBytes).slice();
}
