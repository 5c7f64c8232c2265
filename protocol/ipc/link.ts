/** The end that asks: over a socket, or inside one process with the same encoding and checks. */
import type { Socket } from 'node:net';
import { BallastError } from '../../shared/index.ts';
import type { Sender } from '../message-shape.ts';
import type { Message } from '../messages.ts';
import { decodeFrame, encodeFrame } from './frame.ts';
import { FrameSocket } from './frame-socket.ts';
import { answerAtOnce, type ServedSession } from './session.ts';

/** How long the other side may take to answer bye. */
const BYE_TIMEOUT_MS = 1000;

/** The master's end. */
export interface Link {
  /**
   * Sends one frame; resolves with the messages of its answer, whose `bin` fields are copies.
   * Several may be outstanding. Rejects with BallastError PEER_CLOSED, FRAME_*, MESSAGE_* when the
   * session has broken.
   */
  exchange(messages: readonly Message[]): Promise<Message[]>;
  /** Why the session ended; null after bye. */
  readonly closed: Promise<BallastError | null>;
  /** Says bye and waits for the end. */
  close(): Promise<void>;
}

/** Who is at which end of a link. */
export interface Ends {
  readonly asks: Sender;
  readonly answers: Sender;
}

export const GUEST_ENDS: Ends = { asks: 'host', answers: 'guest' };
export const STREAM_ENDS: Ends = { asks: 'source', answers: 'destination' };

/**
 * A guest that does not answer for so long is given up: nothing it is asked takes minutes, unless
 * its process is stopped or in a loop.
 */
export const REPLY_TIMEOUT_MS = 300_000;

interface Waiter {
  resolve(messages: Message[]): void;
  reject(error: BallastError): void;
}

export class SocketLink implements Link {
  readonly #frames: FrameSocket;
  readonly #peer: Sender;
  #waiting: Waiter[] = [];
  #leaving = false;
  #answerCount = 0;

  constructor(socket: Socket, { answers }: Ends, replyTimeoutMs: number) {
    this.#peer = answers;
    this.#watch(replyTimeoutMs);
    this.#frames = new FrameSocket(socket, {
      peer: answers,
      bins: 'copy',
      onMessages: (messages) => this.#answered(messages),
    });
    this.#frames.closed.then((reason) => {
      for (const { reject } of this.#waiting.splice(0)) reject(reason ?? sessionOver());
    });
  }

  get closed(): Promise<BallastError | null> {
    return this.#frames.closed;
  }

  exchange(messages: readonly Message[]): Promise<Message[]> {
    if (this.#frames.over) {
      return this.#frames.closed.then((reason) => Promise.reject(reason ?? sessionOver()));
    }
    return new Promise((resolve, reject) => {
      // Sent first: what cannot be encoded leaves nobody waiting.
      this.#frames.send(messages);
      this.#waiting.push({ resolve, reject });
    });
  }

  async close(): Promise<void> {
    if (!this.#leaving && !this.#frames.over) {
      this.#leaving = true;
      this.#frames.send([{ name: 'bye' }]);
      const timer = setTimeout(() => this.#frames.finish(), BYE_TIMEOUT_MS);
      await this.#frames.closed;
      clearTimeout(timer);
    }
    await this.#frames.closed;
  }

  /** One timer for the whole session: an exchange must not cost one of its own. */
  #watch(replyTimeoutMs: number): void {
    let seen = -1;
    const timer = setInterval(() => {
      const stuck = this.#waiting.length > 0 && seen === this.#answerCount;
      seen = this.#waiting.length > 0 ? this.#answerCount : -1;
      if (!stuck) return;
      const seconds = replyTimeoutMs / 1000;
      this.#frames.fail(
        new BallastError('PEER_CLOSED', `the ${this.#peer} did not answer for ${seconds} s`),
      );
    }, replyTimeoutMs);
    timer.unref();
    queueMicrotask(() => void this.#frames.closed.then(() => clearInterval(timer)));
  }

  #answered(messages: Message[]): void {
    this.#answerCount++;
    if (messages.at(-1)?.name === 'bye') {
      this.#frames.finish();
      return;
    }
    const waiter = this.#waiting.shift();
    if (waiter === undefined) {
      const names = messages.map(({ name }) => name).slice(0, 4);
      throw new BallastError(
        'MESSAGE_UNEXPECTED',
        `the ${this.#peer} sent ${names.join(', ') || 'a frame'} that nobody asked for`,
      );
    }
    waiter.resolve(messages);
  }
}

export class LocalLink implements Link {
  readonly closed: Promise<BallastError | null>;
  readonly #session: ServedSession;
  readonly #ends: Ends;
  readonly #handler: (messages: Message[]) => Message[];
  #settle: (reason: BallastError | null) => void = () => {};
  #reason: BallastError | null = null;
  #over = false;

  constructor(session: ServedSession, ends: Ends, handler: (messages: Message[]) => Message[]) {
    this.#session = session;
    this.#ends = ends;
    this.#handler = handler;
    this.closed = new Promise((resolve) => {
      this.#settle = resolve;
    });
  }

  async exchange(messages: readonly Message[]): Promise<Message[]> {
    if (this.#over) throw this.#reason ?? sessionOver();
    try {
      const request = encodeFrame(messages);
      const asked = decodeFrame(request, 4, request.length, this.#ends.asks, 'view');
      const replies = answerAtOnce(this.#session, this.#handler, asked);
      const reply = encodeFrame(replies);
      if (this.#session.over) this.#end(null);
      return decodeFrame(reply, 4, reply.length, this.#ends.answers, 'copy');
    } catch (error) {
      this.#end(
        error instanceof BallastError ? error : new BallastError('PEER_CLOSED', `${error}`),
      );
      throw error;
    }
  }

  async close(): Promise<void> {
    if (!this.#over) await this.exchange([{ name: 'bye' }]);
  }

  #end(reason: BallastError | null): void {
    this.#over = true;
    this.#reason = reason;
    this.#settle(reason);
  }
}

function sessionOver(): BallastError {
  return new BallastError('PEER_CLOSED', 'the session has ended');
}
