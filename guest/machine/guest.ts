/**
 * The guest as one object: machine, kernel, driver and workload behind the channel. It answers each
 * frame of the host with one frame and does nothing between two of them.
 */
import {
  ExitReason,
  type GuestConfig,
  type GuestFacts,
  type Message,
} from '../../protocol/index.ts';
import { assert, BallastError, EventLog, NO_PLANTS, Prng } from '../../shared/index.ts';
import type { Recording } from '../../shared/recording/index.ts';
import { Scheduler } from '../sched/scheduler.ts';
import { ChannelTransport } from '../virtio/channel-transport.ts';
import { type StartedReplay, startReplay } from '../workload/start.ts';
import { type Commands, commandsOf } from './commands/index.ts';
import { Console } from './console.ts';
import { applyFreshBoot, applyRecording, ramSegmentsOf } from './initial-state.ts';
import { MemoryPort } from './memory-port.ts';
import { OraclePort } from './oracle-port.ts';
import { RECORD_SIZE_BYTES } from './ram.ts';
import { System } from './system.ts';

/** What starts when the machine is powered on. */
export type Boot = (system: System<ChannelTransport>) => void;

export class Guest {
  readonly facts: GuestFacts;
  readonly system: System<ChannelTransport>;
  readonly #config: GuestConfig;
  readonly #recording: Recording | null;
  readonly #log: EventLog;
  readonly #scheduler: Scheduler;
  readonly #memory: MemoryPort;
  readonly #oracle: OraclePort;
  readonly #commands: Commands;
  readonly #console: Console;
  #replay: StartedReplay | null = null;
  #posted: Message[] = [];
  #booted = false;
  readonly #boot: Boot;

  /** `boot`: by default the driver's probe and the kernel's own threads. */
  constructor(
    config: GuestConfig,
    recording: Recording | null,
    sink?: (line: string) => void,
    boot: Boot = bootKernel,
  ) {
    this.#config = config;
    this.#boot = boot;
    this.#recording = recording;
    this.facts = {
      recordSizeBytes: RECORD_SIZE_BYTES,
      ramPages: config.ramPages,
      ramSegments: ramSegmentsOf(recording, config.ramPages),
      vcpus: config.vcpus,
      plan: config.plan ?? [],
    };
    this.#log = new EventLog(sink);
    this.#scheduler = new Scheduler(config.vcpus);
    this.system = new System(config, {
      createTransport: (kernel) => new ChannelTransport(kernel),
      scheduler: this.#scheduler,
      log: this.#log,
      post: (message) => void this.#posted.push(message),
      plants: NO_PLANTS,
      tracer: null,
      isExplored: false,
    });
    const { mm, ram, strategy, reporting, hints, reliance } = this.system;
    if (recording) applyRecording(recording, mm, ram);
    else applyFreshBoot(mm, ram);
    this.#commands = commandsOf(this.system, new Prng(config.seed).split('load'));
    this.#console = new Console(this.system.kernel, config.vcpus, this.#commands.table);
    this.#memory = new MemoryPort(ram);
    this.#oracle = new OraclePort({
      mm,
      ram,
      strategy,
      reporting,
      reliance,
      hints,
      log: this.#log,
      now: () => this.#scheduler.now,
      audit: () => this.system.audit(),
      statistics: () => this.statistics(),
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

  #dispatch(message: Message): Message[] | null {
    switch (message.name) {
      case 'run':
        return this.#run(message.until_ns, message.notify_ns);
      case 'steal':
        this.#scheduler.steal(message.until_ns);
        return null;
      case 'irq':
      case 'used':
      case 'configChanged':
        this.system.transport.receive(message);
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
        if (message.line === 'replay') this.#startReplay();
        else this.#console.enter(message.line);
        return null;
      case 'getConsole': {
        const pending = this.#console.counters.console_pending;
        return [{ name: 'consoleOutput', pending, lines: this.#console.read() }];
      }
      default:
        return this.#ask(message);
    }
  }

  #ask(message: Message): Message[] | null {
    const reply = this.#memory.handle(message);
    if (reply !== undefined) return reply && [reply];
    const truth = this.#oracle.handle(message);
    if (truth === undefined) throw unexpected(message);
    return [truth];
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
      this.#boot(this.system);
    }
    const stop = this.#scheduler.run(untilNs, notifyNs);
    const posted = this.#takePosted();
    const avail = this.system.transport.drainAvail();
    // Draining may post, too: that a ring is broken.
    const frame: Message[] = [...posted, ...avail, ...this.#takePosted()];
    const reason =
      stop.kind === 'access'
        ? ExitReason.ACCESS
        : stop.kind === 'notify'
          ? ExitReason.NOTIFY
          : ExitReason.UNTIL;
    if (stop.kind === 'access') frame.push(stop.message);
    frame.push({
      name: 'exit',
      at_ns: this.#scheduler.now,
      reason,
      idle_until_ns: this.#scheduler.idleUntil,
    });
    this.#log.add(this.#scheduler.now, 'exit', { reason, free: this.system.mm.freePages() });
    return frame;
  }

  #takePosted(): Message[] {
    const posted = this.#posted;
    this.#posted = [];
    return posted;
  }

  #startReplay(): void {
    if (!this.#recording || this.#replay) return;
    const { auditEveryEvents, seed, vcpus } = this.#config;
    this.#replay = startReplay(
      this.#recording,
      {
        folios: this.system.folios,
        ram: this.system.ram,
        vcpus,
        startNs: this.#scheduler.now,
        prng: new Prng(seed).split('in-place'),
      },
      auditEveryEvents > 0
        ? { audit: { everyEvents: auditEveryEvents, run: () => this.#mustBeSound() } }
        : {},
    );
    this.#scheduler.setWorkload(this.#replay.workload);
    this.#log.add(this.#scheduler.now, 'replay', { events: this.#recording.events.count });
  }

  /** Named counters; those of Linux have the names of /proc/vmstat. */
  statistics(): Record<string, number> {
    const counters: Record<string, number> = {
      now_ns: this.#scheduler.now,
      kthread_cpu_ns: this.#scheduler.kthreadCpuNs,
      ...this.system.statistics(),
      ...this.#console.counters,
      peak_rss_bytes: process.resourceUsage().maxRSS * 1024,
    };
    for (const part of [...this.#commands.counters, ...(this.#replay?.counters ?? [])]) {
      Object.assign(counters, part);
    }
    return counters;
  }

  #mustBeSound(): void {
    const [problem] = this.system.audit();
    assert(problem === undefined, `the audit finds nothing, found: ${problem}`);
  }
}

function bootKernel({ driver, kcompactd, kernel, users }: System<ChannelTransport>): void {
  driver.start();
  kernel.spawn('kcompactd0', () => kcompactd.run());
  users.start();
}

/** A received `bin` is a view of a buffer that will be reused; the waiting thread runs later. */
function copied(message: Message): Message {
  return message.name === 'config' ? { ...message, data: message.data.slice() } : message;
}

function unexpected(message: Message): BallastError {
  return new BallastError('MESSAGE_UNEXPECTED', `the guest did not expect ${message.name}`);
}
