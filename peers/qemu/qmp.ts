/**
 * Client of QMP (qemu docs/interop/qmp-spec): one JSON object a line. Integers that a double does
 * not hold (an unset statistic is 2^64−1) arrive as bigint.
 */
import type { Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { DEATH_AFTER_CLOSE_MS } from './qtest.ts';

export type QmpValue =
  | null
  | boolean
  | number
  | bigint
  | string
  | readonly QmpValue[]
  | { readonly [key: string]: QmpValue };
export type QmpObject = { readonly [key: string]: QmpValue };

export interface QmpEvent {
  readonly event: string;
  readonly data: QmpObject;
}

interface Reply {
  readonly QMP?: QmpObject;
  readonly id?: number;
  readonly return?: QmpValue;
  readonly error?: { readonly class: string; readonly desc: string };
  readonly event?: string;
  readonly data?: QmpObject;
}

interface Waiter {
  readonly command: string;
  readonly resolve: (value: QmpValue) => void;
  readonly reject: (error: Error) => void;
}

/** A number that JSON.parse would round, as a value of its own. */
const BIG = /([:[,]\s*)(-?\d{16,})(?=\s*[,}\]])/g;
const BIG_MARK = 'big integer ';

export function parseQmp(line: string): unknown {
  const marked = line.replace(BIG, (_all, before: string, digits: string) => {
    return Number.isSafeInteger(Number(digits))
      ? `${before}${digits}`
      : `${before}"${BIG_MARK}${digits}"`;
  });
  return JSON.parse(marked, (_key, value: unknown) =>
    typeof value === 'string' && value.startsWith(BIG_MARK)
      ? BigInt(value.slice(BIG_MARK.length))
      : value,
  );
}

export class QmpClient {
  /** What the machine told us unasked, oldest first; the latest ones. */
  readonly events: QmpEvent[] = [];
  onEvent: ((event: QmpEvent) => void) | null = null;
  readonly #socket: Socket;
  readonly #waiting = new Map<number, Waiter>();
  readonly #greeted: Promise<void>;
  #onGreeting: () => void = () => undefined;
  #nextId = 1;
  #failure: Error | null = null;

  constructor(socket: Socket) {
    this.#socket = socket;
    this.#greeted = new Promise((resolve) => {
      this.#onGreeting = resolve;
    });
    createInterface({ input: socket }).on('line', (line) => this.#onLine(line));
    socket.on('error', () => undefined);
    // How the process ended says more, if it did.
    const closed = (): void => this.fail(new Error('QEMU closed the QMP connection'));
    socket.on('close', () => setTimeout(closed, DEATH_AFTER_CLOSE_MS).unref());
  }

  /** Greeting and qmp_capabilities: from here on commands are taken. */
  async negotiate(): Promise<void> {
    await this.#greeted;
    await this.execute('qmp_capabilities');
  }

  /** @throws Error with QEMU's own description. */
  execute<T extends QmpValue>(command: string, args: QmpObject = {}): Promise<T> {
    return new Promise((resolve, reject) => {
      if (this.#failure) return reject(this.#failure);
      const id = this.#nextId++;
      this.#waiting.set(id, { command, resolve: resolve as Waiter['resolve'], reject });
      this.#socket.write(`${JSON.stringify({ execute: command, arguments: args, id })}\n`);
    });
  }

  fail(error: Error): void {
    this.#failure ??= error;
    for (const { reject } of this.#waiting.values()) reject(this.#failure);
    this.#waiting.clear();
    this.#onGreeting();
  }

  close(): void {
    this.fail(new Error('the QMP connection was closed'));
    this.#socket.destroy();
  }

  #onLine(line: string): void {
    const reply = parseQmp(line) as Reply;
    if (reply.QMP) this.#onGreeting();
    if (reply.event !== undefined) this.#onEvent(reply.event, reply.data ?? {});
    const waiter = this.#waiting.get(reply.id ?? -1);
    if (!waiter) return;
    this.#waiting.delete(reply.id ?? -1);
    if (reply.error) waiter.reject(new Error(`QMP ${waiter.command}: ${reply.error.desc}`));
    else waiter.resolve(reply.return ?? null);
  }

  #onEvent(event: string, data: QmpObject): void {
    if (this.events.length >= 1024) this.events.shift();
    const happened = { event, data };
    this.events.push(happened);
    this.onEvent?.(happened);
  }
}
