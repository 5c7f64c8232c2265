/**
 * A QEMU process whose vCPU halts at once, or does what we say, so that the machine is ours: devices and memory over
 * qtest, everything else over QMP. QEMU connects to sockets that we listen on. It does not end with
 * its peers, so it is killed when we end.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PAGE_SIZE_BYTES } from '../../shared/index.ts';
import { QmpClient } from './qmp.ts';
import { QtestClient } from './qtest.ts';

/** Where QEMU is and what it needs to run (peers/fetch says it). */
export interface QemuProgram {
  readonly binary: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Firmware and option ROMs, `-L`; null: as it was built. */
  readonly dataDir?: string | null;
}

export type QemuTransport = 'mmio' | 'pci';

/** Properties of `virtio-balloon-device` and `virtio-balloon-pci`; what is left out is off. */
export interface QemuBalloonProperties {
  readonly freePageHint?: boolean;
  readonly freePageReporting?: boolean;
  readonly deflateOnOom?: boolean;
  readonly pagePoison?: boolean;
  readonly packed?: boolean;
  readonly eventIdx?: boolean;
  readonly indirectDesc?: boolean;
  readonly queueReset?: boolean;
}

/** As `-accel` has it. */
export type QemuAccelerator = 'tcg' | 'kvm' | `kvm,dirty-ring-size=${number}`;

/** How it runs, apart from what the machine is made of. */
export interface QemuRunOptions {
  /** Default: `tcg`. */
  readonly accelerator?: QemuAccelerator;
  /** 64 KiB that end with the reset vector's page. Default: the vCPU halts at once. */
  readonly firmware?: Uint8Array;
  /** Be the destination of a migration that comes to this unix socket. */
  readonly incomingPath?: string;
  /** Default: 20 s. */
  readonly startTimeoutMs?: number;
  /** x-clear-bitmap-shift of migrations; default: QEMU's. */
  readonly clearBitmapShift?: number;
}

export interface QemuOptions extends QemuRunOptions {
  readonly transport: QemuTransport;
  readonly ramPages: number;
  readonly balloon: QemuBalloonProperties;
}

/** QOM path of the device under `id=bal0`. */
export const BALLOON_QOM_PATH = '/machine/peripheral/bal0';

const FIRMWARE = 'firmware.bin';
const FIRMWARE_BYTES = 1 << 16;
/** cli; hlt; jmp: at the reset vector, 16 bytes below the end. */
const HALT_CODE = [0xfa, 0xf4, 0xeb, 0xfd];
const RESET_VECTOR = 0xfff0;
const START_TIMEOUT_MS = 20_000;
const STDERR_KEPT_CHARS = 4096;

export class QemuProcess implements AsyncDisposable {
  readonly qtest: QtestClient;
  readonly qmp: QmpClient;
  /** For sockets of migrations; gone with the process. */
  readonly folder: string;
  readonly #child: RunningChild;

  private constructor(child: RunningChild, qtest: QtestClient, qmp: QmpClient, folder: string) {
    this.#child = child;
    this.qtest = qtest;
    this.qmp = qmp;
    this.folder = folder;
    void child.died.then((how) => {
      qtest.fail(how);
      qmp.fail(how);
    });
  }

  /** @throws Error with the line that QEMU wrote to stderr, if it does not start. */
  static async start(program: QemuProgram, options: QemuOptions): Promise<QemuProcess> {
    const folder = mkdtempSync(join(tmpdir(), 'ballast-qemu-'));
    writeFileSync(join(folder, FIRMWARE), options.firmware ?? haltFirmware());
    const qtestSocket = await oneConnection(join(folder, 'qtest.sock'));
    const qmpSocket = await oneConnection(join(folder, 'qmp.sock'));
    const args = qemuArguments(program, options, folder);
    const child = new RunningChild(program, args, folder, options.startTimeoutMs);
    const close = (): void => {
      qtestSocket.server.close();
      qmpSocket.server.close();
    };
    try {
      const sockets = Promise.all([qtestSocket.connection, qmpSocket.connection]);
      const [first, second] = await child.orDies(sockets);
      const process = new QemuProcess(child, new QtestClient(first), new QmpClient(second), folder);
      await child.orDies(process.qmp.negotiate());
      // What is wrong with a device is said after the greeting.
      await child.orDies(process.qmp.execute('query-status'));
      return process;
    } catch (error) {
      await child.kill();
      throw error;
    } finally {
      close();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.qtest.close();
    this.qmp.close();
    await this.#child.kill();
  }
}

class RunningChild {
  /** Resolves with how the process ended. */
  readonly died: Promise<Error>;
  readonly #process: ChildProcess;
  readonly #folder: string;
  readonly #startTimeoutMs: number;
  #stderr = '';

  constructor(
    program: QemuProgram,
    args: readonly string[],
    folder: string,
    startTimeoutMs = START_TIMEOUT_MS,
  ) {
    this.#folder = folder;
    this.#startTimeoutMs = startTimeoutMs;
    this.#process = spawn(program.binary, args, {
      stdio: ['ignore', 'ignore', 'pipe'],
      env: { ...process.env, ...program.env },
    });
    this.#process.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-STDERR_KEPT_CHARS);
    });
    const onExit = (): void => {
      this.#process.kill('SIGKILL');
      this.#removeFolder();
    };
    process.once('exit', onExit);
    this.died = new Promise((resolve) => {
      this.#process.once('error', (error) => resolve(new Error(`QEMU: ${error.message}`)));
      this.#process.once('close', (code, signal) => {
        process.off('exit', onExit);
        this.#removeFolder();
        resolve(new Error(`QEMU ended (${signal ?? code}): ${firstLine(this.#stderr)}`));
      });
    });
  }

  async orDies<T>(promise: Promise<T>): Promise<T> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      const text = `QEMU did not start in ${this.#startTimeoutMs} ms: ${firstLine(this.#stderr)}`;
      timer = setTimeout(() => reject(new Error(text)), this.#startTimeoutMs);
    });
    const dead = this.died.then((how) => Promise.reject(how));
    try {
      return await Promise.race([promise, dead, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  async kill(): Promise<void> {
    this.#process.kill('SIGKILL');
    await this.died;
  }

  #removeFolder(): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

export function qemuArguments(
  program: QemuProgram,
  options: QemuOptions,
  folder: string,
): readonly string[] {
  const { balloon, transport, ramPages, clearBitmapShift, incomingPath } = options;
  const on = (value: boolean | undefined): string => (value ? 'on' : 'off');
  const properties = [
    transport === 'mmio' ? 'virtio-balloon-device' : 'virtio-balloon-pci',
    'id=bal0',
    `free-page-hint=${on(balloon.freePageHint)}`,
    `free-page-reporting=${on(balloon.freePageReporting)}`,
    `deflate-on-oom=${on(balloon.deflateOnOom)}`,
    `page-poison=${on(balloon.pagePoison)}`,
    `packed=${on(balloon.packed)}`,
    `event_idx=${on(balloon.eventIdx)}`,
    `indirect_desc=${on(balloon.indirectDesc)}`,
    `queue_reset=${on(balloon.queueReset)}`,
    ...(transport === 'pci' ? ['disable-legacy=on', 'disable-modern=off'] : []),
    ...(balloon.freePageHint ? ['iothread=io0'] : []),
  ];
  return [
    ...(program.dataDir ? ['-L', program.dataDir] : []),
    ...['-accel', options.accelerator ?? 'tcg', '-bios', join(folder, FIRMWARE)],
    ...['-nodefaults', '-display', 'none', '-qtest-log', 'none'],
    ...['-qtest', `unix:${join(folder, 'qtest.sock')}`, '-qmp', `unix:${join(folder, 'qmp.sock')}`],
    ...['-M', transport === 'mmio' ? 'microvm' : 'pc'],
    ...['-m', `${(ramPages * PAGE_SIZE_BYTES) / 1024}K`],
    ...['-object', 'iothread,id=io0', '-global', 'virtio-mmio.force-legacy=false'],
    ...['-device', properties.join(',')],
    ...(clearBitmapShift === undefined
      ? []
      : ['-global', `migration.x-clear-bitmap-shift=${clearBitmapShift}`]),
    ...(incomingPath === undefined ? [] : ['-incoming', `unix:${incomingPath}`]),
  ];
}

function haltFirmware(): Uint8Array {
  const firmware = new Uint8Array(FIRMWARE_BYTES).fill(0xf4);
  firmware.set(HALT_CODE, RESET_VECTOR);
  return firmware;
}

/** Listens, and takes one connection. */
async function oneConnection(
  path: string,
): Promise<{ readonly server: Server; readonly connection: Promise<Socket> }> {
  const server = createServer();
  const connection = new Promise<Socket>((resolve) => server.once('connection', resolve));
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, resolve);
  });
  return { server, connection };
}

function firstLine(text: string): string {
  const lines = text.split('\n').map((line) => line.trim());
  return lines.find((line) => line !== '') ?? 'no message';
}
