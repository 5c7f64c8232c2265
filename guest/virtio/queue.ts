/**
 * The two hands on a virtqueue, free of its layout. `DriverQueue` is the driver's: it fills
 * descriptors and takes back used buffers. `DeviceRing` is the device's hand on the same memory, as
 * vhost has one: it reads what became available and writes what was used, trusting nothing.
 */
import type { Message } from '../../protocol/index.ts';
import type { Gpa, Nanoseconds } from '../../shared/index.ts';
import type { RingState } from './ring-state.ts';

/** One physically contiguous piece of a chain. */
export interface Segment {
  readonly gpa: Gpa;
  readonly lengthBytes: number;
}

/** Device-readable (`out`) segments come before device-writable (`in`) ones, as the ring demands. */
export interface Chain {
  readonly out?: readonly Segment[];
  readonly in?: readonly Segment[];
}

/** A chain is at most this long in all (virtio 1.4 §2.7.5.2). */
const MAX_CHAIN_BYTES = 2 ** 32;

/** Whether a driver may make this chain. */
export function isChain({ out = [], in: writable = [] }: Chain): boolean {
  let bytes = 0;
  for (const { lengthBytes } of out) bytes += lengthBytes;
  for (const { lengthBytes } of writable) bytes += lengthBytes;
  return out.length + writable.length > 0 && bytes <= MAX_CHAIN_BYTES;
}

/** The `i`-th of all segments, readable ones first. */
export function segmentOf(chain: Chain, i: number): Segment {
  const outCount = chain.out?.length ?? 0;
  return i < outCount ? chain.out![i]! : chain.in![i - outCount]!;
}

/**
 * Where the three parts of a queue lie: descriptor table, available ring and used ring of a split
 * queue; descriptor ring, driver and device event suppression of a packed one.
 */
export interface QueueAreas {
  readonly descGpa: Gpa;
  readonly driverGpa: Gpa;
  readonly deviceGpa: Gpa;
}

export interface DriverQueue {
  readonly index: number;
  readonly size: number;
  readonly areas: QueueAreas;
  /** Descriptors that a new chain may take. */
  readonly freeCount: number;
  /** Bytes the device wrote into the chain that `getUsed` returned last. */
  readonly usedBytes: number;
  /** Used entries that named no outstanding chain; ignored. */
  readonly badUsedCount: number;
  /** Make one chain available. Returns its head (buffer id), −ENOSPC, or −EINVAL if it is empty or too long. */
  addChain(chain: Chain): number;
  /**
   * Hot path of hinting: a chain of one descriptor, without allocation. The caller calls
   * `flushTouched` before anything else may run. Returns the head or −ENOSPC.
   */
  addSingle(gpa: Gpa, lengthBytes: number, writable: boolean): number;
  /** Take the next used chain: its head, or −1 when there is none. */
  getUsed(): number;
  isOutstanding(head: number): boolean;
  /** Tell the machine which ring pages changed: their dirty-log bits and content tags. */
  flushTouched(): void;
  /** Whether the device asked to be notified of what was added since the last call. */
  kickNeeded(): boolean;
  /** Ask the device for no more interrupts; it may still send some. */
  disableCallbacks(): void;
  /** Ask for an interrupt at the next used buffer. False: one is there already. */
  enableCallbacks(): boolean;
}

/** Guest memory as the device's hand on the rings sees it. */
export interface GuestBytes {
  /** A live view, valid until the guest runs on; null where there is no such memory. */
  map(gpa: Gpa, lengthBytes: number): Uint8Array | null;
  /** The bytes there were changed through a view: log them as a DMA write. */
  touched(gpa: Gpa, lengthBytes: number): void;
}

export interface DeviceRing {
  /** Why the ring makes no sense, or null. A broken ring is left alone until it is set up again. */
  readonly broken: string | null;
  /**
   * Take newly available chains; returns how many. Stops for good at the first bad one, and until
   * the next `drain` when the batch is full.
   */
  take(now: Nanoseconds): number;
  /**
   * The chains taken since the last call as one message, or null. Chains that a full batch left in
   * the ring are taken then, for the next call; so the ring can also break here.
   */
  drain(): Message<'avail'> | null;
  /** Write used entries (u16 heads, u32 lengths); returns how many named no outstanding chain. */
  complete(heads: Uint8Array, writtenBytes: Uint8Array): number;
  /** Whether the driver wants an interrupt for what was completed since the last call. */
  interruptNeeded(): boolean;
  /** Of a ring whose batch is drained. */
  saveState(): RingState;
  /** Go on as the ring that was saved; before anything was taken. False: no ring is like that, and this one is of no use. */
  restoreState(state: RingState): boolean;
}
