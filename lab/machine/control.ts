import type { HostCommandName, HostCommands, HostEvent } from '../../protocol/control.ts';
import { HostEventEmitter } from '../../protocol/host-events.ts';
import { BallastError, ExitStatus } from '../../shared/index.ts';
import { Child, type Death, describeDeath, type Entries } from '../process/child.ts';
import { Commands, type Progress } from './commands.ts';

export type { Progress } from './commands.ts';

/** The processes of one machine, commands to the host that has its guest, and the fate of them all. */

/** How long the second process may take to die before we say which one was first. */
const BLAME_DELAY_MS = 250;

export class Control {
  readonly events = new HostEventEmitter();
  guest: Child | null = null;
  /** The host that has the guest. */
  #host: Commands;
  /** The host that the guest migrates to next. */
  #destination: Commands | null = null;
  readonly #early: HostEvent[] = [];
  readonly #onProgress: (progress: Progress) => void;
  readonly #entries: Entries | undefined;
  #broken: BallastError | null = null;
  /** The host's own account of a broken channel. */
  #channelError: BallastError | null = null;
  #finished = false;
  /** Somebody has asked for its death. */
  isDead = false;

  constructor(onProgress: (progress: Progress) => void, entries?: Entries) {
    this.#onProgress = onProgress;
    this.#entries = entries;
    this.#host = this.#startHost();
  }

  get host(): Child {
    return this.#host.child;
  }

  get destination(): Child | null {
    return this.#destination?.child ?? null;
  }

  startGuest(role: 'guest' | 'linux'): Child {
    const guest = new Child(role, () => {}, this.#entries);
    this.guest = guest;
    void guest.died.then((death) => this.#onDeath(death));
    return guest;
  }

  /** Starts a host for the guest to migrate to; until it has the guest, its end is its own affair. */
  startDestination(): Commands {
    this.#destination = this.#startHost();
    return this.#destination;
  }

  /** The guest is at the destination: that is the host now. Returns the one that it has left. */
  adoptDestination(): Commands {
    const left = this.#host;
    if (!this.#destination) throw new RangeError('there is no destination');
    this.#host = this.#destination;
    this.#destination = null;
    for (const event of this.#early.splice(0)) this.events.publish(event);
    return left;
  }

  /** The guest stays: nobody needs the destination any more. */
  async dropDestination(): Promise<void> {
    const dropped = this.#destination;
    this.#destination = null;
    this.#early.length = 0;
    await dropped?.child.stop();
  }

  /** @throws BallastError: the host's own, or PEER_CLOSED naming the process that died. */
  call<N extends HostCommandName>(
    command: N,
    params: HostCommands[N]['params'],
  ): Promise<HostCommands[N]['result']> {
    return this.#host.call(command, params);
  }

  /** After it the end of a process is no failure. */
  expectEnd(): void {
    this.#finished = true;
  }

  /** Resolves when it is gone. */
  async killDestination(): Promise<void> {
    const child = this.destination;
    child?.kill();
    await child?.died;
  }

  /** One of the processes without which there is no machine; resolves when all have ended. */
  async killMachine(victim: 'source' | 'guest'): Promise<void> {
    this.expectEnd();
    this.isDead = true;
    (victim === 'source' ? this.host : this.guest)?.kill();
    // They end by themselves, but for a destination that waits for what becomes of its source.
    const ends = this.#children.map((one) => (one === this.destination ? one.stop() : one.died));
    await Promise.all(ends);
  }

  async stop(): Promise<void> {
    this.expectEnd();
    this.#fail(new BallastError('PEER_CLOSED', 'the machine was shut down'));
    await Promise.all(this.#children.map((child) => child.stop()));
  }

  /** For the end of our own process. A destination ends by itself then, and removes its folder. */
  kill(): void {
    this.host.kill();
    this.guest?.kill();
  }

  get #children(): Child[] {
    return [this.host, this.guest, this.destination].filter((child) => child !== null);
  }

  #startHost(): Commands {
    const host: Commands = new Commands(
      {
        onProgress: (progress) => this.#onProgress(progress),
        onEvent: (event) => {
          // What a destination says is told after what its source says: when it is the host.
          if (host === this.#host) this.events.publish(event);
          else if (host === this.#destination) this.#early.push(event);
        },
        mayTell: (error) => this.#mayTell(error),
      },
      this.#entries,
    );
    void host.child.died.then((death) => {
      if (host === this.#host) this.#onDeath(death);
      else host.fail(describeDeath(death));
    });
    return host;
  }

  /** A host that lost its guest says so; if the guest died, how it died is the better answer. */
  async #mayTell(error: BallastError): Promise<void> {
    if (error.exitStatus !== ExitStatus.PEER_LOST || this.#finished) return;
    this.#channelError = error;
    await new Promise((resolve) => setTimeout(resolve, 2 * BLAME_DELAY_MS));
  }

  #onDeath(first: Death): void {
    if (this.#finished || this.#broken) return;
    setTimeout(() => {
      if (this.#finished) return;
      // A destination may be dead that has the guest already, and is not the host yet.
      const deaths = [first, ...this.#children.map(({ death }) => death)].filter(
        (death): death is Death => !!death,
      );
      const guilty = guiltyOne(deaths);
      const followed = guilty.signal === null && guilty.code === ExitStatus.PEER_LOST;
      this.#fail((followed && this.#channelError) || describeDeath(guilty));
    }, BLAME_DELAY_MS);
  }

  #fail(error: BallastError): void {
    this.#broken ??= error;
    this.#host.fail(this.#broken);
    this.#destination?.fail(this.#broken);
    // Without the others it waits for a guest that will not come.
    void this.#destination?.child.stop();
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
