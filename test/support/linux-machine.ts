/**
 * A real kernel in its process, and the hypervisor in the test's own, within its reach: the channel
 * between them is the real one.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { gunzipSync } from 'node:zlib';
import { Hypervisor } from '../../host/hypervisor.ts';
import { entryArguments } from '../../lab/process/paths.ts';
import {
  type DeviceConfig,
  type GuestLink,
  type Hello,
  type HostConfig,
  hostHello,
  hostLink,
  type LinuxGuestConfig,
  listen,
  type MigrateParams,
  type MigrationReport,
} from '../../protocol/index.ts';
import { Bitmap, DEFAULT_COSTS, MIB, NS_PER_MS, PAGE_SIZE_BYTES } from '../../shared/index.ts';

export const LINUX_MEMORY_BYTES = 192 * MIB;
const RAM_PAGES = LINUX_MEMORY_BYTES / PAGE_SIZE_BYTES;
const SHELL_STEP_MS = 20;
/** Guest time: what a shell is given for one line. */
const SHELL_LIMIT_MS = 600_000;

/** A page that the kernel would fill anyway would hide that it was lost. */
export const NO_INIT = 'init_on_alloc=0';

export interface LinuxMachineOptions {
  readonly kernelArguments?: string;
  readonly device?: DeviceConfig;
  readonly plant?: Partial<HostConfig['plant']>;
}

export class LinuxMachine implements AsyncDisposable {
  hypervisor: Hypervisor;
  readonly #options: LinuxMachineOptions;
  readonly #link: GuestLink;
  readonly #hello: Hello;
  #processes: ChildProcess[];

  static async start(options: LinuxMachineOptions = {}): Promise<LinuxMachine> {
    const { child, link, hello } = await startProcess(options);
    return new LinuxMachine(options, child, link, hello);
  }

  private constructor(
    options: LinuxMachineOptions,
    child: ChildProcess,
    link: GuestLink,
    hello: Hello,
  ) {
    this.#options = options;
    this.#processes = [child];
    this.#link = link;
    this.#hello = hello;
    this.hypervisor = this.#newHypervisor(options.device ?? { freePageHint: true }, 0);
  }

  /** Another device sits in the slot, as reset as any: for a guest whose driver is not loaded. */
  replaceDevice(device: DeviceConfig): void {
    this.hypervisor = this.#newHypervisor(device, this.hypervisor.vmm.now);
  }

  #newHypervisor(device: DeviceConfig, startNs: number): Hypervisor {
    return new Hypervisor(this.#link, this.#hello, {
      seed: 1,
      listen: { kind: 'unix', path: '' },
      ramPages: RAM_PAGES,
      device,
      costs: DEFAULT_COSTS,
      startNs,
      logPath: null,
      plant: { acceptLateHints: false, ...this.#options.plant },
    });
  }

  /** Types a line for the shell and returns what it printed. */
  async shell(line: string, limitMs = SHELL_LIMIT_MS): Promise<readonly string[]> {
    const { hypervisor } = this;
    const endNs = hypervisor.vmm.now + limitMs * NS_PER_MS;
    hypervisor.console(line);
    const printed: string[] = [];
    while (hypervisor.vmm.now < endNs) {
      const { pending, lines } = await hypervisor.readConsole();
      printed.push(...lines);
      if (pending === 0 && lines.length === 0) return printed;
      if (pending > 0) await this.waitMs(SHELL_STEP_MS);
    }
    throw new RangeError(`not over in time: ${line}`);
  }

  /** Guest time. */
  async waitMs(ms: number): Promise<void> {
    const { vmm } = this.hypervisor;
    await vmm.advanceTo(vmm.now + ms * NS_PER_MS);
  }

  /** Guest time passes until it holds; false: not within `limitMs`. */
  async until(holds: () => boolean | Promise<boolean>, limitMs = 20_000): Promise<boolean> {
    for (let ms = 0; ms < limitMs; ms += 20) {
      if (await holds()) return true;
      await this.waitMs(20);
    }
    return holds();
  }

  /** The pages that have a flag in /proc/kpageflags, by its bit number. */
  async pagesWith(...bits: number[]): Promise<Bitmap[]> {
    const dump =
      'cat /proc/kpageflags >/tmp/.kpf; gzip -1 -c /tmp/.kpf | base64 -w 4000; rm /tmp/.kpf';
    const bytes = gunzipSync(Buffer.from((await this.shell(dump)).join(''), 'base64'));
    return bits.map((bit) => {
      const pages = new Bitmap(RAM_PAGES);
      // The kernel says nothing of frames that the BIOS kept to itself.
      for (let pfn = 0; pfn * 8 < bytes.length; pfn++) {
        if ((bytes.readUInt32LE(pfn * 8) & (1 << bit)) !== 0) pages.set(pfn);
      }
      return pages;
    });
  }

  migrate(params: MigrateParams): Promise<MigrationReport> {
    return this.hypervisor.migrate(params);
  }

  [Symbol.asyncDispose](): Promise<void> {
    const ended = this.#processes.map((child) => {
      const gone = new Promise<void>((resolve) => child.once('exit', () => resolve()));
      if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve();
      child.kill('SIGKILL');
      return gone;
    });
    return Promise.all(ended).then(() => undefined);
  }
}

async function startProcess({
  kernelArguments = NO_INIT,
}: LinuxMachineOptions): Promise<{ child: ChildProcess; link: GuestLink; hello: Hello }> {
  const folder = mkdtempSync(`${tmpdir()}/ballast-`);
  try {
    const listener = await listen({ kind: 'unix', path: `${folder}/guest.sock` });
    const child = spawn(process.execPath, entryArguments('linux'), {
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
      serialization: 'advanced',
    });
    const config: LinuxGuestConfig = {
      ramPages: RAM_PAGES,
      kernelArguments,
      keepBooted: true,
    };
    child.send({ connect: listener.address, config } as never);
    const died = new Promise<never>((_, reject) => {
      child.once('exit', (code) => reject(new Error(`the guest's process ended: ${code}`)));
    });
    died.catch(() => undefined);
    const socket = await Promise.race([listener.accept(), died]);
    await listener.close();
    const link = hostLink(socket);
    return { child, link, hello: await hostHello(link) };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
