import type { Socket } from 'node:net';
import { BallastError } from '../../shared/index.ts';
import type { Sender } from '../message-shape.ts';
import type { Message } from '../messages.ts';
import { decodeFrame, encodeFrame } from './frame.ts';
import { FrameSocket } from './frame-socket.ts';
import {
  checkHello,
  destinationHelloMessage,
  type GuestFacts,
  guestHelloMessage,
  type Hello,
  hostHelloMessage,
  sourceHelloMessage,
} from './hello.ts';

/**
 * The channel between host and guest, and the one between the two hosts of a migration. The host, or
 * the source, is the master: each of its frames is answered by exactly one frame, in order. Over a
 * socket (unix or TCP) or inside one process, with the same encoding and the same checks, so that
 * both give the same run.
 */

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

/** The host's end. */
export type GuestLink = Link;

/** The source's end. */
export type StreamLink = Link;

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
  return serve(socket, 'host', new ServedSession(greetHost(facts)), handler);
}

/** The destination's end of a stream, called as a guest's is; a BallastError ends the session. */
export interface StreamHandler {
  /** What the source's guest is. @throws BallastError HELLO_MISMATCH to turn it away. */
  begin(hello: Hello): void;
  /** One frame: its pages are views that are valid until it returns. */
  handle(messages: Message[]): Message[];
}

/** Answers the frames of a source on `socket`; the hello is answered here. */
export function serveStream(socket: Socket, handler: StreamHandler): GuestService {
  const session = new ServedSession(greetSource(handler));
  return serve(socket, 'source', session, (messages) => handler.handle(messages));
}

function serve(
  socket: Socket,
  peer: Sender,
  session: ServedSession,
  handler: GuestHandler,
): GuestService {
  const frames: FrameSocket = new FrameSocket(socket, {
    peer,
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
  const session = new ServedSession(greetHost(facts));
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
  return new SocketLink(socket, { asks: 'host', answers: 'guest' }, replyTimeoutMs);
}

/** The source's end of a connected socket. Call `sourceHello` on it first. */
export function streamLink(socket: Socket, replyTimeoutMs = REPLY_TIMEOUT_MS): StreamLink {
  return new SocketLink(socket, STREAM_ENDS, replyTimeoutMs);
}

/** Host and guest in one process: no socket, the same encoding and checks. */
export function localLink(handler: GuestHandler, facts: GuestFacts): GuestLink {
  const ends: Ends = { asks: 'host', answers: 'guest' };
  return new LocalLink(new ServedSession(greetHost(facts)), ends, handler);
}

/** Source and destination in one process. */
export function localStream(handler: StreamHandler): StreamLink {
  const session = new ServedSession(greetSource(handler));
  return new LocalLink(session, STREAM_ENDS, (messages) => handler.handle(messages));
}

/**
 * The first exchange: what the guest is. Throws BallastError HELLO_MISMATCH if it was built
 * otherwise, PEER_CLOSED if it does not answer in time; the link is closed then.
 */
export async function hostHello(link: GuestLink, timeoutMs = HELLO_TIMEOUT_MS): Promise<Hello> {
  return firstExchange(link, hostHelloMessage(), 'guest', timeoutMs);
}

/** The first exchange of a stream. Errors as of `hostHello`. */
export async function sourceHello(
  link: StreamLink,
  facts: GuestFacts,
  timeoutMs = HELLO_TIMEOUT_MS,
): Promise<Hello> {
  return firstExchange(link, sourceHelloMessage(facts), 'destination', timeoutMs);
}

async function firstExchange(
  link: Link,
  hello: Hello,
  peer: Sender,
  timeoutMs: number,
): Promise<Hello> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(new BallastError('PEER_CLOSED', `the ${peer} did not say hello in ${timeoutMs} ms`));
    }, timeoutMs);
  });
  try {
    return checkHello(await Promise.race([link.exchange([hello]), late]), peer);
  } catch (error) {
    await link.close();
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

/** Checks the master's first frame and gives the answer to it. */
type Greeting = (messages: readonly Message[]) => Hello;

function greetHost(facts: GuestFacts): Greeting {
  return (messages) => {
    checkHello(messages, 'host');
    return guestHelloMessage(facts);
  };
}

function greetSource(handler: StreamHandler): Greeting {
  return (messages) => {
    handler.begin(checkHello(messages, 'source'));
    return destinationHelloMessage();
  };
}

/** Who is at which end of a link. */
interface Ends {
  readonly asks: Sender;
  readonly answers: Sender;
}

const STREAM_ENDS: Ends = { asks: 'source', answers: 'destination' };

/** The order of a session as the side that answers sees it: hello, frames, bye. */
class ServedSession {
  readonly #greet: Greeting;
  #greeted = false;
  #over = false;

  constructor(greet: Greeting) {
    this.#greet = greet;
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
      const answer = this.#greet(messages);
      this.#greeted = true;
      return { ask: null, after: [answer] };
    }
    const stray = messages.find(({ name }) => name === 'hello' || name === 'bye');
    if (stray) {
      throw new BallastError('MESSAGE_UNEXPECTED', `${stray.name}: not in the middle of a session`);
    }
    return { ask: messages, after: [] };
  }
}

function answerAtOnce(
  session: ServedSession,
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

class SocketLink implements Link {
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

class LocalLink implements Link {
  readonly closed: Promise<BallastError | null>;
  readonly #session: ServedSession;
  readonly #ends: Ends;
  readonly #handler: GuestHandler;
  #settle: (reason: BallastError | null) => void = () => {};
  #reason: BallastError | null = null;
  #over = false;

  constructor(session: ServedSession, ends: Ends, handler: GuestHandler) {
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
