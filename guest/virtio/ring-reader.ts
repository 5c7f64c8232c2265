/**
 * The device's hand on a ring in guest memory: reads newly available chains and writes used
 * entries, trusting nothing that it reads there (virtio 1.4 §2.7; checks as in vhost and QEMU's
 * virtqueue_pop). Buffers are sized once: a ring full of chains has at most `size` segments.
 */
import {
  AvailHeader,
  Desc,
  DescFlag,
  type Message,
  readLe64,
  UsedElem,
  UsedHeader,
} from '../../protocol/index.ts';
import type { Nanoseconds } from '../../shared/index.ts';
import type { Ram } from '../machine/ram.ts';
import type { SplitQueue } from './split-queue.ts';

/** Readable bytes that one batch of chains may carry; a balloon buffer has 1 KiB. */
const MAX_OUT_BYTES = 1 << 20;

export class RingReader {
  readonly #queue: SplitQueue;
  readonly #ram: Ram;
  readonly #outstanding: Uint8Array;
  readonly #heads: Uint16Array;
  readonly #atNs: Float64Array;
  readonly #outBytes: Uint32Array;
  readonly #inCount: Uint16Array;
  readonly #inGpa: Float64Array;
  readonly #inBytes: Uint32Array;
  #out: Uint8Array[] = [];
  #outTotalBytes = 0;
  #chainCount = 0;
  #segmentCount = 0;
  #lastAvailIndex = 0;
  #usedIndex = 0;
  /** Why the ring makes no sense, or null. */
  broken: string | null = null;

  constructor(queue: SplitQueue, ram: Ram) {
    this.#queue = queue;
    this.#ram = ram;
    this.#outstanding = new Uint8Array(queue.size);
    this.#heads = new Uint16Array(queue.size);
    this.#atNs = new Float64Array(queue.size);
    this.#outBytes = new Uint32Array(queue.size);
    this.#inCount = new Uint16Array(queue.size);
    this.#inGpa = new Float64Array(queue.size);
    this.#inBytes = new Uint32Array(queue.size);
  }

  /** Take every newly available chain; returns how many. Stops for good at the first bad one. */
  take(now: Nanoseconds): number {
    const { view, layout, size } = this.#queue;
    const availIndex = view.getUint16(layout.availOffset + AvailHeader.offsets.idx, true);
    const count = (availIndex - this.#lastAvailIndex) & 0xffff;
    if (count > size) return this.#break('avail.idx moved by more than the ring', 0);
    for (let i = 0; i < count; i++) {
      const slot = this.#lastAvailIndex & (size - 1);
      const head = view.getUint16(layout.availOffset + AvailHeader.sizeBytes + slot * 2, true);
      if (head >= size) return this.#break('head outside the ring', i);
      if (this.#outstanding[head] !== 0) return this.#break('head is already available', i);
      const segments = this.#segmentCount;
      const problem = this.#takeChain(head);
      if (problem !== null) {
        this.#segmentCount = segments;
        return this.#break(problem, i);
      }
      this.#outstanding[head] = 1;
      this.#heads[this.#chainCount] = head;
      this.#atNs[this.#chainCount] = now;
      this.#chainCount++;
      this.#lastAvailIndex = (this.#lastAvailIndex + 1) & 0xffff;
    }
    return count;
  }

  /** The chains taken since the last call as one message, or null. */
  drain(): Message<'avail'> | null {
    const chains = this.#chainCount;
    const segments = this.#segmentCount;
    if (chains === 0) return null;
    const out = new Uint8Array(this.#outTotalBytes);
    let at = 0;
    for (const piece of this.#out) {
      // The last pieces may belong to the chain that broke the queue: they are past the total.
      if (at + piece.length > out.length) break;
      out.set(piece, at);
      at += piece.length;
    }
    this.#out = [];
    this.#outTotalBytes = 0;
    this.#chainCount = 0;
    this.#segmentCount = 0;
    return {
      name: 'avail',
      queue: this.#queue.index,
      heads: copyBytes(this.#heads, chains),
      at_ns: copyBytes(this.#atNs, chains),
      out_bytes: copyBytes(this.#outBytes, chains),
      out,
      in_count: copyBytes(this.#inCount, chains),
      in_gpa: copyBytes(this.#inGpa, segments),
      in_bytes: copyBytes(this.#inBytes, segments),
    };
  }

  /** Write used entries (u16 heads, u32 lengths); returns how many named no outstanding chain. */
  complete(heads: Uint8Array, writtenBytes: Uint8Array): number {
    const { view, layout, size } = this.#queue;
    const headView = new DataView(heads.buffer, heads.byteOffset, heads.byteLength);
    const writtenView = new DataView(
      writtenBytes.buffer,
      writtenBytes.byteOffset,
      writtenBytes.byteLength,
    );
    const count = heads.length / 2;
    let bad = 0;
    for (let i = 0; i < count; i++) {
      const head = headView.getUint16(i * 2, true);
      if (head >= size || this.#outstanding[head] === 0) {
        bad++;
        continue;
      }
      this.#outstanding[head] = 0;
      const slot = this.#usedIndex & (size - 1);
      const at = layout.usedOffset + UsedHeader.sizeBytes + slot * UsedElem.sizeBytes;
      view.setUint32(at + UsedElem.offsets.id, head, true);
      view.setUint32(at + UsedElem.offsets.len, writtenView.getUint32(i * 4, true), true);
      this.#queue.markTouched(at);
      this.#usedIndex = (this.#usedIndex + 1) & 0xffff;
    }
    if (bad === count) return bad;
    view.setUint16(layout.usedOffset + UsedHeader.offsets.idx, this.#usedIndex, true);
    this.#queue.markTouched(layout.usedOffset);
    this.#queue.flushTouched();
    return bad;
  }

  /** Append one chain's segments to the batch. Returns what is wrong with it, or null. */
  #takeChain(head: number): string | null {
    const { view, layout, size } = this.#queue;
    let id = head;
    let outBytes = 0;
    let inCount = 0;
    for (let steps = 0; ; steps++) {
      if (steps === size) return 'descriptor loop';
      const at = layout.descOffset + id * Desc.sizeBytes;
      const flags = view.getUint16(at + Desc.offsets.flags, true);
      const lengthBytes = view.getUint32(at + Desc.offsets.len, true);
      const gpa = readLe64(view, at + Desc.offsets.addr);
      if (flags & DescFlag.INDIRECT) return 'indirect descriptor without the feature';
      if (lengthBytes === 0) return 'zero-length descriptor';
      if (gpa < 0) return 'address beyond 2^53';
      if (flags & DescFlag.WRITE) {
        if (this.#segmentCount === size) return 'descriptors shared by two chains';
        this.#inGpa[this.#segmentCount] = gpa;
        this.#inBytes[this.#segmentCount] = lengthBytes;
        this.#segmentCount++;
        inCount++;
      } else {
        if (inCount > 0) return 'readable descriptor after a writable one';
        if (this.#outTotalBytes + outBytes + lengthBytes > MAX_OUT_BYTES) {
          return 'too many readable bytes';
        }
        const bytes = this.#ram.readBytes(gpa, lengthBytes);
        if (bytes === null) return 'readable buffer outside byte-backed memory';
        this.#out.push(bytes);
        outBytes += lengthBytes;
      }
      if (!(flags & DescFlag.NEXT)) break;
      id = view.getUint16(at + Desc.offsets.next, true);
      if (id >= size) return 'next outside the ring';
    }
    this.#outTotalBytes += outBytes;
    this.#outBytes[this.#chainCount] = outBytes;
    this.#inCount[this.#chainCount] = inCount;
    return null;
  }

  #break(reason: string, taken: number): number {
    this.broken = reason;
    return taken;
  }
}

type Column = Uint16Array | Uint32Array | Float64Array;

function copyBytes(column: Column, count: number): Uint8Array {
  const lengthBytes = count * column.BYTES_PER_ELEMENT;
  return new Uint8Array(column.buffer, column.byteOffset, lengthBytes).slice();
}
