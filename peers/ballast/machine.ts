/**
 * Our guest on our own device: this process holds the guest and a test's threads, another one is
 * the host, and between them is the channel. Time is virtual.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Guest } from '../../guest/machine/guest.ts';
import type { System } from '../../guest/machine/system.ts';
import type { Kthread } from '../../guest/sched/kthread.ts';
import type { ChannelTransport } from '../../guest/virtio/channel-transport.ts';
import {
  CONFIG_VECTOR,
  connect,
  type DeviceConfig,
  type Message,
  serveGuest,
} from '../../protocol/index.ts';
import { DEFAULT_COSTS, NS_PER_MS, NS_PER_S, NS_PER_US, type Pfn } from '../../shared/index.ts';
import type {
  ConformanceMachine,
  InterruptCounts,
  MachineOptions,
} from '../conformance-machine.ts';
import { type DeviceTraits, guiseTraits, traitsOf } from '../device-traits.ts';
import { puppetConfig } from '../puppet.ts';
import { CommandControl } from './control.ts';
import { acquireHost, type HostProcess, releaseHost } from './host-process.ts';

/** How long a condition may take, in virtual time. */
const STUCK_NS = 60 * NS_PER_S;
/** How long we let the machine run between two looks: at first, and at most. */
const FIRST_STEP_NS = 20 * NS_PER_US;
const LAST_STEP_NS = 5 * NS_PER_MS;
const SETTLE_NS = 5 * NS_PER_MS;
const CONNECT_TIMEOUT_MS = 10_000;

/** Whatever a profile offers: a test says what it wants. */
const NOTHING_OFFERED: DeviceConfig = {
  statsVq: true,
  mustTellHost: false,
  deflateOnOom: false,
  freePageHint: false,
  pagePoison: false,
  pageReporting: false,
  indirectDesc: false,
  eventIdx: false,
  ringPacked: false,
  ringReset: false,
};

export class BallastMachine implements ConformanceMachine {
  readonly name = 'ballast';
  readonly traits: DeviceTraits;
  readonly control: CommandControl;
  readonly system: System<ChannelTransport>;
  /** Answers for the guest, message by message; null: the guest answers itself. */
  standIn: ((message: Message) => Message[] | null) | null = null;
  readonly #host: HostProcess;
  readonly #interrupts = { queue: 0, config: 0 };

  private constructor(host: HostProcess, guest: Guest, traits: DeviceTraits) {
    this.#host = host;
    this.traits = traits;
    this.control = new CommandControl(host);
    this.system = guest.system;
  }

  /** `profile`: whose device ours imitates; it is then held to what that one does. */
  static async start(
    options: MachineOptions = {},
    profile: 'ballast' | 'qemu-7.2' = 'ballast',
  ): Promise<BallastMachine> {
    const config = puppetConfig(options);
    const host = acquireHost();
    const folder = mkdtempSync(join(tmpdir(), 'ballast-conformance-'));
    try {
      const device: DeviceConfig = { profile, ...NOTHING_OFFERED, ...options.offers };
      const address = await host.call('listen', {
        seed: config.seed,
        listen: { kind: 'unix', path: join(folder, 'guest.sock') },
        ramPages: config.ramPages,
        device,
        costs: DEFAULT_COSTS,
        logPath: null,
        plant: { acceptLateHints: false },
      });
      const guest = new Guest(config, null, undefined, () => undefined);
      const traits = profile === 'ballast' ? traitsOf('ballast') : guiseTraits();
      const machine = new BallastMachine(host, guest, traits);
      const socket = await connect(address, CONNECT_TIMEOUT_MS);
      serveGuest(socket, (messages) => machine.#serve(guest, messages), guest.facts);
      await host.call('accept', null);
      return machine;
    } catch (error) {
      releaseHost(host, false);
      throw error;
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }

  get transport(): ChannelTransport {
    return this.system.transport;
  }

  get ramPages(): number {
    return this.system.ram.pageCount;
  }

  /** Those of the host that the device's hand on the ring found that the driver does not want are none. */
  get interrupts(): InterruptCounts {
    const { queue, config } = this.#interrupts;
    return { queue: queue - this.transport.counters.suppressed_irqs, config };
  }

  async run<T>(body: () => Kthread<T>): Promise<T> {
    let result: { readonly value: T } | null = null;
    this.system.kernel.spawn('test', function* () {
      result = { value: yield* body() };
    });
    await this.wake();
    await this.until(() => result !== null, 'a thread of the test');
    return (result as unknown as { readonly value: T }).value;
  }

  /** A guest that said it was idle is left alone until something from outside wakes it. */
  async wake(): Promise<void> {
    await this.#host.call('console', { line: 'wake' });
  }

  async until(condition: () => boolean | Promise<boolean>, what: string): Promise<void> {
    let stepNs = FIRST_STEP_NS;
    for (let passedNs = 0; ; passedNs += stepNs) {
      await this.control.advanceFor(stepNs);
      if (await condition()) return;
      if (passedNs > STUCK_NS) throw new Error(`not over after ${STUCK_NS} ns: ${what}`);
      stepNs = Math.min(2 * stepNs, LAST_STEP_NS);
    }
  }

  settle(): Promise<void> {
    return this.control.advanceFor(SETTLE_NS);
  }

  fill(pfn: Pfn, pageCount: number, word: number): void {
    for (let i = pfn; i < pfn + pageCount; i++) this.system.ram.setRecord(i, word);
  }

  async contentOf(pfn: Pfn): Promise<number> {
    // What the host has posted comes with its next request.
    await this.control.actualPages();
    return this.system.ram.tags[pfn]!;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const finished = await this.#host.call('finish', null).catch(() => null);
    releaseHost(this.#host, finished !== null);
  }

  #serve(guest: Guest, messages: Message[]): Message[] {
    for (const message of messages) {
      if (message.name === 'configChanged') this.#interrupts.config++;
      if (message.name !== 'irq') continue;
      if (message.vector === CONFIG_VECTOR) this.#interrupts.config++;
      else this.#interrupts.queue++;
    }
    const { standIn } = this;
    if (!standIn) return guest.handle(messages);
    return messages.flatMap((message) => standIn(message) ?? guest.handle([message]));
  }
}
