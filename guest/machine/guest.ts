/**
 * The guest as one object: machine, kernel, driver and workload behind the channel. It answers each
 * frame of the host with one frame and does nothing between two of them.
 */
import {
  ExitReason,
  type GuestConfig,
  type GuestFacts,
  type Message,
  toUint32,
  u32Bytes,
} from '../../protocol/index.ts';
import { assert, BallastError, Bitmap, EventLog, type Pfn, Prng } from '../../shared/index.ts';
import type { Recording } from '../../shared/recording/index.ts';
import { BalloonDriver } from '../balloon/driver.ts';
import type { HintingStrategy } from '../balloon/hinting.ts';
import { AllocStrategy } from '../hinting/alloc.ts';
import { createStrategy } from '../hinting/create.ts';
import { HintRecord } from '../hinting/hint-record.ts';
import { IterateStrategy } from '../hinting/iterate.ts';
import { Kcompactd } from '../kernel/kcompactd.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { Scheduler } from '../kernel/scheduler.ts';
import { PageAllocator } from '../mm/index.ts';
import { ChannelTransport } from '../virtio/channel-transport.ts';
import type { Replay } from '../workload/replay.ts';
import { startReplay } from '../workload/start.ts';
import { applyFreshBoot, applyRecording, ramSegmentsOf } from './initial-state.ts';
import { POISON_TAG, Ram, RECORD_SIZE_BYTES, ZERO_TAG } from './ram.ts';

export class Guest {
  readonly facts: GuestFacts;
  readonly mm: PageAllocator;
  readonly ram: Ram;
  readonly driver: BalloonDriver;
  readonly transport: ChannelTransport;
  readonly strategy: HintingStrategy | null;
  readonly #config: GuestConfig;
  readonly #recording: Recording | null;
  readonly #log: EventLog;
  readonly #scheduler: Scheduler;
  readonly #hints: HintRecord;
  readonly #kcompactd: Kcompactd;
  #replay: Replay | null = null;
  #posted: Message[] = [];
  #booted = false;

  constructor(config: GuestConfig, recording: Recording | null, sink?: (line: string) => void) {
    this.#config = config;
    this.#recording = recording;
    this.facts = {
      recordSizeBytes: RECORD_SIZE_BYTES,
      ramPages: config.ramPages,
      ramSegments: ramSegmentsOf(recording, config.ramPages),
      vcpus: config.vcpus,
    };
    this.#log = new EventLog(sink);
    const ram = new Ram(config.ramPages);
    this.ram = ram;
    this.#scheduler = new Scheduler(config.vcpus);
    this.mm = new PageAllocator(
      { ramPages: config.ramPages, vcpus: config.vcpus, mm: config.mm },
      {
        clearPages: (pfn, pageCount, pattern) =>
          ram.fill(pfn, pageCount, pattern === 'zero' ? ZERO_TAG : POISON_TAG),
      },
    );
    if (recording) applyRecording(recording, this.mm, ram);
    else applyFreshBoot(this.mm, ram);
    const kernel = this.#kernel();
    this.#kcompactd = new Kcompactd(kernel);
    this.transport = new ChannelTransport(kernel);
    this.strategy = createStrategy(kernel, config);
    this.#hints = new HintRecord((pfn, pageCount) => this.#countUnused(pfn, pageCount));
    this.driver = new BalloonDriver(kernel, {
      transport: this.transport,
      strategy: this.strategy,
      observers: [this.#hints],
    });
  }

  /** One frame of the host in, one of the guest out. */
  handle(messages: Message[]): Message[] {
    const replies: Message[] = [];
    for (const message of messages) {
      const reply = this.#dispatch(message);
      if (reply) replies.push(...reply);
    }
    return replies;
  }

  #kernel(): Kernel {
    const scheduler = this.#scheduler;
    return {
      get now() {
        return scheduler.now;
      },
      costs: this.#config.costs,
      log: this.#log,
      mm: this.mm,
      ram: this.ram,
      spawn: (_name, body) => scheduler.spawn(body),
      post: (message) => void this.#posted.push(message),
      notify: () => scheduler.notify(),
    };
  }

  #dispatch(message: Message): Message[] | null {
    switch (message.name) {
      case 'run':
        return this.#run(message.until_ns, message.notify_ns);
      case 'irq':
      case 'used':
      case 'configChanged':
        this.transport.receive(message);
        return null;
      case 'deviceInfo':
      case 'deviceFeatures':
      case 'status':
      case 'config':
      case 'queue':
        if (!this.#scheduler.accessPending) throw unexpected(message);
        this.#scheduler.completeAccess(copied(message));
        return null;
      case 'console':
        this.#console(message.line);
        return null;
      default:
        return this.#memoryOrOracle(message);
    }
  }

  #run(untilNs: number, notifyNs: number): Message[] {
    if (this.#scheduler.accessPending) {
      throw new BallastError(
        'MESSAGE_UNEXPECTED',
        'run while a device access waits for its answer',
      );
    }
    if (!this.#booted) {
      this.#booted = true;
      this.driver.start();
      this.#scheduler.spawn(() => this.#kcompactd.run());
    }
    const stop = this.#scheduler.run(untilNs, notifyNs);
    const frame: Message[] = [...this.#posted, ...this.transport.drainAvail()];
    this.#posted = [];
    const reason =
      stop.kind === 'access'
        ? ExitReason.ACCESS
        : stop.kind === 'notify'
          ? ExitReason.NOTIFY
          : ExitReason.UNTIL;
    if (stop.kind === 'access') frame.push(stop.message);
    frame.push({ name: 'exit', at_ns: this.#scheduler.now, reason });
    this.#log.add(this.#scheduler.now, 'exit', { reason, free: this.mm.freePages() });
    return frame;
  }

  #memoryOrOracle(message: Message): Message[] | null {
    const { ram } = this;
    switch (message.name) {
      case 'read':
        return [{ name: 'records', data: this.#read(rangesOf(message.ranges, ram.pageCount)) }];
      case 'write':
        this.#write(rangesOf(message.ranges, ram.pageCount), message.data);
        return null;
      case 'discard':
        forEachRange(rangesOf(message.ranges, ram.pageCount), (pfn, n) => ram.discard(pfn, n));
        return null;
      case 'dirtyLogEnable':
        ram.dirtyLog.enable(message.enabled);
        return null;
      case 'getDirtyLog': {
        const bits = ram.dirtyLog.bits.bytes.slice();
        if (message.clear) ram.dirtyLog.bits.clearAll();
        return [{ name: 'dirtyLog', bits }];
      }
      case 'clearDirtyLog':
        if (!ram.dirtyLog.clear(message.first_pfn, message.bits)) {
          throw new BallastError('MESSAGE_INVALID', 'clearDirtyLog: expected a piece of the log');
        }
        return null;
      case 'getFreeSet':
        return [{ name: 'freeSet', bits: this.#unusedSet().bytes }];
      case 'countFree':
        return [{ name: 'freeCounts', counts: this.#countFree(message.ranges) }];
      case 'verify':
        return [{ name: 'verified', problems: this.audit().slice(0, 256) }];
      case 'getStatistics':
        return [{ name: 'statistics', counters: Object.entries(this.statistics()).flat() }];
      case 'getHistory':
        return [{ name: 'history', lines: this.#historyOf(message.pfn) }];
      case 'getGuestDigest':
        return [{ name: 'guestDigest', sha256: this.#log.digest() }];
      default:
        throw unexpected(message);
    }
  }

  #console(line: string): void {
    if (line !== 'replay') {
      this.#log.add(this.#scheduler.now, 'console_unknown', { line: line.slice(0, 64) });
      return;
    }
    if (!this.#recording || this.#replay) return;
    const { auditEveryEvents, seed, vcpus } = this.#config;
    const { replay, workload } = startReplay(
      this.#recording,
      {
        mm: this.mm,
        ram: this.ram,
        vcpus,
        startNs: this.#scheduler.now,
        prng: new Prng(seed).split('in-place'),
      },
      auditEveryEvents > 0
        ? { audit: { everyEvents: auditEveryEvents, run: () => this.#mustBeSound() } }
        : {},
    );
    this.#replay = replay;
    this.#kcompactd.movable = replay;
    this.#scheduler.setWorkload(workload);
    this.#log.add(this.#scheduler.now, 'replay', { events: this.#recording.events.count });
  }

  #read(ranges: Uint32Array): Uint8Array {
    let total = 0;
    forEachRange(ranges, (_pfn, pageCount) => {
      total += pageCount;
    });
    const tags = new Uint32Array(total);
    let at = 0;
    forEachRange(ranges, (pfn, pageCount) => {
      tags.set(this.ram.tags.subarray(pfn, pfn + pageCount), at);
      at += pageCount;
    });
    return u32Bytes(tags);
  }

  #write(ranges: Uint32Array, data: Uint8Array): void {
    const tags = toUint32(data) ?? new Uint32Array();
    let at = 0;
    forEachRange(ranges, (pfn, pageCount) => {
      for (let i = 0; i < pageCount && at < tags.length; i++) {
        this.ram.setRecord(pfn + i, tags[at++]!);
      }
    });
  }

  /** Pages that nobody uses: in the buddy lists, on per-CPU lists, or held for hinting. */
  #unusedSet(): Bitmap {
    const set = new Bitmap(this.ram.pageCount);
    this.mm.writeFreeSet(set);
    if (this.strategy instanceof AllocStrategy) this.strategy.writeHeldSet(set);
    return set;
  }

  #countUnused(pfn: Pfn, pageCount: number): number {
    let count = 0;
    for (let i = pfn; i < pfn + pageCount; i++) if (this.mm.isFree(i)) count++;
    // A block that was allocated to be hinted belongs to nobody else.
    return count === 0 && this.strategy?.name === 'alloc' ? pageCount : count;
  }

  #countFree(bytes: Uint8Array): Uint8Array {
    const ranges = rangesOf(bytes, this.ram.pageCount);
    const set = this.#unusedSet();
    const counts = new Uint32Array(ranges.length / 2);
    for (let i = 0; i < counts.length; i++) {
      counts[i] = set.countRange(ranges[2 * i]!, ranges[2 * i + 1]!);
    }
    return u32Bytes(counts);
  }

  /** Empty when every page has exactly one owner and all counts agree. */
  audit(): string[] {
    return [...this.mm.audit(), ...this.driver.audit()];
  }

  #mustBeSound(): void {
    const [problem] = this.audit();
    assert(problem === undefined, `the audit finds nothing, found: ${problem}`);
  }

  statistics(): Record<string, number> {
    const iterator = this.strategy instanceof IterateStrategy ? this.strategy.iterator : null;
    const holds = iterator?.statistics;
    return {
      now_ns: this.#scheduler.now,
      free_pages: this.mm.freePages(),
      kthread_cpu_ns: this.#scheduler.kthreadCpuNs,
      held_pages: this.strategy?.heldPages ?? 0,
      held_pages_max: this.strategy instanceof AllocStrategy ? this.strategy.heldPagesMax : 0,
      lock_holds: holds?.holds ?? 0,
      lock_hold_ns_max: holds?.maxNs ?? 0,
      lock_hold_ns_total: holds?.totalNs ?? 0,
      lock_nodes_max: holds?.maxNodes ?? 0,
      balloon_pages: this.driver.numPages,
      ...this.mm.vmstat,
      ...this.#kcompactd.counters,
      ...this.driver.counters,
      ...this.driver.hinting?.counters,
      ...this.#hints.counters,
      ...this.transport.counters,
      ...this.#replay?.counters,
      peak_rss_bytes: process.resourceUsage().maxRSS * 1024,
    };
  }

  #historyOf(pfn: Pfn): string[] {
    if (pfn >= this.ram.pageCount) return [];
    const state = this.mm.isFree(pfn) ? 'free' : 'allocated';
    const tag = this.ram.tags[pfn]!.toString(16).padStart(8, '0');
    const lines = this.#hints.historyOf(pfn).slice(-200);
    return [...lines, `guest at ${this.#scheduler.now} ns: ${state}, content tag ${tag}`];
  }
}

/** Pairs of (first frame, count), inside RAM. */
function rangesOf(bytes: Uint8Array, pageCount: number): Uint32Array {
  const ranges = toUint32(bytes);
  if (!ranges || ranges.length % 2 !== 0) {
    throw new BallastError('MESSAGE_INVALID', 'ranges: expected pairs of first frame and count');
  }
  let total = 0;
  for (let i = 0; i < ranges.length; i += 2) {
    const end = ranges[i]! + ranges[i + 1]!;
    total += ranges[i + 1]!;
    if (end > pageCount || total > pageCount) {
      throw new BallastError(
        'MESSAGE_INVALID',
        `ranges: expected frames below ${pageCount}, each once at most, found ${ranges[i]}+${ranges[i + 1]}`,
      );
    }
  }
  return ranges;
}

function forEachRange(ranges: Uint32Array, visit: (pfn: Pfn, pageCount: number) => void): void {
  for (let i = 0; i < ranges.length; i += 2) visit(ranges[i]!, ranges[i + 1]!);
}

/** A received `bin` is a view of a buffer that will be reused; the waiting thread runs later. */
function copied(message: Message): Message {
  return message.name === 'config' ? { ...message, data: message.data.slice() } : message;
}

function unexpected(message: Message): BallastError {
  return new BallastError('MESSAGE_UNEXPECTED', `the guest did not expect ${message.name}`);
}
