/**
 * Device side of a virtqueue as it arrives over the channel: `avail` messages are checked field by
 * field before anything looks at a chain, `used` messages are built. Nothing in here throws for
 * what the guest sent: a bad message or chain is counted and passed over.
 */
import {
  MAX_BATCH_OUT_BYTES,
  MAX_BATCH_SEGMENTS,
  type Message,
  u16Bytes,
  u32Bytes,
} from '../../protocol/index.ts';
import { assert, type Gpa, type Nanoseconds } from '../../shared/index.ts';
import { bytesText, type State, type StateFields } from '../state/fields.ts';

/** What a driver configured a queue with. */
export interface QueueAddresses {
  readonly descGpa: Gpa;
  readonly availGpa: Gpa;
  readonly usedGpa: Gpa;
}

/** Columns of a message, aligned and used again for the next one: larger only when one needs it. */
class Columns {
  readonly capacity: number;
  readonly f64: Float64Array;
  readonly u32: Uint32Array;
  readonly u16: readonly [Uint16Array, Uint16Array];
  readonly #bytes: Uint8Array;

  constructor(capacity: number) {
    this.capacity = capacity;
    const buffer = new ArrayBuffer(16 * capacity);
    this.f64 = new Float64Array(buffer, 0, capacity);
    this.u32 = new Uint32Array(buffer, 8 * capacity, capacity);
    const u16At = (offset: number) => new Uint16Array(buffer, offset * capacity, capacity);
    this.u16 = [u16At(12), u16At(14)];
    this.#bytes = new Uint8Array(buffer);
  }

  copy(f64: Uint8Array, u32: Uint8Array, ...u16: readonly Uint8Array[]): void {
    this.#bytes.set(f64, 0);
    this.#bytes.set(u32, 8 * this.capacity);
    u16.forEach((bytes, i) => void this.#bytes.set(bytes, (12 + 2 * i) * this.capacity));
  }
}

const FIRST_CAPACITY = 16;
const QUEUE_SIZE_MAX = 32_768;

/** Position of the chain under the cursor, and its parts. */
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
  #index = -1;
  #count = 0;
  /** Of each chain: time, bytes of its readable part, head, number of its writable segments. */
  #chains = new Columns(FIRST_CAPACITY);
  /** Of each writable segment: address, length. */
  #segments = new Columns(FIRST_CAPACITY);

  get inGpa(): Float64Array {
    return this.#segments.f64;
  }

  get inBytes(): Uint32Array {
    return this.#segments.u32;
  }

  /** Takes a message whose fields agree; false, and an empty cursor, otherwise. */
  load(message: Message<'avail'>, queueSize: number): boolean {
    this.#index = -1;
    this.#count = 0;
    this.outStart = this.outBytes = this.inStart = this.inCount = 0;
    const { heads, at_ns, out_bytes, in_count, in_gpa, in_bytes, out } = message;
    const count = heads.length / 2;
    const segments = in_gpa.length / 8;
    if (!Number.isInteger(count) || count === 0 || count > queueSize) return false;
    if (at_ns.length !== 8 * count || out_bytes.length !== 4 * count) return false;
    if (in_count.length !== 2 * count || in_bytes.length !== 4 * segments) return false;
    if (!Number.isInteger(segments) || segments > MAX_BATCH_SEGMENTS) return false;
    if (out.length > MAX_BATCH_OUT_BYTES) return false;
    this.#reserve(count, segments);
    const chains = this.#chains;
    const inCounts = chains.u16[1];
    chains.copy(at_ns, out_bytes, heads, in_count);
    this.#segments.copy(in_gpa, in_bytes);
    if (sum(chains.u32, count) !== out.length || sum(inCounts, count) !== segments) return false;
    if (!timesAreOrdered(chains.f64, count)) return false;
    if (!segmentsAreAddressable(this.inGpa, this.inBytes, segments)) return false;
    this.#count = count;
    this.out = new DataView(out.buffer, out.byteOffset, out.byteLength);
    return true;
  }

  /** Moves to the next chain; false after the last one. */
  next(): boolean {
    if (this.#index + 1 >= this.#count) return false;
    this.#index++;
    this.outStart += this.outBytes;
    this.inStart += this.inCount;
    this.head = this.#chains.u16[0][this.#index]!;
    this.atNs = this.#chains.f64[this.#index]!;
    this.outBytes = this.#chains.u32[this.#index]!;
    this.inCount = this.#chains.u16[1][this.#index]!;
    return true;
  }

  #reserve(count: number, segments: number): void {
    if (count > this.#chains.capacity) this.#chains = new Columns(capacityFor(count));
    if (segments > this.#segments.capacity) this.#segments = new Columns(capacityFor(segments));
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

  saveState(): State {
    const { descGpa, availGpa, usedGpa } = this.addresses;
    return {
      size: this.size,
      desc_gpa: descGpa,
      avail_gpa: availGpa,
      used_gpa: usedGpa,
      outstanding: bytesText(this.#outstanding),
    };
  }

  /** @throws BallastError MESSAGE_INVALID. */
  static of(index: number, fields: StateFields): DeviceQueue {
    const size = fields.int('size', QUEUE_SIZE_MAX, 1);
    const queue = new DeviceQueue(index, size, {
      descGpa: fields.int('desc_gpa', Number.MAX_SAFE_INTEGER),
      availGpa: fields.int('avail_gpa', Number.MAX_SAFE_INTEGER),
      usedGpa: fields.int('used_gpa', Number.MAX_SAFE_INTEGER),
    });
    const outstanding = fields.bytes('outstanding', size);
    if (outstanding.length !== size || outstanding.some((held) => held > 1)) {
      throw fields.bad('outstanding', `${size} bytes, each 0 or 1`);
    }
    queue.#outstanding.set(outstanding);
    queue.outstandingCount = outstanding.reduce((sum, held) => sum + held, 0);
    return queue;
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

const EMPTY_VIEW = new DataView(new ArrayBuffer(0));

/** Twice as much at a time, so that a peer cannot make us grow step by step. */
function capacityFor(count: number): number {
  return 2 ** Math.ceil(Math.log2(count));
}

function sum(values: Uint16Array | Uint32Array, count: number): number {
  let total = 0;
  for (let i = 0; i < count; i++) total += values[i]!;
  return total;
}

/** Times are integers, and no chain was notified before the one ahead of it. */
function timesAreOrdered(atNs: Float64Array, count: number): boolean {
  let last = 0;
  for (let i = 0; i < count; i++) {
    const at = atNs[i]!;
    if (!Number.isSafeInteger(at) || at < last) return false;
    last = at;
  }
  return true;
}

function segmentsAreAddressable(gpas: Float64Array, lengths: Uint32Array, count: number): boolean {
  for (let i = 0; i < count; i++) {
    const gpa = gpas[i]!;
    if (lengths[i] === 0 || !Number.isSafeInteger(gpa) || gpa < 0) return false;
    if (!Number.isSafeInteger(gpa + lengths[i]!)) return false;
  }
  return true;
}
