/**
 * A real kernel as the guest: answers each frame of the host with one frame, as the emulated guest
 * does, and stands still between two of them.
 */
import type { Message } from '../../protocol/index.ts';
import { BallastError, type Nanoseconds } from '../../shared/index.ts';
import { AgentConsole } from './agent-console.ts';
import { CpuLoop } from './cpu-loop.ts';
import type { FramePort } from './frame-port.ts';
import { X86Memory } from './guest-memory.ts';
import { LinuxOracle } from './oracle.ts';
import { VirtioPci } from './virtio-pci.ts';
import type { X86Machine } from './x86-machine.ts';

export class LinuxGuest {
  readonly pci: VirtioPci;
  readonly memory: X86Memory;
  readonly #machine: X86Machine;
  readonly #port: FramePort;
  readonly #console: AgentConsole;
  readonly #oracle: LinuxOracle;
  #cpu: CpuLoop;
  #posted: Message[] = [];
  /** Its state while memory is being loaded. */
  #processor: Uint8Array | null = null;

  /** `trustsFreePages`: its kernel relies on what free pages hold. */
  constructor(machine: X86Machine, port: FramePort, trustsFreePages: boolean) {
    this.#machine = machine;
    this.#port = port;
    this.memory = new X86Memory(machine, () => this.#oracle.unusedPages());
    this.#console = new AgentConsole(machine);
    this.pci = new VirtioPci({
      memory: this.memory,
      access: (message, expected) => this.#access(message, expected),
      post: (message) => void this.#posted.push(message),
      notified: () => this.#cpu.notified(),
      setIrq: (pciId, raised) => machine.setIrq(pciId, raised),
    });
    machine.registerPci(this.pci.pci, this.pci.initialPort, this.pci);
    this.#oracle = new LinuxOracle(
      machine,
      () => ({ ...this.pci.counters, now_ns: this.#cpu.nowNs }),
      (firstPfn, pageCount) => this.memory.hinted(firstPfn, pageCount),
      trustsFreePages,
    );
    this.#cpu = this.#newLoop(0);
  }

  /** Until the thread ends. */
  async serve(): Promise<never> {
    // The host's time begins now, whatever the machine did before.
    this.#cpu = this.#newLoop(0);
    for (;;) {
      const replies: Message[] = [];
      for (const message of await this.#port.receive()) {
        replies.push(...(await this.#handle(message)));
      }
      this.#port.reply(replies);
    }
  }

  async #handle(message: Message): Promise<Message[]> {
    switch (message.name) {
      case 'run':
        return this.#cpu.run(message);
      case 'loadRam':
        this.#load(message);
        return [];
      default: {
        const reply = this.#answer(message);
        return reply ? [reply] : [];
      }
    }
  }

  /** What can be answered at any instruction. */
  #answer(message: Message): Message | null {
    switch (message.name) {
      case 'used':
      case 'irq':
      case 'configChanged':
        this.pci.receive(message);
        return null;
      case 'console':
        this.#console.enter(message.line);
        return null;
      case 'getConsole':
        return { name: 'consoleOutput', ...this.#console.read() };
      default: {
        const reply = this.memory.handle(message);
        if (reply !== undefined) return reply;
        const truth = this.#oracle.handle(message);
        if (truth === undefined) throw unexpected(message);
        return truth;
      }
    }
  }

  #access<N extends Message['name']>(message: Message, expected: N): Message<N> {
    const reply = this.#cpu.access(message);
    if (reply.name !== expected) throw unexpected(reply);
    return reply as Message<N>;
  }

  #newLoop(startNs: Nanoseconds): CpuLoop {
    return new CpuLoop(
      {
        machine: this.#machine,
        port: this.#port,
        drain: () => this.#drain(),
        answer: (message) => this.#answer(message),
      },
      startNs,
    );
  }

  #drain(): Message[] {
    const posted = this.#posted;
    this.#posted = [];
    const avail = this.pci.drainAvail();
    this.#oracle.hinted(avail);
    this.#console.poll();
    return [...posted, ...avail];
  }

  /**
   * Memory of the destination in place of the source's. What the processor has made of the old one
   * (translated code, page tables that it remembers) goes with a restart from its own state.
   */
  #load(message: Message<'loadRam'>): void {
    this.#processor ??= this.#machine.saveState();
    if (!this.memory.load(message)) return;
    this.#machine.restoreState(this.#processor);
    this.#processor = null;
    this.pci.restoreState(this.pci.saveState());
    this.#cpu = this.#newLoop(this.#cpu.reportedNs);
  }
}

function unexpected(message: Message): BallastError {
  return new BallastError('MESSAGE_UNEXPECTED', `the guest did not expect ${message.name}`);
}
