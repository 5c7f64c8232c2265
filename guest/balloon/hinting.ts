/**
 * Free page hinting, driver side (virtio 1.4 §5.5.6.5; linux drivers/virtio/virtio_balloon.c): the
 * command-id protocol around a strategy that decides which pages to hint. The strategy sees one
 * round; everything about ids, ring entries and kicks is here.
 */
import { HintCommand, type StrategyName } from '../../protocol/index.ts';
import {
  assert,
  type Bitmap,
  type Nanoseconds,
  PAGE_SIZE_BYTES,
  type Pfn,
  pfnToGpa,
} from '../../shared/index.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { type Kthread, WaitQueue } from '../sched/kthread.ts';
import type { DriverQueue } from '../virtio/queue.ts';
import type { VirtioTransport } from '../virtio/transport.ts';

/** What became of one hint: queued, no entry free for it, or the host has ended the round. */
export const HintOutcome = { QUEUED: 0, FULL: 1, ENDED: 2 } as const;
export type HintOutcome = (typeof HintOutcome)[keyof typeof HintOutcome];

/** One round of one command id, as a strategy sees it. */
export interface HintRound {
  readonly cmdId: number;
  readonly kernel: Kernel;
  /** Entries left for blocks now; one more is reserved for the command id. Takes back used ones. */
  freeEntries(): number;
  /** False once the host has published another id; re-reads it only after a config interrupt. */
  active(): Kthread<boolean>;
  /** Sleep until so many entries are free (default: one). False: the round has ended. */
  waitForSpace(entries?: number): Kthread<boolean>;
  /** HINT_WAIT_ON_ACK was negotiated: a hinted block is in use again only after `used`. */
  readonly waitsOnAck: boolean;
  /** Sleep until the device has used every block queued so far, whatever becomes of the round. */
  used(): Kthread;
  /** Blocks 0 … count−1 were found now; `hintMany` of the same follows. For evaluation. */
  recorded(pfns: Uint32Array, orders: Uint8Array, count: number): void;
  /** Queue one block and kick. Never waits for space. */
  hint(pfn: Pfn, pageCount: number, recordedAtNs: Nanoseconds): Kthread<HintOutcome>;
  /**
   * Queue blocks 0 … count−1, one chain each, with a kick per half ring or more; waits for space.
   * Returns how many were queued: fewer than `count` when the round ended. The arrays are read
   * until it returns.
   */
  hintMany(
    pfns: Uint32Array,
    orders: Uint8Array,
    count: number,
    recordedAtNs: Nanoseconds,
  ): Kthread<number>;
}

export interface HintingStrategy {
  readonly name: StrategyName;
  /** Pages that the strategy keeps from the allocator now. */
  readonly heldPages: number;
  /** A page that it hinted cannot be in use again before the host has let go of it. */
  readonly holds: boolean;
  /** What it hinted comes back through the allocator, which fills it as it fills all that is freed. */
  readonly refills: boolean;
  /** The driver accepts HINT_WAIT_ON_ACK for it. */
  readonly waitsOnAck?: boolean;
  /** Counters of its own, for evaluation. */
  readonly counters?: Readonly<Record<string, number>>;
  /** Whether this frame is among the held ones. */
  isHeld?(pfn: Pfn): boolean;
  /** Adds the held frames to a set. */
  writeHeldSet?(into: Bitmap): void;
  run(round: HintRound): Kthread;
  /** The host said DONE: give back what is held. */
  release(): void;
  /** Reclaim wants so many pages back; returns how many it got, whole blocks of them. */
  shrink?(pages: number): number;
}

/** Per block, for evaluation: cheap, and without influence on the driver. */
export interface HintObserver {
  /** Blocks were found now; their hints follow, in this order. */
  onRecord?(pfns: Uint32Array, orders: Uint8Array, count: number): void;
  onHint(
    pfn: Pfn,
    pageCount: number,
    recordedAtNs: Nanoseconds,
    queuedAtNs: Nanoseconds,
    cmdId: number,
  ): void;
  /** The driver saw that the device used the block's buffer. */
  onUsed(pfn: Pfn, pageCount: number, cmdId: number, seenAtNs: Nanoseconds): void;
}

export interface FreePageHintingOptions {
  readonly kernel: Kernel;
  readonly transport: VirtioTransport;
  readonly queue: DriverQueue;
  readonly strategy: HintingStrategy;
  readonly observers: readonly HintObserver[];
  /** HINT_WAIT_ON_ACK was negotiated. */
  readonly waitsOnAck: boolean;
  /** Read `free_page_hint_cmd_id` from the device. */
  readonly readCmdId: () => Kthread<number>;
  /** Store an id in driver memory; returns where. Start and stop ids have a buffer each. */
  readonly writeCommand: (which: 'start' | 'stop', cmdId: number) => number;
  /** Of an earlier binding to the device, which go on; default: all 0. */
  readonly counters?: HintCounters;
}

const COMMAND_BYTES = 4;
/** `pageCount` of a head that carries a command id and not a block. */
const COMMAND = 0;

export interface HintCounters extends Record<string, number> {
  hint_rounds: number;
  hint_blocks: number;
  hint_pages: number;
  hint_used_blocks: number;
  /** Times that a block found no free entry. */
  hint_ring_full: number;
  /** Rounds that the host ended before the strategy had finished. */
  hint_rounds_broken_off: number;
}

export class FreePageHinting implements HintRound {
  readonly counters: HintCounters;
  readonly #options: FreePageHintingOptions;
  readonly #queue: DriverQueue;
  readonly #used = new WaitQueue();
  readonly #pfnOf: Uint32Array;
  readonly #pageCountOf: Uint32Array;
  readonly #cmdIdOf: Uint32Array;
  /** Linux's READ_CMD_ID bit: the device's id may differ from the one received last. */
  #readCmdId = false;
  #receivedId: number = HintCommand.STOP;
  #activeId: number = HintCommand.STOP;
  /** Blocks that the device has not used yet, as far as the driver has looked. */
  #outstandingBlocks = 0;
  #isLost = false;

  constructor(options: FreePageHintingOptions) {
    assert(options.queue.size >= 2, 'the ring holds a block beside a command id');
    this.#options = options;
    this.counters = options.counters ?? newHintCounters();
    this.#queue = options.queue;
    // Used entries are taken back with the next send; only who waits for them wants to be woken.
    this.#queue.disableCallbacks();
    this.#pfnOf = new Uint32Array(options.queue.size);
    this.#pageCountOf = new Uint32Array(options.queue.size);
    this.#cmdIdOf = new Uint32Array(options.queue.size);
  }

  get kernel(): Kernel {
    return this.#options.kernel;
  }

  /** The id of the round that was started last. */
  get cmdId(): number {
    return this.#activeId;
  }

  get waitsOnAck(): boolean {
    return this.#options.waitsOnAck;
  }

  /** Configuration interrupt. True: the hint work must be queued. */
  configChanged(): boolean {
    const queueWork = !this.#readCmdId;
    this.#readCmdId = true;
    this.#used.wake();
    return queueWork;
  }

  /** The device was reset: whatever waits for it ends. */
  lose(): void {
    this.#isLost = true;
    this.#used.wake();
  }

  /** Interrupt of the hinting queue. */
  queueUsed(): void {
    this.#used.wake();
  }

  /** The work item (report_free_page_func). */
  *work(): Kthread {
    const { strategy } = this.#options;
    const cmdId = yield* this.#receive();
    if (cmdId === HintCommand.DONE) {
      this.#drain();
      strategy.release();
      return;
    }
    // A host that repeats the last id is ignored, as Linux does.
    if (cmdId === HintCommand.STOP || cmdId === this.#activeId) return;
    this.#activeId = cmdId;
    this.counters.hint_rounds++;
    yield* this.#sendCommand('start', cmdId);
    yield* strategy.run(this);
    if (this.#receivedId !== this.#activeId) this.counters.hint_rounds_broken_off++;
    yield* this.#sendCommand('stop', HintCommand.STOP);
  }

  freeEntries(): number {
    this.#drain();
    return Math.max(0, this.#queue.freeCount - 1);
  }

  *active(): Kthread<boolean> {
    return !this.#isLost && (yield* this.#receive()) === this.#activeId;
  }

  *waitForSpace(entries = 1): Kthread<boolean> {
    for (;;) {
      if (!(yield* this.active())) return false;
      if (this.freeEntries() >= entries) return true;
      this.counters.hint_ring_full++;
      yield* this.#waitForUsed();
    }
  }

  *used(): Kthread {
    this.#drain();
    while (this.#outstandingBlocks > 0 && !this.#isLost) {
      yield* this.#waitForUsed();
      this.#drain();
    }
  }

  *hint(pfn: Pfn, pageCount: number, recordedAtNs: Nanoseconds): Kthread<HintOutcome> {
    const { kernel, transport } = this.#options;
    if (!(yield* this.active())) return HintOutcome.ENDED;
    if (this.freeEntries() === 0) {
      this.counters.hint_ring_full++;
      return HintOutcome.FULL;
    }
    this.#queueBlock(pfn, pageCount, recordedAtNs, kernel.now);
    this.#queue.flushTouched();
    yield* transport.notify(this.#queue);
    yield { kind: 'cpu', ns: kernel.costs.queueElementNs };
    return HintOutcome.QUEUED;
  }

  recorded(pfns: Uint32Array, orders: Uint8Array, count: number): void {
    for (const observer of this.#options.observers) observer.onRecord?.(pfns, orders, count);
  }

  *hintMany(
    pfns: Uint32Array,
    orders: Uint8Array,
    count: number,
    recordedAtNs: Nanoseconds,
  ): Kthread<number> {
    const { kernel, transport } = this.#options;
    let done = 0;
    while (done < count) {
      // Half a ring or all the rest: each entry that comes back alone would cost a kick of its own.
      const wanted = Math.min(count - done, this.#queue.size >>> 1);
      if (!(yield* this.waitForSpace(wanted))) break;
      const end = done + Math.min(count - done, this.freeEntries());
      yield { kind: 'cpu', ns: (end - done) * kernel.costs.queueElementNs };
      // Filling took time: the id must still hold when the blocks become available.
      if (!(yield* this.active())) break;
      const { now } = kernel;
      for (; done < end; done++) {
        this.#queueBlock(pfns[done]!, 1 << orders[done]!, recordedAtNs, now);
      }
      this.#queue.flushTouched();
      yield* transport.notify(this.#queue);
    }
    return done;
  }

  *#waitForUsed(): Kthread {
    if (this.#queue.enableCallbacks()) yield { kind: 'wait', queue: this.#used };
    this.#queue.disableCallbacks();
  }

  /** virtio_balloon_cmd_id_received: the device is asked only after a config interrupt. */
  *#receive(): Kthread<number> {
    while (this.#readCmdId && !this.#isLost) {
      this.#readCmdId = false;
      this.#receivedId = yield* this.#options.readCmdId();
    }
    return this.#receivedId;
  }

  *#sendCommand(which: 'start' | 'stop', cmdId: number): Kthread {
    const { kernel, transport, writeCommand } = this.#options;
    this.#drain();
    while (this.#queue.freeCount === 0 && !this.#isLost) {
      yield* this.#waitForUsed();
      this.#drain();
    }
    if (this.#isLost) return;
    const head = this.#queue.addSingle(writeCommand(which, cmdId), COMMAND_BYTES, false);
    this.#pageCountOf[head] = COMMAND;
    this.#queue.flushTouched();
    yield* transport.notify(this.#queue);
    yield { kind: 'cpu', ns: kernel.costs.queueElementNs };
  }

  #queueBlock(pfn: Pfn, pageCount: number, recordedAtNs: Nanoseconds, now: Nanoseconds): void {
    const head = this.#queue.addSingle(pfnToGpa(pfn), pageCount * PAGE_SIZE_BYTES, true);
    assert(head >= 0, 'a free entry was counted before the block');
    this.#pfnOf[head] = pfn;
    this.#pageCountOf[head] = pageCount;
    this.#cmdIdOf[head] = this.#activeId;
    this.#outstandingBlocks++;
    this.counters.hint_blocks++;
    this.counters.hint_pages += pageCount;
    const { observers } = this.#options;
    for (let i = 0; i < observers.length; i++) {
      observers[i]!.onHint(pfn, pageCount, recordedAtNs, now, this.#activeId);
    }
  }

  #drain(): void {
    const { kernel, observers } = this.#options;
    const { now } = kernel;
    for (;;) {
      const head = this.#queue.getUsed();
      if (head < 0) return;
      const pageCount = this.#pageCountOf[head]!;
      if (pageCount === COMMAND) continue;
      this.#outstandingBlocks--;
      this.counters.hint_used_blocks++;
      for (let i = 0; i < observers.length; i++) {
        observers[i]!.onUsed(this.#pfnOf[head]!, pageCount, this.#cmdIdOf[head]!, now);
      }
    }
  }
}

function newHintCounters(): HintCounters {
  return {
    hint_rounds: 0,
    hint_blocks: 0,
    hint_pages: 0,
    hint_used_blocks: 0,
    hint_ring_full: 0,
    hint_rounds_broken_off: 0,
  };
}
