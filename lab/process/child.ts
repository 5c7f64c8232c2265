import { type ChildProcess, type Serializable, spawn } from 'node:child_process';
import { BallastError, ExitStatus } from '../../shared/index.ts';
import { entryArguments } from './paths.ts';

/**
 * A process that we started: one of the two of a machine, or a worker of the explorer. Its IPC pipe
 * carries the laboratory's commands; when we die the pipe breaks and the process ends by itself, and
 * when it dies we say how.
 */

/** `linux`: a guest that is a real kernel. */
export type Role = 'host' | 'guest' | 'linux' | 'explorer';

/** Arguments for Node that start a process; tests put stand-ins here. */
export type Entries = (role: Role) => string[];

export interface Death {
  readonly role: Role;
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  /** What it said last on stderr, one line. */
  readonly lastWords: string;
}

const STDERR_KEPT_CHARS = 4096;
/** A process that was asked to end and does not is killed after this long. */
const KILL_AFTER_MS = 1000;
/** How long its last words may take to arrive. */
const OUTPUT_AFTER_EXIT_MS = 200;

export class Child {
  readonly role: Role;
  /** Resolves when the process has ended and all its output was read. */
  readonly died: Promise<Death>;
  death: Death | null = null;
  readonly #process: ChildProcess;
  #stderr = '';

  constructor(
    role: Role,
    onMessage: (message: unknown) => void,
    entries: Entries = entryArguments,
  ) {
    this.role = role;
    this.#process = spawn(process.execPath, entries(role), {
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
      serialization: 'advanced',
    });
    this.#process.on('message', onMessage);
    this.#process.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-STDERR_KEPT_CHARS);
    });
    this.died = new Promise((resolve) => {
      const end = (code: number | null, signal: NodeJS.Signals | null, words?: string) => {
        this.death ??= { role, code, signal, lastWords: words ?? lastLine(this.#stderr) };
        resolve(this.death);
      };
      // Not 'close': it never comes when the IPC pipe was disconnected from our side.
      this.#process.once('exit', (code, signal) => {
        const stderr = this.#process.stderr;
        if (!stderr || stderr.closed) return end(code, signal);
        const timer = setTimeout(() => end(code, signal), OUTPUT_AFTER_EXIT_MS);
        stderr.once('close', () => {
          clearTimeout(timer);
          end(code, signal);
        });
      });
      this.#process.once('error', (error) => {
        if (this.#process.pid === undefined) end(null, null, error.message);
      });
    });
  }

  get pid(): number {
    return this.#process.pid ?? -1;
  }

  /** A message to a process that is gone is dropped: its death is what the caller will hear of. */
  send(message: Serializable): void {
    if (this.#process.connected) this.#process.send(message, () => {});
  }

  /** Ends the process, politely first; resolves when it is gone. */
  async stop(): Promise<void> {
    if (this.death) return;
    if (this.#process.connected) this.#process.disconnect();
    const timer = setTimeout(() => this.kill(), KILL_AFTER_MS);
    await this.died;
    clearTimeout(timer);
  }

  /** At once, without waiting: for the end of our own process. */
  kill(): void {
    if (!this.death) this.#process.kill('SIGKILL');
  }
}

/** `host process died: killed by SIGKILL`. */
export function describeDeath(death: Death): BallastError {
  // It had nothing to start with, and said what the user can do about it.
  if (death.code === ExitStatus.BAD_INPUT && death.lastWords) {
    return new BallastError('BAD_INPUT', death.lastWords.replace(/^ballast \w+: /, ''));
  }
  const how = death.signal
    ? `killed by ${death.signal}`
    : death.code === null
      ? 'could not be started'
      : `exit status ${death.code}`;
  const words = death.lastWords ? ` (${death.lastWords})` : '';
  return new BallastError('PEER_CLOSED', `${death.role} process died: ${how}${words}`);
}

/** Of what a process wrote on stderr: its error line, not the frames of a stack below it. */
function lastLine(text: string): string {
  const lines = text.split('\n').map((line) => line.trim());
  const telling = lines.filter(
    (line) => line && !line.startsWith('at ') && !/^Node\.js v/.test(line),
  );
  const error =
    telling.findLast((line) => /error|must hold|ballast/i.test(line)) ?? telling.at(-1) ?? '';
  return error.length > 200 ? `${error.slice(0, 199)}…` : error;
}
