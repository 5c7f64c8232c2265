/**
 * The guest's processor between two frames of the host: runs until the granted time, until a queue
 * was notified and its latency is over, or into a register that only the device can answer.
 *
 * The processor works in slices of about a millisecond and overshoots by up to one; what it is ahead
 * is not reported, and the next grant is shorter by it. An exit for a register always comes before
 * the end of the grant, so the host completes it before it does anything else.
 */
import { ExitReason, type Message } from '../../protocol/index.ts';
import { BallastError, type Nanoseconds, NS_PER_MS } from '../../shared/index.ts';
import type { FramePort } from './frame-port.ts';
import type { X86Machine } from './x86-machine.ts';

/** Slices between two turns of the event loop, on which translated code arrives. */
const SLICES_PER_TURN = 4;

export interface CpuLoopParts {
  readonly machine: Pick<X86Machine, 'nowMs' | 'runSlice'>;
  readonly port: FramePort;
  /** What the guest tells the host, for the frame that goes out now. */
  drain(): Message[];
  /**
   * A message that came while the processor waits in the middle of an instruction. Its reply, or
   * null for a posted one.
   * @throws BallastError MESSAGE_UNEXPECTED when it cannot be answered there.
   */
  answer(message: Message): Message | null;
}

export class CpuLoop {
  readonly #parts: CpuLoopParts;
  /** Machine time at the host's time 0, ms. */
  readonly #originMs: number;
  /** What the host was told last. */
  #reportedNs: Nanoseconds = 0;
  #untilNs: Nanoseconds = 0;
  #notifyNs: Nanoseconds = 0;
  #notified = false;
  #running = false;

  /** `startNs` is the host's time now. */
  constructor(parts: CpuLoopParts, startNs: Nanoseconds) {
    this.#parts = parts;
    this.#reportedNs = startNs;
    this.#originMs = parts.machine.nowMs - startNs / NS_PER_MS;
  }

  /** The processor's own time, ahead of what was reported by up to a slice. */
  get nowNs(): Nanoseconds {
    return Math.round((this.#parts.machine.nowMs - this.#originMs) * NS_PER_MS);
  }

  get reportedNs(): Nanoseconds {
    return this.#reportedNs;
  }

  /** Runs the processor; the messages of the exit. */
  async run(message: Message<'run'>): Promise<Message[]> {
    const { machine } = this.#parts;
    this.#grant(message);
    this.#running = true;
    for (let slices = 1; this.nowNs < this.#untilNs; slices++) {
      machine.runSlice(this.#originMs + this.#untilNs / NS_PER_MS);
      if (slices % SLICES_PER_TURN === 0) await turn();
    }
    this.#running = false;
    return [...this.#parts.drain(), this.#exit(this.#untilNs, this.#notified)];
  }

  /** A queue was notified: the grant ends soon. Returns the time for its chains. */
  notified(): Nanoseconds {
    const nowNs = Math.min(this.nowNs, this.#untilNs);
    this.#notified = true;
    this.#untilNs = Math.min(this.#untilNs, nowNs + this.#notifyNs);
    return nowNs;
  }

  /** Asks the device; the processor stands in the middle of an instruction until it has answered. */
  access(request: Message): Message {
    const { port, drain, answer } = this.#parts;
    if (!this.#running) {
      throw new BallastError('MESSAGE_UNEXPECTED', `${request.name}: the vCPU has not been run`);
    }
    const atNs = Math.max(this.#reportedNs, Math.min(this.nowNs, this.#untilNs - 1));
    port.reply([...drain(), request, this.#exitFor(atNs)]);
    let reply: Message | null = null;
    for (;;) {
      const replies: Message[] = [];
      for (const message of port.receiveNow()) {
        if (message.name === 'run') {
          if (reply === null) throw unexpected('run', 'before the answer to a device access');
          this.#grant(message);
          return reply;
        }
        if (isDeviceReply(message)) reply = message;
        else {
          const own = answer(message);
          if (own) replies.push(own);
        }
      }
      port.reply(replies);
    }
  }

  #grant({ until_ns, notify_ns }: Message<'run'>): void {
    this.#untilNs = until_ns;
    this.#notifyNs = notify_ns;
    this.#notified = false;
  }

  #exitFor(atNs: Nanoseconds): Message<'exit'> {
    return { ...this.#exit(atNs, false), reason: ExitReason.ACCESS };
  }

  #exit(atNs: Nanoseconds, notified: boolean): Message<'exit'> {
    this.#reportedNs = atNs;
    const reason = notified ? ExitReason.NOTIFY : ExitReason.UNTIL;
    // A real kernel's timers are its own: it may always have something to do.
    return { name: 'exit', at_ns: atNs, reason, idle_until_ns: 0 };
  }
}

function isDeviceReply({ name }: Message): boolean {
  return (
    name === 'deviceInfo' ||
    name === 'deviceFeatures' ||
    name === 'status' ||
    name === 'config' ||
    name === 'queue'
  );
}

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

function unexpected(name: string, when: string): BallastError {
  return new BallastError('MESSAGE_UNEXPECTED', `${name}: ${when}`);
}
