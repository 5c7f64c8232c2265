/** Starts the other processes of a benchmark and hears from them. */
import { type ChildProcess, fork } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { fileURLToPath } from 'node:url';
import type { Address } from '../../protocol/index.ts';

export type Start =
  | {
      readonly role: 'channel';
      readonly address: Address;
      readonly recordSizeBytes: number;
      /** Where the same process echoes raw bytes: it wakes up as fast for the one as for the other. */
      readonly rawPath: string;
    }
  | {
      readonly role: 'guest';
      readonly address: Address;
      readonly ramPages: number;
      /** Leaves every other frame free, none beside another: only order-0 blocks. */
      readonly fragmented: boolean;
    }
  | { readonly role: 'host'; readonly address: Address; readonly measure: 'hints' | 'balloon' };

/** What the host process of the balloon benchmarks measured; times are wall time. */
export type Measured =
  | { readonly kind: 'hints'; readonly hints: number; readonly ms: number }
  | {
      readonly kind: 'balloon';
      readonly pages: number;
      readonly inflateMs: number;
      readonly deflateMs: number;
    };

const ENTRY = fileURLToPath(new URL('./entry.ts', import.meta.url));

export class BenchProcess implements Disposable {
  readonly #child: ChildProcess;
  readonly #received: unknown[] = [];
  #waiting: { resolve(message: unknown): void; reject(error: Error): void } | null = null;
  #ended: Error | null = null;

  constructor(start: Start) {
    this.#child = fork(ENTRY, { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
    this.#child.on('message', (message) => {
      if (this.#waiting) this.#waiting.resolve(message);
      else this.#received.push(message);
      this.#waiting = null;
    });
    this.#child.once('exit', (code) => {
      this.#ended = new Error(`the ${start.role} process ended with status ${code}`);
      this.#waiting?.reject(this.#ended);
    });
    this.#child.send(start);
  }

  /** Its next message. Rejects when it ends instead. */
  next(): Promise<unknown> {
    if (this.#received.length > 0) return Promise.resolve(this.#received.shift());
    if (this.#ended) return Promise.reject(this.#ended);
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
    });
  }

  [Symbol.dispose](): void {
    this.#child.kill('SIGKILL');
  }
}

/** A unix socket path in a folder of its own, removed at the end. */
export function temporarySocket(): { readonly path: string } & Disposable {
  const folder = mkdtempSync(`${tmpdir()}/ballast-bench-`);
  return {
    path: `${folder}/s`,
    [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }),
  };
}
