/**
 * Our host process, commanded over its IPC pipe as the laboratory does it. One process serves one
 * machine after the other: starting Node for each of them would take longer than most tests.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { createRequire } from 'node:module';
import { fileURLToPath, pathToFileURL } from 'node:url';
import type { ControlReply, HostCommandName, HostCommands } from '../../protocol/control.ts';

interface Waiter {
  readonly resolve: (result: never) => void;
  readonly reject: (error: Error) => void;
}

export class HostProcess {
  readonly #process: ChildProcess;
  readonly #waiting = new Map<number, Waiter>();
  #nextId = 1;
  #stderr = '';
  #died: Error | null = null;

  constructor() {
    const loader = createRequire(import.meta.url).resolve('tsx/esm');
    this.#process = fork(fileURLToPath(new URL('../../host/main.ts', import.meta.url)), {
      execArgv: ['--conditions=ballast-source', '--import', pathToFileURL(loader).href],
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
      serialization: 'advanced',
    });
    this.#process.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-4096);
    });
    this.#process.on('message', (message: ControlReply) => this.#onMessage(message));
    this.#process.once('exit', (code, signal) => {
      this.#fail(new Error(`the host process ended (${signal ?? code}): ${this.#stderr.trim()}`));
    });
  }

  get isAlive(): boolean {
    return this.#died === null;
  }

  /** @throws Error: the host's own, or how its process ended. */
  call<N extends HostCommandName>(
    command: N,
    params: HostCommands[N]['params'],
  ): Promise<HostCommands[N]['result']> {
    return new Promise((resolve, reject) => {
      if (this.#died) return reject(this.#died);
      const id = this.#nextId++;
      this.#waiting.set(id, { resolve: resolve as Waiter['resolve'], reject });
      this.#process.send({ id, command, params } as never);
    });
  }

  kill(): void {
    this.#process.kill('SIGKILL');
    this.#fail(new Error('the host process was ended'));
  }

  #onMessage(message: ControlReply): void {
    const waiter = this.#waiting.get(message.id);
    if (!waiter) return;
    this.#waiting.delete(message.id);
    if ('error' in message) waiter.reject(new Error(message.error.message));
    else waiter.resolve(message.result as never);
  }

  #fail(error: Error): void {
    this.#died ??= error;
    for (const { reject } of this.#waiting.values()) reject(this.#died);
    this.#waiting.clear();
  }
}

let idle: HostProcess | null = null;

/** A host process that serves no machine; `release` it when its machine is over. */
export function acquireHost(): HostProcess {
  const host = idle?.isAlive ? idle : new HostProcess();
  idle = null;
  return host;
}

/** `isClean`: its machine ended in order, so that another one can come. */
export function releaseHost(host: HostProcess, isClean: boolean): void {
  if (isClean && host.isAlive && !idle) idle = host;
  else host.kill();
}

/** At the end of a test file. */
export function killIdleHost(): void {
  idle?.kill();
  idle = null;
}
