/**
 * The migration thread as a coroutine: between two requests it is atomic, and whoever owns time
 * answers each request and decides what happens meanwhile. QEMU's thread runs beside the vCPUs and
 * the device's iothread; the requests are where these can come in between.
 */
import type { HostEventData, HostEventName, Message } from '../../protocol/index.ts';
import {
  assert,
  Bitmap,
  type Costs,
  type EventLog,
  type Nanoseconds,
  type Pfn,
} from '../../shared/index.ts';
import type { BalloonDevice } from '../balloon/device.ts';

export type MigrationRequest =
  /** Let time pass; the machine's own work until then gets its turn, also when no time passes. */
  | { readonly kind: 'advanceTo'; readonly atNs: Nanoseconds }
  /** Fetch the dirty log, and clear it in the same step if asked to. Answered with a Bitmap. */
  | { readonly kind: 'dirtyLog'; readonly clear: boolean }
  /** Read content records, pairs of first frame and count. Answered with one tag per page. */
  | { readonly kind: 'records'; readonly ranges: Uint32Array }
  /** pause-before-switchover: the vCPUs are stopped; answered when somebody lets it go on. */
  | { readonly kind: 'paused' }
  /** A sync is over; the id under which hints were asked for, or null: none. For observers. */
  | { readonly kind: 'passStarted'; readonly cmdId: number | null }
  /** Takes no time; the device or a vCPU can come in between here. */
  | { readonly kind: 'preempt'; readonly at: PreemptionPoint };

export type PreemptionPoint = 'hints stopped' | 'log read' | 'log cleared' | 'records read';

export type MigrationReply = Bitmap | Uint32Array | undefined;

export type MigrationThread<T = void> = Generator<MigrationRequest, T, MigrationReply>;

/** Where the thread tells the state that it enters (qemu MigrationStatus). */
export type EnterState = (state: 'active' | 'pre-switchover' | 'device') => void;

/** Who watches a migration without being part of it. */
export interface MigrationWatcher {
  /** The device took a hint. */
  hinted(pfn: Pfn, pageCount: number): void;
  /** A page went out, with this content record. */
  sent?(pfn: Pfn, tag: number): void;
  progress(sentPages: number, remainingPages: number): void;
}

/** What the migration thread sees of its machine; nothing here lets time pass. */
export interface MigrationMachine {
  readonly now: Nanoseconds;
  /** `ramPages`: frame numbers are below this; `ram`: the frames that hold RAM. */
  readonly options: { readonly ramPages: number; readonly ram: Bitmap; readonly costs: Costs };
  readonly log: Pick<EventLog, 'add'>;
  readonly device: Pick<
    BalloonDevice,
    'canHint' | 'hintCmdId' | 'hintStart' | 'hintStop' | 'hintDone'
  >;
  /** False: vCPUs and device are stopped. */
  running: boolean;
  /** Queue a message to the guest: it takes effect before anything that is asked of it later. */
  post(message: Message): void;
  /** The vCPUs sleep so much of their time, in percent. */
  throttle(percentage: number): void;
  emit<N extends HostEventName>(event: N, data: HostEventData[N]): void;
}

export function preempt(at: PreemptionPoint): MigrationRequest {
  return { kind: 'preempt', at };
}

export function* advanceFor(machine: MigrationMachine, ns: Nanoseconds): MigrationThread {
  yield { kind: 'advanceTo', atNs: machine.now + Math.round(ns) };
}

export function* readDirtyLog(clear: boolean): MigrationThread<Bitmap> {
  const log = yield { kind: 'dirtyLog', clear };
  assert(log instanceof Bitmap, 'a dirty log is answered with a bitmap');
  return log;
}

export function* readRecords(ranges: Uint32Array): MigrationThread<Uint32Array> {
  const records = yield { kind: 'records', ranges };
  assert(records instanceof Uint32Array, 'records are answered with tags');
  return records;
}
