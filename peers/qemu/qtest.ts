/**
 * Client of QEMU's qtest protocol (qemu docs/devel/testing/qtest): lines of text, executed strictly
 * in order, each answered by one line. So what only writes is posted, and only reads are awaited:
 * they see everything that was posted before them.
 */
import type { Socket } from 'node:net';
import type { Gpa } from '../../shared/index.ts';

interface Waiter {
  /** null: posted, nobody waits. */
  readonly resolve: ((answer: string) => void) | null;
  readonly reject: ((error: Error) => void) | null;
  readonly command: string;
}

/** Lines are collected up to so many characters before they go out on their own. */
const FLUSH_CHARS = 1 << 16;
/** A base64 line of more than this makes QEMU's line buffer slow. */
export const CHUNK_BYTES = 1 << 15;

/** How long the end of the process may take to be known after its connections broke. */
export const DEATH_AFTER_CLOSE_MS = 500;

export class QtestClient {
  readonly #socket: Socket;
  readonly #waiting: (Waiter | undefined)[] = [];
  #head = 0;
  #outgoing = '';
  #received = '';
  #flushDue = false;
  #failure: Error | null = null;
  /** Commands so far, for figures. */
  commandCount = 0;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.setEncoding('latin1');
    socket.on('data', (text: string) => this.#onText(text));
    socket.on('error', () => undefined);
    // How the process ended says more, if it did.
    const closed = (): void => this.fail(new Error('QEMU closed the qtest connection'));
    socket.on('close', () => setTimeout(closed, DEATH_AFTER_CLOSE_MS).unref());
  }

  /** Everything that waits, and everything asked later, fails with this. */
  fail(error: Error): void {
    this.#failure ??= error;
    for (const waiter of this.#waiting.splice(this.#head)) waiter?.reject?.(this.#failure);
    this.#waiting.length = 0;
    this.#head = 0;
  }

  /** @throws what has broken the connection. */
  post(command: string): void {
    this.#send({ command, resolve: null, reject: null });
  }

  /** What follows `OK` in the answer. */
  ask(command: string): Promise<string> {
    return new Promise((resolve, reject) => this.#send({ command, resolve, reject }));
  }

  async read8(gpa: Gpa): Promise<number> {
    return Number(await this.ask(`readb ${hex(gpa)}`));
  }

  async read16(gpa: Gpa): Promise<number> {
    return Number(await this.ask(`readw ${hex(gpa)}`));
  }

  async read32(gpa: Gpa): Promise<number> {
    return Number(await this.ask(`readl ${hex(gpa)}`));
  }

  write8(gpa: Gpa, value: number): void {
    this.post(`writeb ${hex(gpa)} ${hex(value)}`);
  }

  write16(gpa: Gpa, value: number): void {
    this.post(`writew ${hex(gpa)} ${hex(value)}`);
  }

  write32(gpa: Gpa, value: number): void {
    this.post(`writel ${hex(gpa)} ${hex(value)}`);
  }

  /** Bytes of guest memory. */
  async readBytes(gpa: Gpa, lengthBytes: number): Promise<Uint8Array> {
    return Buffer.from(await this.ask(`b64read ${hex(gpa)} ${hex(lengthBytes)}`), 'base64');
  }

  writeBytes(gpa: Gpa, data: Uint8Array): void {
    for (let at = 0; at < data.length; at += CHUNK_BYTES) {
      const piece = data.subarray(at, at + CHUNK_BYTES);
      const text = Buffer.from(piece.buffer, piece.byteOffset, piece.length).toString('base64');
      this.post(`b64write ${hex(gpa + at)} ${hex(piece.length)} ${text}`);
    }
  }

  memset(gpa: Gpa, lengthBytes: number, byte: number): void {
    this.post(`memset ${hex(gpa)} ${hex(lengthBytes)} ${hex(byte)}`);
  }

  close(): void {
    this.fail(new Error('the qtest connection was closed'));
    this.#socket.destroy();
  }

  #send(waiter: Waiter): void {
    if (this.#failure) throw this.#failure;
    this.commandCount++;
    this.#waiting.push(waiter);
    this.#outgoing += `${waiter.command}\n`;
    if (this.#outgoing.length >= FLUSH_CHARS) this.#flush();
    if (this.#flushDue) return;
    this.#flushDue = true;
    queueMicrotask(() => {
      this.#flushDue = false;
      this.#flush();
    });
  }

  #flush(): void {
    if (this.#outgoing === '' || this.#failure) return;
    this.#socket.write(this.#outgoing, 'latin1');
    this.#outgoing = '';
  }

  #onText(text: string): void {
    const whole = this.#received + text;
    let from = 0;
    for (let end = whole.indexOf('\n'); end >= 0; end = whole.indexOf('\n', from)) {
      this.#onLine(whole.slice(from, end));
      from = end + 1;
    }
    this.#received = whole.slice(from);
  }

  #onLine(line: string): void {
    // Interrupts of an intercepted controller come in between.
    if (line.startsWith('IRQ ')) return;
    const waiter = this.#waiting[this.#head];
    if (!waiter) {
      this.fail(new Error(`qtest: an answer that nobody asked for: ${line}`));
      return;
    }
    this.#waiting[this.#head++] = undefined;
    if (this.#head === this.#waiting.length || this.#head > 4096) {
      this.#waiting.splice(0, this.#head);
      this.#head = 0;
    }
    if (line.startsWith('OK')) {
      waiter.resolve?.(line.slice(3));
      return;
    }
    const error = new Error(`qtest: ${waiter.command.slice(0, 80)} was answered with ${line}`);
    if (waiter.reject) waiter.reject(error);
    else this.fail(error);
  }
}

function hex(value: number): string {
  return `0x${value.toString(16)}`;
}
