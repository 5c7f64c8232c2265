/**
 * Our guest on QEMU's balloon device. Time is real: a thread that sleeps for long does so on the
 * clock of the wall, while the CPU time of the emulated kernel, which nobody spends, is skipped.
 */
import { applyFreshBoot } from '../../guest/machine/initial-state.ts';
import { System } from '../../guest/machine/system.ts';
import type { Kthread } from '../../guest/sched/kthread.ts';
import { Scheduler } from '../../guest/sched/scheduler.ts';
import { assert, EventLog, NO_PLANTS, NS_PER_MS, type Pfn, pfnToGpa } from '../../shared/index.ts';
import type {
  ConformanceMachine,
  InterruptCounts,
  MachineOptions,
} from '../conformance-machine.ts';
import { type DeviceTraits, traitsOf } from '../device-traits.ts';
import { puppetConfig } from '../puppet.ts';
import { QmpControl } from './control.ts';
import { MmioRegisters } from './mmio.ts';
import { PciRegisters } from './pci.ts';
import {
  QemuProcess,
  type QemuProgram,
  type QemuRunOptions,
  type QemuTransport,
} from './process.ts';
import type { VirtioRegisters } from './registers.ts';
import { QtestTransport } from './transport.ts';

/** Virtual time that passes at once, since it is CPU time of the emulated kernel. */
const SKIPPED_NS = NS_PER_MS;
/** How long a condition may take. */
const STUCK_MS = 10_000;
/** What QEMU's iothread and timers need at most for anything that is under way. */
const SETTLE_MS = 25;
const POLL_PAUSE_MS = 1;

export class QemuMachine implements ConformanceMachine {
  readonly name: string;
  readonly traits: DeviceTraits;
  readonly control: QmpControl;
  readonly system: System<QtestTransport>;
  readonly registers: VirtioRegisters;
  readonly #qemu: QemuProcess;
  readonly #scheduler: Scheduler;
  readonly #startMs = performance.now();
  /** Virtual time ahead of real time. */
  #skippedNs = 0;
  #polledAtNs = 0;

  private constructor(
    qemu: QemuProcess,
    registers: VirtioRegisters,
    transport: QemuTransport,
    options: MachineOptions,
  ) {
    const config = puppetConfig(options);
    this.name = `qemu ${registers.name}`;
    this.traits = traitsOf(transport === 'mmio' ? 'qemu-mmio' : 'qemu-pci');
    this.registers = registers;
    this.control = new QmpControl(qemu, config.ramPages);
    this.#qemu = qemu;
    this.#scheduler = new Scheduler(config.vcpus);
    this.system = new System(config, {
      createTransport: (kernel) => new QtestTransport(kernel, registers),
      scheduler: this.#scheduler,
      log: new EventLog(),
      post: (message) => assert(false, `nobody takes ${message.name} without a channel`),
      plants: NO_PLANTS,
      tracer: null,
      isExplored: false,
    });
    applyFreshBoot(this.system.mm, this.system.ram);
  }

  static async start(
    program: QemuProgram,
    transport: QemuTransport,
    options: MachineOptions = {},
    run: QemuRunOptions = {},
  ): Promise<QemuMachine> {
    const { offers = {} } = options;
    const qemu = await QemuProcess.start(program, {
      ...run,
      transport,
      ramPages: puppetConfig(options).ramPages,
      balloon: {
        freePageHint: offers.freePageHint === true,
        freePageReporting: offers.pageReporting === true,
        pagePoison: offers.pagePoison === true,
        deflateOnOom: offers.deflateOnOom === true,
        packed: offers.ringPacked === true,
        eventIdx: offers.eventIdx === true,
        indirectDesc: offers.indirectDesc === true,
        queueReset: offers.ringReset === true,
      },
    });
    const registers =
      transport === 'mmio' ? new MmioRegisters(qemu.qtest) : new PciRegisters(qemu.qtest);
    await registers.setup();
    return new QemuMachine(qemu, registers, transport, options);
  }

  get transport(): QtestTransport {
    return this.system.transport;
  }

  get ramPages(): number {
    return this.system.ram.pageCount;
  }

  get interrupts(): InterruptCounts {
    const { queue_interrupts: queue, config_interrupts: config } = this.transport.counters;
    return { queue, config };
  }

  async run<T>(body: () => Kthread<T>): Promise<T> {
    let result: { readonly value: T } | null = null;
    this.system.kernel.spawn('test', function* () {
      result = { value: yield* body() };
    });
    await this.#pumpUntil(() => result !== null, 'a thread of the test');
    return (result as unknown as { readonly value: T }).value;
  }

  async until(condition: () => boolean | Promise<boolean>, what: string): Promise<void> {
    await this.#pumpUntil(condition, what);
  }

  async settle(): Promise<void> {
    const endMs = performance.now() + SETTLE_MS;
    await this.#pumpUntil(() => performance.now() >= endMs, 'a moment');
    await this.#qemu.qmp.execute('query-status');
    await this.#pumpUntil(() => true, 'a moment');
  }

  fill(pfn: Pfn, pageCount: number, word: number): void {
    for (let i = pfn; i < pfn + pageCount; i++) {
      this.system.ram.setRecord(i, word);
      this.registers.qtest.write32(pfnToGpa(i), word);
    }
  }

  contentOf(pfn: Pfn): Promise<number> {
    return this.registers.qtest.read32(pfnToGpa(pfn));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.control.close();
    await this.#qemu[Symbol.asyncDispose]();
  }

  async #pumpUntil(condition: () => boolean | Promise<boolean>, what: string): Promise<void> {
    const endMs = performance.now() + STUCK_MS;
    for (;;) {
      await this.#runGuest();
      if (await condition()) return;
      if (performance.now() > endMs) throw new Error(`not over after ${STUCK_MS} ms: ${what}`);
    }
  }

  /** Everything that is due, and then one look at the device. */
  async #runGuest(): Promise<void> {
    const scheduler = this.#scheduler;
    for (;;) {
      const stop = scheduler.run(this.#nowNs(), 0);
      if (stop.kind === 'access') {
        scheduler.completeAccess(await this.transport.answer(stop.message));
        continue;
      }
      const aheadNs = scheduler.idleUntil - this.#nowNs();
      if (aheadNs > SKIPPED_NS || scheduler.now - this.#polledAtNs > SKIPPED_NS) break;
      this.#skippedNs += Math.max(0, Math.ceil(aheadNs));
    }
    this.#polledAtNs = scheduler.now;
    if (await this.transport.poll()) return;
    if (scheduler.idleUntil - this.#nowNs() > SKIPPED_NS) {
      await new Promise((resolve) => setTimeout(resolve, POLL_PAUSE_MS));
    }
  }

  #nowNs(): number {
    return Math.round((performance.now() - this.#startMs) * NS_PER_MS) + this.#skippedNs;
  }
}
