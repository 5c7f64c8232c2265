import type { Socket } from 'node:net';
import { BallastError, type BallastErrorCode } from '../../shared/index.ts';
import type { Sender } from '../message-shape.ts';
import type { Message } from '../messages.ts';
import {
  type BinMode,
  decodeFrame,
  encodeFrame,
  encodeFrameParts,
  FrameReader,
  MAX_FRAME_BYTES,
} from './frame.ts';
import { HaltPoll } from './halt-poll.ts';
import { receive } from './receiver.ts';
import { clipString } from './validate.ts';

/**
 * Frames of messages over one socket, the same on both ends. Whatever the peer does wrong ends the
 * session once, with one error, and tells the peer why if it still listens.
 */

/** Unread output beyond this stops the reading until the peer has caught up. */
const PAUSE_BYTES = 1024 * 1024;
/** Unread output beyond this ends the session: the peer asks but never reads. */
const MAX_UNREAD_BYTES = 2 * MAX_FRAME_BYTES;
/** Characters of the peer's own words that are told: it chose them. */
const QUOTED_CHARACTERS = 256;
/** How long a farewell may take to be written. */
const LINGER_MS = 500;

export interface FrameSocketOptions {
  /** The side at the other end. */
  readonly peer: Sender;
  readonly bins: BinMode;
  /** Called once a frame; a BallastError it throws ends the session, anything else is our own failure. */
  onMessages(messages: Message[]): void;
}

const sessionCodes: readonly BallastErrorCode[] = [
  'FRAME_MALFORMED',
  'FRAME_TOO_LARGE',
  'MESSAGE_INVALID',
  'MESSAGE_UNEXPECTED',
  'HELLO_MISMATCH',
];

export class FrameSocket {
  /** Null after an orderly end. Never rejects. */
  readonly closed: Promise<BallastError | null>;
  readonly #socket: Socket;
  readonly #options: FrameSocketOptions;
  readonly #reader: FrameReader;
  #settle: (reason: BallastError | null) => void = () => {};
  readonly #poll = new HaltPoll();
  #over = false;
  #socketError: string | null = null;

  constructor(socket: Socket, options: FrameSocketOptions) {
    this.#socket = socket;
    this.#options = options;
    this.closed = new Promise((resolve) => {
      this.#settle = resolve;
    });
    this.#reader = new FrameReader((bytes, start, end) => this.#frame(bytes, start, end));
    socket.on('error', (error: NodeJS.ErrnoException) => {
      this.#socketError ??= error.code ?? error.message;
    });
    socket.on('close', () => this.#lost());
    socket.on('end', () => this.#lost());
    socket.on('drain', () => socket.resume());
    if (socket.destroyed) this.#lost();
    else receive(socket, (bytes) => this.#bytes(bytes));
  }

  get over(): boolean {
    return this.#over;
  }

  /**
   * One write for the whole frame. Does nothing once the session is over. A large `bin` may still be
   * on its way when this returns: do not change it.
   */
  send(messages: readonly Message[]): void {
    if (this.#over) return;
    const parts = encodeFrameParts(messages);
    this.#poll.begin();
    if (this.#write(parts)) return;
    if (this.#socket.writableLength > MAX_UNREAD_BYTES) {
      const unread = this.#socket.writableLength;
      this.fail(
        new BallastError('FRAME_TOO_LARGE', `${unread} bytes wait: the peer does not read`),
      );
    } else if (this.#socket.writableLength > PAUSE_BYTES) this.#socket.pause();
  }

  #write(parts: readonly Uint8Array[]): boolean {
    if (parts.length === 1 && parts[0]) return this.#socket.write(parts[0]);
    let written = true;
    this.#socket.cork();
    for (const part of parts) written = this.#socket.write(part);
    this.#socket.uncork();
    return written;
  }

  /** An orderly end; `messages` are the last frame, if there is one. */
  finish(messages?: readonly Message[]): void {
    if (this.#over) return;
    this.#finishWith(messages, null);
  }

  /** Ends the session with `error`; the peer is told. */
  fail(error: BallastError): void {
    if (this.#over) return;
    this.#finishWith(
      [{ name: 'error', code: error.code, message: clipString(error.message) }],
      error,
    );
  }

  #finishWith(messages: readonly Message[] | undefined, reason: BallastError | null): void {
    this.#over = true;
    const socket = this.#socket;
    const timer = setTimeout(() => socket.destroy(), LINGER_MS);
    timer.unref();
    socket.once('close', () => clearTimeout(timer));
    // What the peer still sends is read and dropped, so that its close is seen.
    socket.resume();
    if (messages) socket.write(encodeFrame(messages));
    socket.end();
    this.#settle(reason);
  }

  #bytes(bytes: Uint8Array): void {
    if (this.#over) return;
    try {
      this.#reader.push(bytes);
    } catch (error) {
      if (!(error instanceof BallastError)) {
        this.fail(new BallastError('PEER_CLOSED', `internal failure: ${error}`));
        throw error;
      }
      this.fail(error);
    }
  }

  #frame(bytes: Uint8Array, start: number, end: number): void {
    if (this.#over) return;
    this.#poll.end();
    const messages = decodeFrame(bytes, start, end, this.#options.peer, this.#options.bins);
    const last = messages.at(-1);
    if (last?.name !== 'error') {
      this.#options.onMessages(messages);
      return;
    }
    this.#over = true;
    this.#socket.destroy();
    const code = sessionCodes.find((known) => known === last.code) ?? 'PEER_CLOSED';
    this.#settle(
      new BallastError(
        code,
        `the ${this.#options.peer} ended the session: ${quoted(last.message)}`,
      ),
    );
  }

  #lost(): void {
    if (this.#over) return;
    this.#over = true;
    const pending = this.#reader.pendingBytes;
    const where = pending > 0 ? `, ${pending} bytes into a frame` : '';
    const why = this.#socketError ? ` (${this.#socketError})` : '';
    this.#socket.destroy();
    this.#settle(
      new BallastError('PEER_CLOSED', `the ${this.#options.peer} closed the channel${where}${why}`),
    );
  }
}

/** One line, whatever the peer wrote, and nothing that a terminal would obey. */
function quoted(text: string): string {
  const line = text.replaceAll(/\p{C}+/gu, ' ').trim();
  return line.length <= QUOTED_CHARACTERS ? line : `${line.slice(0, QUOTED_CHARACTERS - 1)}…`;
}
