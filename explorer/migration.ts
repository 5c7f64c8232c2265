/**
 * A live migration among the other actors: the real migration thread, stopped at each of its
 * requests, and at its end the comparison of the two memories.
 */

import { Reliance } from '../guest/reliance/page-reliance.ts';
import { type HintSink, HintStatus } from '../host/balloon/hinting.ts';
import type { PrecopyFigures } from '../host/migration/migration-counters.ts';
import { Precopy } from '../host/migration/precopy.ts';
import type {
  MigrationMachine,
  MigrationReply,
  MigrationRequest,
  MigrationThread,
} from '../host/migration/thread.ts';
import type { DirtyLogParams, Message } from '../protocol/index.ts';
import { assert, DEFAULT_COSTS, type Nanoseconds, PAGE_SIZE_BYTES } from '../shared/index.ts';
import { Actor, ActorState } from './actor.ts';
import { describeEvent } from './ghost.ts';
import type { ExploredMachine } from './machine.ts';
import { Violation } from './violation.ts';

/** So many windows of 100 ms carry all of memory: several slices, and a second round. */
const WINDOWS = 3;
const WINDOWS_PER_S = 10;
/** A handful of dirty pages is enough for another round. */
const DOWNTIME_LIMIT_MS = 10;
/** Chunks of the postponed log clears: 64 pages. */
const CLEAR_BITMAP_SHIFT = 6;

export class MigrationActor extends Actor {
  readonly precopy: Precopy;
  readonly #machine: ExploredMachine;
  readonly #thread: MigrationThread<PrecopyFigures>;
  #request: MigrationRequest | null = null;
  /** Memory of the destination: what was never sent reads zero. */
  readonly #destinationTags: Uint32Array;

  constructor(machine: ExploredMachine, log: Pick<DirtyLogParams, 'dirtyLog' | 'hintRemedy'>) {
    super('migration', false);
    this.#machine = machine;
    this.#destinationTags = new Uint32Array(machine.scenario.machine.frames);
    const pages = machine.ram.count();
    const bandwidthBytesPerS = Math.ceil(pages / WINDOWS) * PAGE_SIZE_BYTES * WINDOWS_PER_S;
    this.precopy = new Precopy(
      migrationMachine(machine),
      {
        bandwidthBytesPerS,
        downtimeLimitMs: DOWNTIME_LIMIT_MS,
        ...log,
        clearBitmapShift: CLEAR_BITMAP_SHIFT,
      },
      {
        page: (pfn, tag) => {
          this.#destinationTags[pfn] = tag;
        },
        mark: () => {},
      },
      { hinted: () => {}, progress: () => {} },
      { plants: machine.plants },
    );
    this.#thread = this.precopy.run();
  }

  override get at(): string {
    if (this.state === ActorState.DONE) return 'ends';
    return this.#request === null ? 'has not run yet' : describeRequest(this.#request);
  }

  override step(now: Nanoseconds): void {
    const machine = this.#machine;
    if (this.#request === null) machine.onHint = (...hint) => this.#applyHint(...hint);
    const { value, done } = this.#thread.next(this.#reply());
    this.#checkBitmap();
    if (done) {
      this.#end(value);
      return;
    }
    this.#request = value;
    this.dueNs = value.kind === 'advanceTo' ? value.atNs : now;
  }

  /** A request is answered when its thread goes on: what happened until then is in the answer. */
  #reply(): MigrationReply {
    const request = this.#request;
    const { ram } = this.#machine.system;
    if (request?.kind === 'dirtyLog') {
      const log = ram.dirtyLog.take(request.clear);
      this.#machine.ghost.say(`dirty log${request.clear ? ' read and cleared' : ' read'}`);
      return log;
    }
    if (request?.kind !== 'records') return undefined;
    this.#machine.ghost.say(`records of ${describeRanges(request.ranges)}`);
    const records: number[] = [];
    for (let i = 0; i < request.ranges.length; i += 2) {
      const first = request.ranges[i]!;
      for (let j = 0; j < request.ranges[i + 1]!; j++) records.push(ram.tags[first + j]!);
    }
    return Uint32Array.from(records);
  }

  #applyHint(...[firstPfn, pageCount, origin]: Parameters<HintSink>): void {
    const { device, ghost } = this.#machine;
    ghost.say(`hint ${firstPfn}+${pageCount} applied`);
    if (device.hintStatus !== HintStatus.START || origin.cmdId !== device.hintCmdId) {
      throw new Violation(
        'a hint is applied only in the round of its id',
        `a hint of page ${firstPfn} under id ${origin.cmdId} is applied, the device's ` +
          `state is ${device.hintStatus} and its id ${device.hintCmdId}`,
      );
    }
    this.precopy.applyHint(firstPfn, pageCount, origin);
    this.#checkBitmap();
  }

  #checkBitmap(): void {
    const { bitmap } = this.precopy;
    if (bitmap.bits.count() === bitmap.dirtyPages) return;
    throw new Violation(
      'migration_dirty_pages is the number of set bits',
      `${bitmap.bits.count()} bits are set, ${bitmap.dirtyPages} pages are counted`,
    );
  }

  #end({ status }: PrecopyFigures): void {
    const machine = this.#machine;
    this.state = ActorState.DONE;
    machine.onHint = null;
    machine.ghost.say(`migration ${status}`);
    if (status === 'completed') this.#compare();
    machine.scheduler.machineRuns = true;
  }

  /** At switchover: what somebody relies on is the same on both sides. */
  #compare(): void {
    const tags = this.#destinationTags;
    const { runs, system } = this.#machine;
    for (const [start, end] of runs) {
      for (let pfn = start; pfn < end; pfn++) {
        if (tags[pfn] === system.ram.tags[pfn]) continue;
        const reliance = system.reliance.of(pfn);
        if (reliance === Reliance.NONE) continue;
        throw new Violation(
          reliance === Reliance.FREED
            ? 'a free page keeps what the next allocation relies on'
            : 'no page is lost',
          `page ${pfn} holds record ${system.ram.tags[pfn]} here and ${tags[pfn]} at the destination`,
        );
      }
    }
  }
}

function describeRanges(ranges: Uint32Array): string {
  const shown: string[] = [];
  for (let i = 0; i < ranges.length; i += 2) shown.push(`${ranges[i]}+${ranges[i + 1]}`);
  return shown.join(' ');
}

function describeRequest(request: MigrationRequest): string {
  switch (request.kind) {
    case 'preempt':
      return request.at;
    case 'advanceTo':
      return 'time passes';
    case 'dirtyLog':
      return 'before the dirty log is read';
    case 'records':
      return 'before the records are read';
    case 'paused':
      return 'pauses';
    case 'passStarted':
      return request.cmdId === null ? 'a pass begins' : `hinting round ${request.cmdId} asked for`;
  }
}

function migrationMachine(machine: ExploredMachine): MigrationMachine {
  const { scheduler, ghost, system } = machine;
  return {
    get now() {
      return scheduler.now;
    },
    options: { ramPages: machine.scenario.machine.frames, ram: machine.ram, costs: DEFAULT_COSTS },
    log: { add: (_at, event, fields) => ghost.say(describeEvent(event, fields)) },
    device: machine.device,
    get running() {
      return scheduler.machineRuns;
    },
    set running(running) {
      scheduler.machineRuns = running;
    },
    post: (message: Message) => {
      if (message.name === 'dirtyLogEnable') {
        const { enabled, initially_set, ring_entries } = message;
        const mode = { initiallySet: initially_set, ringEntries: ring_entries };
        system.ram.dirtyLog.enable(enabled, mode);
      } else if (message.name === 'clearDirtyLog') {
        const cleared = system.ram.dirtyLog.clear(message.first_pfn, message.bits);
        assert(cleared, 'a piece of the log is cleared');
        ghost.say(`log of ${message.first_pfn}+${message.bits.length * 8} cleared`);
      } else assert(false, `the migration thread posts ${message.name}`);
    },
    throttle: () => {},
    emit: () => {},
  };
}
