/**
 * Device side of a virtqueue as it arrives over the channel: `avail` messages are checked field by
 * field before anything looks at a chain, `used` messages are built. Nothing in here throws for
 * what the guest sent: a bad message or chain is counted and passed over.
 */
import {
  MAX_BATCH_OUT_BYTES,
  MAX_BATCH_SEGMENTS,
  type Message,
  toFloat64,
  toUint16,
  toUint32,
  u16Bytes,
  u32Bytes,
} from '../../protocol/index.ts';
import { assert, type Gpa, type Nanoseconds } from '../../shared/index.ts';

/** What a driver configured a queue with. */
export interface QueueAddresses {
  readonly descGpa: Gpa;
  readonly availGpa: Gpa;
  readonly usedGpa: Gpa;
}

/** Position of the chain under the cursor, and views of its parts. */
export class AvailCursor {
  head = 0;
  atNs: Nanoseconds = 0;
  /** Start and length of the chain's readable bytes in `out`. */
  outStart = 0;
  outBytes = 0;
  /** Start and count of its writable segments in `inGpa` and `inBytes`. */
  inStart = 0;
  inCount = 0;
  out: DataView = EMPTY_VIEW;
  inGpa: Float64Array = EMPTY_F64;
  inBytes: Uint32Array = EMPTY_U32;
  #index = -1;
  #heads: Uint16Array = EMPTY_U16;
  #atNs: Float64Array = EMPTY_F64;
  #outBytes: Uint32Array = EMPTY_U32;
  #inCount: Uint16Array = EMPTY_U16;

  /** Takes a message whose fields agree; false, and an empty cursor, otherwise. */
  load(message: Message<'avail'>, queueSize: number): boolean {
    this.#index = -1;
    this.#heads = EMPTY_U16;
    this.outStart = this.outBytes = this.inStart = this.inCount = 0;
    const heads = toUint16(message.heads);
    const atNs = toFloat64(message.at_ns);
    const outBytes = toUint32(message.out_bytes);
    const inCount = toUint16(message.in_count);
    const inGpa = toFloat64(message.in_gpa);
    const inBytes = toUint32(message.in_bytes);
    if (!heads || !atNs || !outBytes || !inCount || !inGpa || !inBytes) return false;
    const count = heads.length;
    if (count === 0 || count > queueSize) return false;
    if (atNs.length !== count || outBytes.length !== count || inCount.length !== count) {
      return false;
    }
    if (inGpa.length !== inBytes.length || inGpa.length > MAX_BATCH_SEGMENTS) return false;
    if (message.out.length > MAX_BATCH_OUT_BYTES || sum(outBytes) !== message.out.length)
      return false;
    if (sum(inCount) !== inGpa.length) return false;
    if (!timesAreOrdered(atNs) || !segmentsAreAddressable(inGpa, inBytes)) return false;
    this.#heads = heads;
    this.#atNs = atNs;
    this.#outBytes = outBytes;
    this.#inCount = inCount;
    this.inGpa = inGpa;
    this.inBytes = inBytes;
    const { out } = message;
    this.out = new DataView(out.buffer, out.byteOffset, out.byteLength);
    return true;
  }

  /** Moves to the next chain; false after the last one. */
  next(): boolean {
    if (this.#index + 1 >= this.#heads.length) return false;
    this.#index++;
    this.outStart += this.outBytes;
    this.inStart += this.inCount;
    this.head = this.#heads[this.#index]!;
    this.atNs = this.#atNs[this.#index]!;
    this.outBytes = this.#outBytes[this.#index]!;
    this.inCount = this.#inCount[this.#index]!;
    return true;
  }
}

/** One enabled queue: which chains the device holds, and the batch of used ones. */
export class DeviceQueue {
  readonly index: number;
  readonly size: number;
  readonly addresses: QueueAddresses;
  readonly #outstanding: Uint8Array;
  readonly #usedHeads: Uint16Array;
  readonly #usedBytes: Uint32Array;
  #usedCount = 0;
  outstandingCount = 0;

  constructor(index: number, size: number, addresses: QueueAddresses) {
    this.index = index;
    this.size = size;
    this.addresses = addresses;
    this.#outstanding = new Uint8Array(size);
    this.#usedHeads = new Uint16Array(size);
    this.#usedBytes = new Uint32Array(size);
  }

  /** The device takes a chain; false for a head outside the ring or one that it holds already. */
  pop(head: number): boolean {
    if (head >= this.size || this.#outstanding[head] !== 0) return false;
    this.#outstanding[head] = 1;
    this.outstandingCount++;
    return true;
  }

  /** The device is done with a chain; it goes out with `takeUsed`. */
  push(head: number, writtenBytes: number): void {
    assert(this.#outstanding[head] === 1, 'a chain is pushed once, by who popped it');
    assert(this.#usedCount < this.size, 'no more chains are used than the ring holds');
    this.#outstanding[head] = 0;
    this.outstandingCount--;
    this.#usedHeads[this.#usedCount] = head;
    this.#usedBytes[this.#usedCount] = writtenBytes;
    this.#usedCount++;
  }

  /** The chains pushed since the last call as one message, or null. */
  takeUsed(): Message<'used'> | null {
    const count = this.#usedCount;
    if (count === 0) return null;
    this.#usedCount = 0;
    return {
      name: 'used',
      queue: this.index,
      heads: u16Bytes(this.#usedHeads.slice(0, count)),
      written_bytes: u32Bytes(this.#usedBytes.slice(0, count)),
    };
  }
}

const EMPTY_U16 = new Uint16Array(0);
const EMPTY_U32 = new Uint32Array(0);
const EMPTY_F64 = new Float64Array(0);
const EMPTY_VIEW = new DataView(new ArrayBuffer(0));

function sum(values: Uint16Array | Uint32Array): number {
  let total = 0;
  for (let i = 0; i < values.length; i++) total += values[i]!;
  return total;
}

/** Times are integers, and no chain was notified before the one ahead of it. */
function timesAreOrdered(atNs: Float64Array): boolean {
  let last = 0;
  for (let i = 0; i < atNs.length; i++) {
    const at = atNs[i]!;
    if (!Number.isSafeInteger(at) || at < last) return false;
    last = at;
  }
  return true;
}

function segmentsAreAddressable(gpas: Float64Array, lengths: Uint32Array): boolean {
  for (let i = 0; i < gpas.length; i++) {
    const gpa = gpas[i]!;
    if (lengths[i] === 0 || !Number.isSafeInteger(gpa) || gpa < 0) return false;
    if (!Number.isSafeInteger(gpa + lengths[i]!)) return false;
  }
  return true;
}
