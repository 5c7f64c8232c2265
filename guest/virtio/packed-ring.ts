/**
 * The device's hand on a packed ring in guest memory (virtio 1.4 §2.8). Buffer ids mean nothing to
 * a device, and a driver may choose any: each chain goes by a handle below the ring's size.
 */
import {
  DESC_EVENT_WRAP,
  DescFlag,
  EventSuppress,
  type Message,
  PackedDesc,
  PackedDescFlag,
  passesEvent,
  RING_EVENT_FLAGS_MASK,
  RingEventFlags,
  readLe64,
} from '../../protocol/index.ts';
import type { Nanoseconds } from '../../shared/index.ts';
import { AvailBatch, BATCH_FULL } from './avail-batch.ts';
import { OutstandingOrder } from './outstanding-order.ts';
import type { DeviceRing, GuestBytes } from './queue.ts';
import { RingArea } from './ring-area.ts';
import type { RingOptions } from './ring-features.ts';
import { isRingState, type RingState } from './ring-state.ts';
import type { RingSetup } from './split-ring.ts';

const { AVAIL, USED } = PackedDescFlag;
// Names of their own: in the hot path each look into a table counts.
const DESC_BYTES = PackedDesc.sizeBytes;
const { len: DESC_LEN, id: DESC_ID, flags: DESC_FLAGS } = PackedDesc.offsets;
/** The wrap counter beside a position, in saved state. */
const WRAP = 1 << 15;

export class PackedRing implements DeviceRing {
  broken: string | null = null;
  readonly #size: number;
  readonly #options: RingOptions;
  readonly #memory: GuestBytes;
  readonly #desc: RingArea;
  readonly #driver: RingArea;
  readonly #device: RingArea;
  readonly #batch: AvailBatch;
  readonly #freeHandles: Uint16Array;
  #freeHandleCount: number;
  /** Of each handle: the buffer id, and the descriptors that it has in the ring; 0: it is free. */
  readonly #idOf: Uint16Array;
  readonly #chainLength: Uint16Array;
  #outstandingDescs = 0;
  readonly #order: OutstandingOrder | null;
  /** Where the next descriptor becomes available, and its AVAIL and USED as the wrap counter says. */
  #nextAvail = 0;
  #availFlags: number = AVAIL;
  /** Where the next used descriptor goes, and its AVAIL and USED as the wrap counter says. */
  #nextUsed = 0;
  #usedFlags: number = AVAIL | USED;
  #usedSinceSignal = 0;
  /** Whether the driver was told of what was used before a migration is not known. */
  #mustSignal = false;
  /** Time of the chains that wait for the next batch, or −1. */
  #heldSince: Nanoseconds = -1;
  /** What the chain that is being taken has in the ring, and its buffer id. */
  #openDescs = 0;
  #openId = 0;

  constructor({ index, size, areas, options }: RingSetup, memory: GuestBytes) {
    this.#size = size;
    this.#options = options;
    this.#memory = memory;
    this.#desc = new RingArea(memory, areas.descGpa, DESC_BYTES * size);
    this.#driver = new RingArea(memory, areas.driverGpa, EventSuppress.sizeBytes);
    this.#device = new RingArea(memory, areas.deviceGpa, EventSuppress.sizeBytes);
    this.#batch = new AvailBatch(index, size, memory);
    this.#freeHandles = Uint16Array.from({ length: size }, (_, i) => size - 1 - i);
    this.#freeHandleCount = size;
    this.#idOf = new Uint16Array(size);
    this.#chainLength = new Uint16Array(size);
    this.#order = options.inOrder ? new OutstandingOrder(size) : null;
    this.#askForKicks();
  }

  take(now: Nanoseconds): number {
    this.#heldSince = -1;
    if (this.broken !== null) return 0;
    if (!this.#desc.map()) return this.#break('the ring is not in memory', 0);
    for (let taken = 0; ; taken++) {
      if (!this.#isAvailable(this.#nextAvail, this.#availFlags)) return taken;
      const problem = this.#takeChain();
      if (problem === BATCH_FULL) {
        this.#batch.drop();
        this.#heldSince = now;
        return taken;
      }
      if (problem !== null) return this.#break(problem, taken);
      this.#batch.close(this.#newHandle(), now);
      this.#nextAvail += this.#openDescs;
      if (this.#nextAvail >= this.#size) {
        this.#nextAvail -= this.#size;
        this.#availFlags ^= AVAIL | USED;
      }
    }
  }

  drain(): Message<'avail'> | null {
    const message = this.#batch.drain();
    if (this.#heldSince >= 0) this.take(this.#heldSince);
    return message;
  }

  complete(heads: Uint8Array, writtenBytes: Uint8Array): number {
    const count = heads.length >>> 1;
    if (this.broken !== null) return count;
    if (!this.#desc.map()) {
      this.#break('the ring is not in memory', 0);
      return count;
    }
    const written = new DataView(
      writtenBytes.buffer,
      writtenBytes.byteOffset,
      writtenBytes.byteLength,
    );
    const first = this.#nextUsed;
    let bad = 0;
    for (let i = 0; i < count; i++) {
      const handle = heads[i * 2]! | (heads[i * 2 + 1]! << 8);
      if (this.#isNextUsed(handle)) this.#writeUsed(handle, written.getUint32(i * 4, true));
      else bad++;
    }
    if (bad < count) this.#touchedUsed(first);
    return bad;
  }

  interruptNeeded(): boolean {
    const passed = this.#usedSinceSignal;
    this.#usedSinceSignal = 0;
    if (this.broken !== null || !this.#driver.map()) return false;
    const { view } = this.#driver;
    const mode = view.getUint16(EventSuppress.offsets.flags, true) & RING_EVENT_FLAGS_MASK;
    if (mode !== RingEventFlags.DESC || !this.#options.eventIdx) {
      return mode !== RingEventFlags.DISABLE;
    }
    const must = this.#mustSignal;
    this.#mustSignal = false;
    const desc = view.getUint16(EventSuppress.offsets.desc, true);
    return must || passesEvent(desc, this.#nextUsed, this.#usedFlags !== 0, passed, this.#size);
  }

  saveState(): RingState {
    const handles = this.#order?.list() ?? Array.from(this.#chainLength.keys());
    return {
      availIndex: this.#nextAvail | (this.#availFlags === AVAIL ? WRAP : 0),
      usedIndex: this.#nextUsed | (this.#usedFlags === 0 ? 0 : WRAP),
      held: handles
        .filter((handle) => this.#chainLength[handle] !== 0)
        .map((head) => ({ head, id: this.#idOf[head]!, descs: this.#chainLength[head]! })),
    };
  }

  restoreState(state: RingState): boolean {
    if (!isRingState(state)) return false;
    const { availIndex, usedIndex, held } = state;
    if (!this.#isPosition(availIndex) || !this.#isPosition(usedIndex)) return false;
    const laps = 2 * this.#size;
    const between = (this.#placeOf(availIndex) - this.#placeOf(usedIndex) + laps) % laps;
    if (between !== held.reduce((sum, { descs }) => sum + descs, 0)) return false;
    for (const { head, id, descs } of held) {
      const at = this.#freeHandles.lastIndexOf(head, this.#freeHandleCount - 1);
      if (at < 0 || descs < 1 || this.#outstandingDescs + descs > this.#size) return false;
      this.#freeHandles[at] = this.#freeHandles[this.#freeHandleCount - 1]!;
      this.#freeHandles[this.#freeHandleCount - 1] = head;
      this.#openDescs = descs;
      this.#openId = id;
      this.#newHandle();
    }
    this.#nextAvail = availIndex & ~WRAP;
    this.#availFlags = (availIndex & WRAP) !== 0 ? AVAIL : USED;
    this.#nextUsed = usedIndex & ~WRAP;
    this.#usedFlags = (usedIndex & WRAP) !== 0 ? AVAIL | USED : 0;
    this.#mustSignal = true;
    return true;
  }

  #isPosition(index: number): boolean {
    return (index & ~WRAP) < this.#size;
  }

  /** Of a saved position: its place in the two laps that the wrap counters tell apart. */
  #placeOf(index: number): number {
    return (index & ~WRAP) + ((index & WRAP) !== 0 ? 0 : this.#size);
  }

  /** The device wants to hear of every chain. Its structure need not be zero: the driver only reads it. */
  #askForKicks(): void {
    if (!this.#device.map()) return;
    EventSuppress.write(this.#device.view, 0, {
      desc: DESC_EVENT_WRAP,
      flags: RingEventFlags.ENABLE,
    });
    this.#device.touched(0, EventSuppress.sizeBytes);
  }

  #isAvailable(position: number, availFlags: number): boolean {
    const at = position * DESC_BYTES + DESC_FLAGS;
    return (this.#desc.view.getUint16(at, true) & (AVAIL | USED)) === availFlags;
  }

  /** Outstanding, and with IN_ORDER the oldest of all that are. */
  #isNextUsed(handle: number): boolean {
    if (handle >= this.#size || this.#chainLength[handle] === 0) return false;
    return this.#order === null || this.#order.takeIfOldest(handle);
  }

  #newHandle(): number {
    const handle = this.#freeHandles[--this.#freeHandleCount]!;
    this.#idOf[handle] = this.#openId;
    this.#chainLength[handle] = this.#openDescs;
    this.#outstandingDescs += this.#openDescs;
    this.#order?.add(handle);
    return handle;
  }

  /** Add one chain's elements to the batch. Returns what is wrong with it, BATCH_FULL, or null. */
  #takeChain(): string | null {
    const { view } = this.#desc;
    let position = this.#nextAvail;
    let availFlags = this.#availFlags;
    for (let descs = 1; ; descs++) {
      // Available a second time, although the device holds what was there.
      if (this.#outstandingDescs + descs > this.#size)
        return 'more is available than the ring holds';
      const at = position * DESC_BYTES;
      const flags = view.getUint16(at + DESC_FLAGS, true);
      if ((flags & (AVAIL | USED)) !== availFlags)
        return 'the list goes on into what is not available';
      const lengthBytes = view.getUint32(at + DESC_LEN, true);
      const gpa = readLe64(view, at);
      const isTable = (flags & DescFlag.INDIRECT) !== 0;
      const problem = isTable
        ? this.#takeTable(gpa, lengthBytes, descs > 1 || (flags & DescFlag.NEXT) !== 0)
        : this.#batch.addSegment(gpa, lengthBytes, flags);
      if (problem !== null) return problem;
      if ((flags & DescFlag.NEXT) === 0) {
        this.#openId = view.getUint16(at + DESC_ID, true);
        this.#openDescs = descs;
        return null;
      }
      if (++position === this.#size) {
        position = 0;
        availFlags ^= AVAIL | USED;
      }
    }
  }

  /** Of the flags in a table only WRITE counts; the whole table is one list. */
  #takeTable(gpa: number, lengthBytes: number, isChained: boolean): string | null {
    if (!this.#options.indirect) return 'indirect descriptor without the feature';
    if (isChained) return 'indirect descriptor in a list';
    if (lengthBytes === 0 || lengthBytes % DESC_BYTES !== 0) {
      return 'wrong length of an indirect table';
    }
    if (lengthBytes / DESC_BYTES > this.#size) return 'chain longer than the ring';
    const bytes = gpa < 0 ? null : this.#memory.map(gpa, lengthBytes);
    if (bytes === null) return 'indirect table outside memory';
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    for (let at = 0; at < lengthBytes; at += DESC_BYTES) {
      const problem = this.#batch.addSegment(
        readLe64(view, at),
        view.getUint32(at + DESC_LEN, true),
        view.getUint16(at + DESC_FLAGS, true),
      );
      if (problem !== null) return problem;
    }
    return null;
  }

  #writeUsed(handle: number, writtenBytes: number): void {
    const { view } = this.#desc;
    const at = this.#nextUsed * DESC_BYTES;
    const descs = this.#chainLength[handle]!;
    view.setUint32(at + DESC_LEN, writtenBytes, true);
    view.setUint16(at + DESC_ID, this.#idOf[handle]!, true);
    // Flags last: they give the descriptor back.
    const flags = (writtenBytes > 0 ? DescFlag.WRITE : 0) | this.#usedFlags;
    view.setUint16(at + DESC_FLAGS, flags, true);
    this.#chainLength[handle] = 0;
    this.#freeHandles[this.#freeHandleCount++] = handle;
    this.#outstandingDescs -= descs;
    this.#usedSinceSignal += descs;
    this.#nextUsed += descs;
    if (this.#nextUsed < this.#size) return;
    this.#nextUsed -= this.#size;
    this.#usedFlags ^= AVAIL | USED;
  }

  /** From `first` to where the next used descriptor goes. */
  #touchedUsed(first: number): void {
    const end = this.#nextUsed > first ? this.#nextUsed : this.#size;
    this.#touchedDescs(first, end);
    if (this.#nextUsed <= first && this.#nextUsed > 0) this.#touchedDescs(0, this.#nextUsed);
  }

  #touchedDescs(start: number, end: number): void {
    this.#desc.touched(start * DESC_BYTES, (end - start) * DESC_BYTES);
  }

  #break(reason: string, taken: number): number {
    this.broken = reason;
    this.#batch.drop();
    return taken;
  }
}
