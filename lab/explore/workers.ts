import type { ExploreReply, ExploreRequest } from '../../protocol/index.ts';
import { BallastError } from '../../shared/index.ts';
import { Child, describeDeath } from '../process/child.ts';
import { onExit } from '../process/cleanup.ts';

/** The explorer's processes. Each answers one request at a time. */

/** Far beyond any batch: a step that does not come to an end hangs its whole process. */
const ANSWER_LIMIT_MS = 120_000;

interface Pending {
  readonly resolve: (reply: ExploreReply) => void;
  readonly reject: (error: BallastError) => void;
}

export class Worker {
  readonly #child: Child;
  #pending: Pending | null = null;

  constructor() {
    this.#child = new Child('explorer', (message) => this.#receive(message as ExploreReply));
    void this.#child.died.then((death) => this.#pending?.reject(describeDeath(death)));
  }

  /** @throws BallastError PEER_CLOSED when the process has died, or goes in circles. */
  async ask<K extends ExploreRequest['kind']>(
    request: Extract<ExploreRequest, { kind: K }>,
  ): Promise<ReplyTo<K>> {
    if (this.#child.death) throw describeDeath(this.#child.death);
    const reply = new Promise<ReplyTo<K>>((resolve, reject) => {
      this.#pending = { resolve: resolve as Pending['resolve'], reject };
      this.#child.send(request as never);
    });
    const timer = setTimeout(() => this.#giveUp(request), ANSWER_LIMIT_MS);
    return reply.finally(() => clearTimeout(timer));
  }

  stop(): Promise<void> {
    this.#pending = null;
    return this.#child.stop();
  }

  kill(): void {
    this.#child.kill();
  }

  #giveUp(request: ExploreRequest): void {
    const seeds =
      request.kind === 'explore'
        ? `seeds ${request.first} to ${request.first + request.count - 1}`
        : `seed ${request.seed}`;
    const seconds = ANSWER_LIMIT_MS / 1000;
    const message = `explorer: ${seeds}: no answer in ${seconds} s, a step does not come to an end`;
    this.#pending?.reject(new BallastError('PEER_CLOSED', message));
    this.#pending = null;
    this.kill();
  }

  #receive(reply: ExploreReply): void {
    const pending = this.#pending;
    this.#pending = null;
    pending?.resolve(reply);
  }
}

interface Replies {
  explore: Extract<ExploreReply, { kind: 'explored' }>;
  reduce: Extract<ExploreReply, { kind: 'reduced' }>;
}
export type ReplyTo<K extends ExploreRequest['kind']> = Replies[K];

/** Runs `use` with so many workers; they are gone when it resolves. */
export async function withWorkers<T>(
  count: number,
  use: (workers: readonly Worker[]) => Promise<T>,
): Promise<T> {
  const workers = Array.from({ length: count }, () => new Worker());
  const withdraw = onExit(() => {
    for (const worker of workers) worker.kill();
  });
  try {
    return await use(workers);
  } finally {
    await Promise.all(workers.map((worker) => worker.stop()));
    withdraw();
  }
}
