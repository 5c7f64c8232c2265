import type {
  ControlProgress,
  ControlReply,
  HostCommandName,
  HostCommands,
  HostEvent,
} from '../../protocol/control.ts';
import { HostEventEmitter } from '../../protocol/host-events.ts';
import { BallastError, type BallastErrorCode, ExitStatus } from '../../shared/index.ts';
import { Child, type Death, describeDeath, type Entries } from './child.ts';

/** The laboratory's commands to the host process, and the fate of both processes. */

export type Progress = ControlProgress['progress'];

interface Pending {
  readonly resolve: (result: never) => void;
  readonly reject: (error: BallastError) => void;
}

/** How long the second process may take to die before we say which one was first. */
const BLAME_DELAY_MS = 250;

export class Control {
  readonly host: Child;
  readonly events = new HostEventEmitter();
  guest: Child | null = null;
  /** The machine that the guest is about to migrate to. */
  destination: Child | null = null;
  readonly #onProgress: (progress: Progress) => void;
  readonly #entries: Entries | undefined;
  readonly #pending = new Map<number, Pending>();
  #nextId = 1;
  #broken: BallastError | null = null;
  /** The host's own account of a broken channel. */
  #channelError: BallastError | null = null;
  #finished = false;

  constructor(onProgress: (progress: Progress) => void, entries?: Entries) {
    this.#onProgress = onProgress;
    this.#entries = entries;
    this.host = new Child('host', (message) => this.#receive(message), entries);
    void this.host.died.then((death) => this.#onDeath(death));
  }

  startGuest(role: 'guest' | 'linux'): Child {
    this.guest = new Child(role, () => {}, this.#entries);
    const child = this.guest;
    void child.died.then((death) => {
      // Left behind by its guest: the host has said bye to it.
      const isLeft = this.guest !== child || (this.destination !== null && death.code === 0);
      if (!isLeft) this.#onDeath(death);
    });
    return child;
  }

  startDestination(role: 'linux'): Child {
    const child = new Child(role, () => {}, this.#entries);
    this.destination = child;
    void child.died.then((death) => this.#onDeath(death));
    return child;
  }

  /** The guest is where its destination was; the process that it left may end. */
  async guestMoved(): Promise<void> {
    const source = this.guest;
    this.guest = this.destination;
    this.destination = null;
    await source?.stop();
  }

  /** @throws BallastError: the host's own, or PEER_CLOSED naming the process that died. */
  async call<N extends HostCommandName>(
    command: N,
    params: HostCommands[N]['params'],
  ): Promise<HostCommands[N]['result']> {
    if (this.#broken) throw this.#broken;
    const id = this.#nextId++;
    const result = new Promise<HostCommands[N]['result']>((resolve, reject) => {
      this.#pending.set(id, { resolve: resolve as Pending['resolve'], reject });
    });
    this.host.send({ id, command, params } as never);
    return result;
  }

  /** After it the end of a process is no failure. */
  expectEnd(): void {
    this.#finished = true;
  }

  async stop(): Promise<void> {
    this.expectEnd();
    this.#fail(new BallastError('PEER_CLOSED', 'the machine was shut down'));
    await Promise.all([this.host.stop(), this.guest?.stop(), this.destination?.stop()]);
  }

  kill(): void {
    this.host.kill();
    this.guest?.kill();
    this.destination?.kill();
  }

  #receive(message: unknown): void {
    const received = message as ControlReply | ControlProgress | HostEvent;
    if ('event' in received) {
      this.events.publish(received);
      return;
    }
    if ('progress' in received) {
      this.#onProgress(received.progress);
      return;
    }
    const pending = this.#pending.get(received.id);
    if (!pending) return;
    if ('error' in received) {
      const error = new BallastError(
        received.error.code as BallastErrorCode,
        received.error.message,
      );
      // A host that lost its guest says so; if the guest died, how it died is the better answer.
      if (error.exitStatus === ExitStatus.PEER_LOST && !this.#finished) {
        this.#channelError = error;
        setTimeout(
          () => this.#settle(received.id, () => pending.reject(error)),
          2 * BLAME_DELAY_MS,
        );
        return;
      }
      this.#settle(received.id, () => pending.reject(error));
    } else {
      this.#settle(received.id, () => pending.resolve(received.result as never));
    }
  }

  #settle(id: number, action: () => void): void {
    if (this.#pending.delete(id)) action();
  }

  #onDeath(first: Death): void {
    if (this.#finished || this.#broken) return;
    setTimeout(() => {
      if (this.#finished) return;
      const deaths = [first, this.host.death, this.guest?.death, this.destination?.death].filter(
        (death): death is Death => !!death,
      );
      const guilty = guiltyOne(deaths);
      const followed = guilty.signal === null && guilty.code === ExitStatus.PEER_LOST;
      this.#fail((followed && this.#channelError) || describeDeath(guilty));
    }, BLAME_DELAY_MS);
  }

  #fail(error: BallastError): void {
    this.#broken ??= error;
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    for (const { reject } of pending) reject(this.#broken);
  }
}

/**
 * Status 3 is what a process ends with because its peer went away: whoever ended in another way
 * was the first, whatever order the kernel told us in.
 */
export function guiltyOne(deaths: readonly Death[]): Death {
  const guilty =
    deaths.find((death) => death.signal !== null) ??
    deaths.find((death) => death.code !== ExitStatus.PEER_LOST);
  const death = guilty ?? deaths[0];
  if (!death) throw new RangeError('no death to explain');
  return death;
}
