import type { Socket } from 'node:net';
import { BallastError } from '../../shared/index.ts';
import type { Message } from '../messages.ts';
import { decodeFrame, encodeFrame } from './frame.ts';
import { FrameSocket } from './frame-socket.ts';
import {
  checkHello,
  type GuestFacts,
  guestHelloMessage,
  type Hello,
  hostHelloMessage,
} from './hello.ts';

/**
 * The channel between host and guest. The host is the master: each of its frames is answered by
 * exactly one frame, in order. Over a socket (unix or TCP) or inside one process, with the same
 * encoding and the same checks, so that both give the same run.
 */

/** The host's end. */
export interface GuestLink {
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

/**
 * The guest's end, called once a frame, synchronously. `bin` fields are views that are valid until
 * it returns. A BallastError that it throws ends the session; anything else is the guest's own
 * failure: the host is told, and the error goes on to end the process.
 */
export type GuestHandler = (messages: Message[]) => Message[];

/**
 * A guest whose processors run elsewhere and answer later. Frames are given to it one after the
 * other; the messages are its own to keep. Errors as for a GuestHandler.
 */
export type AsyncGuestHandler = (messages: Message[]) => Promise<Message[]>;

export interface GuestService {
  /** Why the session ended; null after bye. */
  readonly closed: Promise<BallastError | null>;
}

/** How long the guest may take to answer bye. */
const BYE_TIMEOUT_MS = 1000;
const HELLO_TIMEOUT_MS = 10_000;

/** Answers the frames of a host on `socket`; the hello is answered here, with `facts`. */
export function serveGuest(socket: Socket, handler: GuestHandler, facts: GuestFacts): GuestService {
  const session = new GuestSession(facts);
  const frames: FrameSocket = new FrameSocket(socket, {
    peer: 'host',
    bins: 'view',
    onMessages: (messages) => {
      const replies = answerAtOnce(session, handler, messages);
      if (session.over) frames.finish(replies);
      else frames.send(replies);
    },
  });
  return { closed: frames.closed };
}

/** More unanswered frames than this are no pipelining any more. */
const FRAMES_WAITING_MAX = 1024;

/** As `serveGuest`; each frame is answered when the handler has resolved, in order. */
export function serveAsyncGuest(
  socket: Socket,
  handler: AsyncGuestHandler,
  facts: GuestFacts,
): GuestService {
  const session = new GuestSession(facts);
  let waiting = 0;
  let last: Promise<void> = Promise.resolve();
  const answer = async (messages: Message[]): Promise<void> => {
    if (frames.over) return;
    try {
      const { ask, after } = session.admit(messages);
      const replies = ask ? await handler(ask) : [];
      if (session.over) frames.finish([...replies, ...after]);
      else frames.send([...replies, ...after]);
    } catch (error) {
      if (error instanceof BallastError) frames.fail(error);
      else {
        frames.fail(new BallastError('PEER_CLOSED', `internal failure: ${error}`));
        throw error;
      }
    } finally {
      waiting--;
    }
  };
  const frames: FrameSocket = new FrameSocket(socket, {
    peer: 'host',
    bins: 'copy',
    onMessages: (messages) => {
      if (++waiting > FRAMES_WAITING_MAX) {
        throw new BallastError(
          'MESSAGE_UNEXPECTED',
          `expected at most ${FRAMES_WAITING_MAX} frames without their answers`,
        );
      }
      last = last.then(() => answer(messages));
    },
  });
  return { closed: frames.closed };
}

/** The host's end of a connected socket. Call `hostHello` on it first. */
export function hostLink(socket: Socket, replyTimeoutMs = REPLY_TIMEOUT_MS): GuestLink {
  return new SocketLink(socket, replyTimeoutMs);
}

/** Host and guest in one process: no socket, the same encoding and checks. */
export function localLink(handler: GuestHandler, facts: GuestFacts): GuestLink {
  return new LocalLink(new GuestSession(facts), handler);
}

/**
 * The first exchange: what the guest is. Throws BallastError HELLO_MISMATCH if it was built
 * otherwise, PEER_CLOSED if it does not answer in time; the link is closed then.
 */
export async function hostHello(link: GuestLink, timeoutMs = HELLO_TIMEOUT_MS): Promise<Hello> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(new BallastError('PEER_CLOSED', `the guest did not say hello in ${timeoutMs} ms`));
    }, timeoutMs);
  });
  try {
    return checkHello(await Promise.race([link.exchange([hostHelloMessage()]), late]), 'guest');
  } catch (error) {
    await link.close();
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

/** The order of a session as the guest sees it: hello, frames, bye. */
class GuestSession {
  readonly #facts: GuestFacts;
  #greeted = false;
  #over = false;

  constructor(facts: GuestFacts) {
    this.#facts = facts;
  }

  get over(): boolean {
    return this.#over;
  }

  /** What is the handler's of a frame, or null, and the session's own reply that comes after it. */
  admit(messages: Message[]): { ask: Message[] | null; after: Message[] } {
    if (messages.length > 0 && messages.at(-1)?.name === 'bye') {
      this.#over = true;
      const rest = messages.slice(0, -1);
      const { ask, after } =
        rest.length > 0 ? this.#admitInSession(rest) : { ask: null, after: [] };
      return { ask, after: [...after, { name: 'bye' }] };
    }
    return this.#admitInSession(messages);
  }

  #admitInSession(messages: Message[]): { ask: Message[] | null; after: Message[] } {
    if (!this.#greeted) {
      checkHello(messages, 'host');
      this.#greeted = true;
      return { ask: null, after: [guestHelloMessage(this.#facts)] };
    }
    const stray = messages.find(({ name }) => name === 'hello' || name === 'bye');
    if (stray) {
      throw new BallastError('MESSAGE_UNEXPECTED', `${stray.name}: not in the middle of a session`);
    }
    return { ask: messages, after: [] };
  }
}

function answerAtOnce(
  session: GuestSession,
  handler: GuestHandler,
  messages: Message[],
): Message[] {
  const { ask, after } = session.admit(messages);
  return ask ? [...handler(ask), ...after] : after;
}

/**
 * A guest that does not answer for so long is given up: nothing it is asked takes minutes, unless
 * its process is stopped or in a loop.
 */
const REPLY_TIMEOUT_MS = 300_000;

interface Waiter {
  resolve(messages: Message[]): void;
  reject(error: BallastError): void;
}

class SocketLink implements GuestLink {
  readonly #frames: FrameSocket;
  #waiting: Waiter[] = [];
  #leaving = false;
  #answerCount = 0;

  constructor(socket: Socket, replyTimeoutMs: number) {
    this.#watch(replyTimeoutMs);
    this.#frames = new FrameSocket(socket, {
      peer: 'guest',
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
        new BallastError('PEER_CLOSED', `the guest did not answer for ${seconds} s`),
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
        `the guest sent ${names.join(', ') || 'a frame'} that nobody asked for`,
      );
    }
    waiter.resolve(messages);
  }
}

class LocalLink implements GuestLink {
  readonly closed: Promise<BallastError | null>;
  readonly #session: GuestSession;
  readonly #handler: GuestHandler;
  #settle: (reason: BallastError | null) => void = () => {};
  #reason: BallastError | null = null;
  #over = false;

  constructor(session: GuestSession, handler: GuestHandler) {
    this.#session = session;
    this.#handler = handler;
    this.closed = new Promise((resolve) => {
      this.#settle = resolve;
    });
  }

  async exchange(messages: readonly Message[]): Promise<Message[]> {
    if (this.#over) throw this.#reason ?? sessionOver();
    try {
      const request = encodeFrame(messages);
      const asked = decodeFrame(request, 4, request.length, 'host', 'view');
      const replies = answerAtOnce(this.#session, this.#handler, asked);
      const reply = encodeFrame(replies);
      if (this.#session.over) this.#end(null);
      return decodeFrame(reply, 4, reply.length, 'guest', 'copy');
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
