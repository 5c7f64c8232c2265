import type { Socket } from 'node:net';
import { BallastError } from '../../shared/index.ts';
import type { Sender } from '../message-shape.ts';
import type { Message } from '../messages.ts';
import type { Agreement } from './agreement.ts';
import { FrameSocket } from './frame-socket.ts';
import {
  checkHello,
  type GuestFacts,
  type Hello,
  hostHelloMessage,
  sourceHelloMessage,
} from './hello.ts';
import {
  GUEST_ENDS,
  type Link,
  LocalLink,
  REPLY_TIMEOUT_MS,
  SocketLink,
  STREAM_ENDS,
} from './link.ts';
import { greetHost, greetSource, ServedSession, type StreamHandler } from './session.ts';

export type { StreamHandler } from './session.ts';

/**
 * The channel between host and guest, and the one between the two hosts of a migration. The host, or
 * the source, is the master: each of its frames is answered by exactly one frame, in order. Over a
 * socket (unix or TCP) or inside one process, with the same encoding and the same checks, so that
 * both give the same run.
 */

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

/** One that may answer a frame later; until then no other may come. */
export type DeferringGuestHandler = (messages: Message[]) => Message[] | Promise<Message[]>;

/**
 * A guest whose processors run elsewhere and answer later. Frames are given to it one after the
 * other; the messages are its own to keep. Errors as for a GuestHandler.
 */
export type AsyncGuestHandler = DeferringGuestHandler;

export interface GuestService {
  /** Why the session ended; null after bye. */
  readonly closed: Promise<BallastError | null>;
}

const HELLO_TIMEOUT_MS = 10_000;

/**
 * Answers the frames of a host on `socket`; the hello is answered here, with `facts`. `onGreeted` is
 * called once, when the host has said hello.
 */
export function serveGuest(
  socket: Socket,
  handler: DeferringGuestHandler,
  facts: GuestFacts,
  onGreeted?: () => void,
): GuestService {
  return serve(socket, 'host', new ServedSession(greetHost(facts, onGreeted)), handler);
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
  handler: DeferringGuestHandler,
): GuestService {
  let waits = false;
  const send = (replies: Message[]): void => {
    if (session.over) frames.finish(replies);
    else frames.send(replies);
  };
  const frames: FrameSocket = new FrameSocket(socket, {
    peer,
    bins: 'view',
    onMessages: (messages) => {
      if (waits) {
        throw new BallastError('MESSAGE_UNEXPECTED', 'a frame before the last one was answered');
      }
      const { ask, after } = session.admit(messages);
      const replies = ask ? handler(ask) : [];
      if (!(replies instanceof Promise)) {
        send([...replies, ...after]);
        return;
      }
      waits = true;
      void replies.then((late) => {
        waits = false;
        send([...late, ...after]);
      });
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
  onGreeted?: () => void,
): GuestService {
  const session = new ServedSession(greetHost(facts, onGreeted));
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
  return new SocketLink(socket, GUEST_ENDS, replyTimeoutMs);
}

/** The source's end of a connected socket. Call `sourceHello` on it first. */
export function streamLink(socket: Socket, replyTimeoutMs = REPLY_TIMEOUT_MS): StreamLink {
  return new SocketLink(socket, STREAM_ENDS, replyTimeoutMs);
}

/** Host and guest in one process: no socket, the same encoding and checks. */
export function localLink(handler: GuestHandler, facts: GuestFacts): GuestLink {
  return new LocalLink(new ServedSession(greetHost(facts)), GUEST_ENDS, handler);
}

/** Source and destination in one process. */
export function localStream(handler: StreamHandler): StreamLink {
  const session = new ServedSession(greetSource(handler));
  return new LocalLink(session, STREAM_ENDS, (messages) => handler.handle(messages));
}

/**
 * The first exchange: what the guest is. Throws BallastError HELLO_MISMATCH if it was built
 * otherwise or has another plan, PEER_CLOSED if it does not answer in time; the link is closed then.
 */
export async function hostHello(
  link: GuestLink,
  plan: Agreement = [],
  timeoutMs = HELLO_TIMEOUT_MS,
): Promise<Hello> {
  return firstExchange(link, hostHelloMessage(plan), 'guest', timeoutMs);
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
    return checkHello(await Promise.race([link.exchange([hello]), late]), peer, hello.plan);
  } catch (error) {
    await link.close();
    throw error;
  } finally {
    clearTimeout(timer);
  }
}
