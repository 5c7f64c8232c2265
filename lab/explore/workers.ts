import type { ExploreReply, ExploreRequest } from '../../protocol/index.ts';
import type { BallastError } from '../../shared/index.ts';
import { Child, describeDeath } from '../machine/child.ts';
import { onExit } from '../machine/cleanup.ts';

/** The explorer's processes. Each answers one request at a time. */

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

  /** @throws BallastError PEER_CLOSED when the process has died. */
  ask<K extends ExploreRequest['kind']>(
    request: Extract<ExploreRequest, { kind: K }>,
  ): Promise<ReplyTo<K>> {
    if (this.#child.death) return Promise.reject(describeDeath(this.#child.death));
    return new Promise((resolve, reject) => {
      this.#pending = { resolve: resolve as Pending['resolve'], reject };
      this.#child.send(request as never);
    });
  }

  stop(): Promise<void> {
    this.#pending = null;
    return this.#child.stop();
  }

  kill(): void {
    this.#child.kill();
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
