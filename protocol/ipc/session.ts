/** A session as the side that answers sees it, over a socket or inside one process. */
import { BallastError } from '../../shared/index.ts';
import type { Message } from '../messages.ts';
import type { Agreement } from './agreement.ts';
import {
  checkHello,
  destinationHelloMessage,
  type GuestFacts,
  guestHelloMessage,
  type Hello,
} from './hello.ts';

/** The destination's end of a stream, called as a guest's is; a BallastError ends the session. */
export interface StreamHandler {
  /** What the source must have in common with this side; left out: nothing. */
  readonly plan?: Agreement;
  /** What the source's guest is. @throws BallastError HELLO_MISMATCH to turn it away. */
  begin(hello: Hello): void;
  /** One frame: its pages are views that are valid until it returns. */
  handle(messages: Message[]): Message[];
}

/** Checks the master's first frame and gives the answer to it. */
export type Greeting = (messages: readonly Message[]) => Hello;

export function greetHost(facts: GuestFacts, onGreeted?: () => void): Greeting {
  return (messages) => {
    checkHello(messages, 'host', facts.plan);
    onGreeted?.();
    return guestHelloMessage(facts);
  };
}

export function greetSource(handler: StreamHandler): Greeting {
  return (messages) => {
    handler.begin(checkHello(messages, 'source', handler.plan));
    return destinationHelloMessage(handler.plan);
  };
}

/** The order of a session as the side that answers sees it: hello, frames, bye. */
export class ServedSession {
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

export function answerAtOnce(
  session: ServedSession,
  handler: (messages: Message[]) => Message[],
  messages: Message[],
): Message[] {
  const { ask, after } = session.admit(messages);
  return ask ? [...handler(ask), ...after] : after;
}
