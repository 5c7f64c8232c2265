/**
 * Which host a guest belongs to: one at any moment. `moveTo` names another one; the guest connects to
 * it, and is its own from the moment at which that host has said hello. Whatever goes wrong before
 * leaves it where it is.
 */
import type { Socket } from 'node:net';
import { BallastError } from '../../shared/index.ts';
import type { Message } from '../messages.ts';
import { connect, parseAddress } from './address.ts';
import type { DeferringGuestHandler, serveGuest } from './channel.ts';
import type { GuestFacts } from './hello.ts';

/** `serveGuest`, or `serveAsyncGuest`. */
type Serve = typeof serveGuest;

/** How long another host may take to answer and to say hello. */
const MOVE_TIMEOUT_MS = 5000;

export class GuestHome {
  /** Why the guest has no host any more; null after a bye. */
  readonly closed: Promise<BallastError | null>;
  readonly #handler: DeferringGuestHandler;
  readonly #facts: GuestFacts;
  readonly #serve: Serve;
  #settle: (reason: BallastError | null) => void = () => {};
  /** Number of the session that has the guest. */
  #owner = 0;
  #sessions = 0;
  /** Resolves when no move is under way. */
  #moving: Promise<unknown> = Promise.resolve();
  readonly #moveTimeoutMs: number;

  constructor(
    handler: DeferringGuestHandler,
    facts: GuestFacts,
    serve: Serve,
    moveTimeoutMs = MOVE_TIMEOUT_MS,
  ) {
    this.#moveTimeoutMs = moveTimeoutMs;
    this.#handler = handler;
    this.#facts = facts;
    this.#serve = serve;
    this.closed = new Promise((resolve) => {
      this.#settle = resolve;
    });
  }

  /** The first host. */
  enter(socket: Socket): void {
    this.#owner = this.#open(socket, () => {});
  }

  #open(socket: Socket, onGreeted: () => void): number {
    const session = ++this.#sessions;
    const service = this.#serve(
      socket,
      (messages) => this.#handle(session, messages),
      this.#facts,
      onGreeted,
    );
    void service.closed.then(async (reason) => {
      // A host that dies while the guest is on its way is not where it ends.
      await this.#moving;
      // What becomes of a host that the guest has left is not its affair.
      if (session === this.#owner) this.#settle(reason);
    });
    return session;
  }

  #handle(session: number, messages: Message[]): Message[] | Promise<Message[]> {
    if (session !== this.#owner) {
      throw new BallastError('MESSAGE_UNEXPECTED', 'the guest is not at this host');
    }
    const last = messages.at(-1);
    if (last?.name !== 'moveTo') return this.#handler(messages);
    const { address } = last;
    const before = messages.length > 1 ? this.#handler(messages.slice(0, -1)) : [];
    return this.#move(before, address);
  }

  async #move(before: Message[] | Promise<Message[]>, address: string): Promise<Message[]> {
    const replies = await before;
    let error = '';
    const move = this.#moveTo(address);
    this.#moving = move.catch(() => undefined);
    try {
      await move;
    } catch (cause) {
      if (!(cause instanceof BallastError)) throw cause;
      error = cause.message;
    }
    return [...replies, { name: 'moved', error }];
  }

  async #moveTo(address: string): Promise<void> {
    const socket = await connect(parseAddress(address), this.#moveTimeoutMs);
    await new Promise<void>((resolve, reject) => {
      const giveUp = (why: string): void => {
        socket.destroy();
        reject(new BallastError('PEER_CLOSED', `${address}: ${why}`));
      };
      const timer = setTimeout(() => giveUp('the host did not say hello'), this.#moveTimeoutMs);
      socket.once('close', () => {
        clearTimeout(timer);
        giveUp('the host went away before it said hello');
      });
      const session = this.#open(socket, () => {
        clearTimeout(timer);
        this.#owner = session;
        resolve();
      });
    });
  }
}
