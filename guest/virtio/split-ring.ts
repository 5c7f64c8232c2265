/**
 * The device's hand on a split ring in guest memory: takes newly available chains and writes used
 * entries (virtio 1.4 §2.7). Nothing that it reads there is trusted: what QEMU's virtqueue_pop
 * answers with virtio_error breaks the ring here.
 */
import {
  AvailFlag,
  AvailHeader,
  availRingBytes,
  Desc,
  DescFlag,
  descTableBytes,
  type Message,
  needsEvent,
  readLe64,
  UsedElem,
  UsedHeader,
  usedRingBytes,
} from '../../protocol/index.ts';
import type { Nanoseconds } from '../../shared/index.ts';
import { AvailBatch, BATCH_FULL } from './avail-batch.ts';
import { OutstandingOrder } from './outstanding-order.ts';
import type { DeviceRing, GuestBytes, QueueAreas } from './queue.ts';
import { RingArea } from './ring-area.ts';
import type { RingOptions } from './ring-features.ts';
import { isRingState, type RingState } from './ring-state.ts';

// Names of their own: in the hot path each look into a table counts.
const DESC_BYTES = Desc.sizeBytes;
const { len: DESC_LEN, flags: DESC_FLAGS, next: DESC_NEXT } = Desc.offsets;
const { id: USED_ID, len: USED_LEN } = UsedElem.offsets;
const ELEM_BYTES = UsedElem.sizeBytes;
const AVAIL_RING = AvailHeader.sizeBytes;
const USED_RING = UsedHeader.sizeBytes;
const U16_MASK = 0xffff;

export interface RingSetup {
  readonly index: number;
  readonly size: number;
  readonly areas: QueueAreas;
  readonly options: RingOptions;
}

export class SplitRing implements DeviceRing {
  broken: string | null = null;
  readonly #size: number;
  readonly #options: RingOptions;
  readonly #memory: GuestBytes;
  readonly #desc: RingArea;
  readonly #avail: RingArea;
  readonly #used: RingArea;
  readonly #usedEventOffset: number;
  readonly #availEventOffset: number;
  readonly #batch: AvailBatch;
  /** Descriptors of the ring that the outstanding chain from here has; 0: there is none. */
  readonly #chainLength: Uint16Array;
  #outstandingDescs = 0;
  readonly #order: OutstandingOrder | null;
  #lastAvailIndex = 0;
  #usedIndex = 0;
  /** `usedIndex` when it was last asked whether to interrupt. */
  #signalledIndex = 0;
  /** Whether the driver was told of what was used before a migration is not known. */
  #mustSignal = false;
  /** Time of the chains that wait for the next batch, or −1. */
  #heldSince: Nanoseconds = -1;

  constructor({ index, size, areas, options }: RingSetup, memory: GuestBytes) {
    this.#size = size;
    this.#options = options;
    this.#memory = memory;
    this.#desc = new RingArea(memory, areas.descGpa, descTableBytes(size));
    this.#avail = new RingArea(memory, areas.driverGpa, availRingBytes(size));
    this.#used = new RingArea(memory, areas.deviceGpa, usedRingBytes(size));
    this.#usedEventOffset = availRingBytes(size) - 2;
    this.#availEventOffset = usedRingBytes(size) - 2;
    this.#batch = new AvailBatch(index, size, memory);
    this.#chainLength = new Uint16Array(size);
    this.#order = options.inOrder ? new OutstandingOrder(size) : null;
  }

  take(now: Nanoseconds): number {
    this.#heldSince = -1;
    if (this.broken !== null) return 0;
    if (!this.#map()) return this.#break('the ring is not in memory', 0);
    const availIndex = this.#avail.view.getUint16(AvailHeader.offsets.idx, true);
    const count = (availIndex - this.#lastAvailIndex) & U16_MASK;
    if (count > this.#size) return this.#break('avail.idx moved by more than the ring', 0);
    const { view } = this.#avail;
    let taken = 0;
    for (; taken < count; taken++) {
      const slot = this.#lastAvailIndex & (this.#size - 1);
      const head = view.getUint16(AVAIL_RING + slot * 2, true);
      if (head >= this.#size) return this.#break('head outside the ring', taken);
      if (this.#chainLength[head] !== 0) return this.#break('head is already available', taken);
      const problem = this.#takeChain(head, now);
      if (problem === BATCH_FULL) {
        this.#batch.drop();
        this.#heldSince = now;
        break;
      }
      if (problem !== null) return this.#break(problem, taken);
      this.#order?.add(head);
      this.#lastAvailIndex = (this.#lastAvailIndex + 1) & U16_MASK;
    }
    if (this.#options.eventIdx && count > 0) this.#askForKick();
    return taken;
  }

  drain(): Message<'avail'> | null {
    const message = this.#batch.drain();
    if (this.#heldSince >= 0) this.take(this.#heldSince);
    return message;
  }

  complete(heads: Uint8Array, writtenBytes: Uint8Array): number {
    const count = heads.length >>> 1;
    if (this.broken !== null) return count;
    if (!this.#map()) {
      this.#break('the ring is not in memory', 0);
      return count;
    }
    const written = new DataView(
      writtenBytes.buffer,
      writtenBytes.byteOffset,
      writtenBytes.byteLength,
    );
    const { view } = this.#used;
    const first = this.#usedIndex;
    let bad = 0;
    for (let i = 0; i < count; i++) {
      const head = heads[i * 2]! | (heads[i * 2 + 1]! << 8);
      if (!this.#isNextUsed(head)) {
        bad++;
        continue;
      }
      this.#unhold(head);
      const slot = this.#usedIndex & (this.#size - 1);
      const at = USED_RING + slot * ELEM_BYTES;
      view.setUint32(at + USED_ID, head, true);
      view.setUint32(at + USED_LEN, written.getUint32(i * 4, true), true);
      this.#usedIndex = (this.#usedIndex + 1) & U16_MASK;
    }
    if (bad === count) return bad;
    view.setUint16(UsedHeader.offsets.idx, this.#usedIndex, true);
    this.#touchedUsed(first & (this.#size - 1), count - bad);
    return bad;
  }

  interruptNeeded(): boolean {
    const before = this.#signalledIndex;
    this.#signalledIndex = this.#usedIndex;
    if (this.broken !== null || !this.#avail.map()) return false;
    const { view } = this.#avail;
    if (this.#options.eventIdx) {
      const must = this.#mustSignal;
      this.#mustSignal = false;
      const usedEvent = view.getUint16(this.#usedEventOffset, true);
      return must || needsEvent(usedEvent, this.#usedIndex, before);
    }
    return (view.getUint16(AvailHeader.offsets.flags, true) & AvailFlag.NO_INTERRUPT) === 0;
  }

  saveState(): RingState {
    const heads = this.#order?.list() ?? Array.from(this.#chainLength.keys());
    return {
      availIndex: this.#lastAvailIndex,
      usedIndex: this.#usedIndex,
      held: heads
        .filter((head) => this.#chainLength[head] !== 0)
        .map((head) => ({ head, id: head, descs: this.#chainLength[head]! })),
    };
  }

  restoreState(state: RingState): boolean {
    if (!isRingState(state)) return false;
    const { availIndex, usedIndex, held } = state;
    if (((availIndex - usedIndex) & U16_MASK) !== held.length) return false;
    for (const { head, id, descs } of held) {
      if (id !== head || !this.#hold(head, descs)) return false;
      this.#order?.add(head);
    }
    this.#lastAvailIndex = availIndex;
    this.#usedIndex = usedIndex;
    this.#signalledIndex = usedIndex;
    this.#mustSignal = true;
    return true;
  }

  /** False for a head that is none or held already, and for more descriptors than there are. */
  #hold(head: number, descs: number): boolean {
    if (this.#chainLength[head] !== 0 || descs < 1) return false;
    if (this.#outstandingDescs + descs > this.#size) return false;
    this.#outstandingDescs += descs;
    this.#chainLength[head] = descs;
    return true;
  }

  #unhold(head: number): void {
    this.#outstandingDescs -= this.#chainLength[head]!;
    this.#chainLength[head] = 0;
  }

  #map(): boolean {
    return this.#desc.map() && this.#avail.map() && this.#used.map();
  }

  /** The device wants to hear of the next chain. */
  #askForKick(): void {
    this.#used.view.setUint16(this.#availEventOffset, this.#lastAvailIndex, true);
    this.#used.touched(this.#availEventOffset, 2);
  }

  /** Outstanding, and with IN_ORDER the oldest of all that are. */
  #isNextUsed(head: number): boolean {
    if (head >= this.#size || this.#chainLength[head] === 0) return false;
    return this.#order === null || this.#order.takeIfOldest(head);
  }

  /** Add one chain to the batch. Returns what is wrong with it, BATCH_FULL, or null. */
  #takeChain(head: number, now: Nanoseconds): string | null {
    const { view } = this.#desc;
    const at = head * DESC_BYTES;
    if (view.getUint16(at + DESC_FLAGS, true) === DescFlag.WRITE) {
      if (!this.#hold(head, 1)) return 'descriptors shared by two chains';
      const lengthBytes = view.getUint32(at + DESC_LEN, true);
      const problem = this.#batch.addSingle(head, now, readLe64(view, at), lengthBytes);
      if (problem !== null) this.#unhold(head);
      return problem;
    }
    const problem = this.#takeElements(head);
    if (problem === null) this.#batch.close(head, now);
    return problem;
  }

  #takeElements(head: number): string | null {
    let { view } = this.#desc;
    let limit = this.#size;
    let ringDescs = 0;
    let isTable = false;
    for (let id = head, elements = 0; ; ) {
      const at = id * DESC_BYTES;
      const flags = view.getUint16(at + DESC_FLAGS, true);
      const lengthBytes = view.getUint32(at + DESC_LEN, true);
      const gpa = readLe64(view, at);
      if (!isTable) ringDescs++;
      if ((flags & DescFlag.INDIRECT) !== 0) {
        const problem = this.#tableProblem(flags, lengthBytes, isTable);
        if (problem !== null) return problem;
        const bytes = gpa < 0 ? null : this.#memory.map(gpa, lengthBytes);
        if (bytes === null) return 'indirect table outside memory';
        view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
        limit = lengthBytes / DESC_BYTES;
        isTable = true;
        id = 0;
        continue;
      }
      if (elements++ === this.#size) return 'chain longer than the ring, or a descriptor loop';
      const problem = this.#batch.addSegment(gpa, lengthBytes, flags);
      if (problem !== null) return problem;
      if ((flags & DescFlag.NEXT) === 0) break;
      id = view.getUint16(at + DESC_NEXT, true);
      if (id >= limit) return isTable ? 'next outside the table' : 'next outside the ring';
    }
    return this.#hold(head, ringDescs) ? null : 'descriptors shared by two chains';
  }

  #tableProblem(flags: number, lengthBytes: number, isTable: boolean): string | null {
    if (!this.#options.indirect) return 'indirect descriptor without the feature';
    if (isTable) return 'indirect descriptor in an indirect table';
    if ((flags & DescFlag.NEXT) !== 0) return 'indirect descriptor with NEXT';
    if (lengthBytes === 0 || lengthBytes % DESC_BYTES !== 0) {
      return 'wrong length of an indirect table';
    }
    return null;
  }

  /** `count` entries from `slot` on, and the index. */
  #touchedUsed(slot: number, count: number): void {
    const toEnd = Math.min(count, this.#size - slot);
    const entriesAt = USED_RING + slot * ELEM_BYTES;
    this.#used.touched(entriesAt, toEnd * ELEM_BYTES);
    if (toEnd < count) this.#used.touched(0, USED_RING + (count - toEnd) * ELEM_BYTES);
    else this.#used.touched(0, USED_RING);
  }

  #break(reason: string, taken: number): number {
    this.broken = reason;
    this.#batch.drop();
    return taken;
  }
}
