import type {
  ControlProgress,
  ControlReply,
  HostCommandName,
  HostCommands,
  HostEvent,
} from '../../protocol/control.ts';
import { BallastError, type BallastErrorCode } from '../../shared/index.ts';
import { Child, type Entries } from '../process/child.ts';

/** One host process and the laboratory's commands to it. */

export type Progress = ControlProgress['progress'];

export interface CommandHooks {
  onProgress(progress: Progress): void;
  onEvent(event: HostEvent): void;
  /** Resolves when whoever asked may hear of an error of the host's own. */
  mayTell(error: BallastError): Promise<void>;
}

interface Pending {
  readonly resolve: (result: never) => void;
  readonly reject: (error: BallastError) => void;
}

export class Commands {
  readonly child: Child;
  readonly #hooks: CommandHooks;
  readonly #pending = new Map<number, Pending>();
  #nextId = 1;
  #broken: BallastError | null = null;

  constructor(hooks: CommandHooks, entries?: Entries) {
    this.#hooks = hooks;
    this.child = new Child('host', (message) => this.#receive(message), entries);
  }

  /** @throws BallastError: the host's own, or why there is no host any more. */
  async call<N extends HostCommandName>(
    command: N,
    params: HostCommands[N]['params'],
  ): Promise<HostCommands[N]['result']> {
    if (this.#broken) throw this.#broken;
    const id = this.#nextId++;
    const result = new Promise<HostCommands[N]['result']>((resolve, reject) => {
      this.#pending.set(id, { resolve: resolve as Pending['resolve'], reject });
    });
    this.child.send({ id, command, params } as never);
    return result;
  }

  /** Nobody will answer any more. */
  fail(error: BallastError): void {
    this.#broken ??= error;
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    for (const { reject } of pending) reject(this.#broken);
  }

  #receive(message: unknown): void {
    const received = message as ControlReply | ControlProgress | HostEvent;
    if ('event' in received) {
      this.#hooks.onEvent(received);
      return;
    }
    if ('progress' in received) {
      this.#hooks.onProgress(received.progress);
      return;
    }
    const pending = this.#pending.get(received.id);
    if (!pending) return;
    if (!('error' in received)) {
      this.#pending.delete(received.id);
      pending.resolve(received.result as never);
      return;
    }
    const { code, message: text } = received.error;
    const error = new BallastError(code as BallastErrorCode, text);
    void this.#hooks.mayTell(error).then(() => {
      if (this.#pending.delete(received.id)) pending.reject(error);
    });
  }
}
