/** Runs threads in an order that a test picks, one request at a time; virtual time plays no part. */
import type { Kthread, KthreadRequest } from '../../../../guest/sched/kthread.ts';

interface Actor {
  readonly thread: Kthread;
  isBlocked: boolean;
  isDone: boolean;
}

export class Interleaver {
  readonly #actors: Actor[] = [];

  add(body: () => Kthread): void {
    this.#actors.push({ thread: body(), isBlocked: false, isDone: false });
  }

  /**
   * Until all have ended. `choose` picks one of so many threads that can run; `onStep` runs after
   * each step. Throws if some wait for each other.
   */
  run(choose: (count: number) => number, onStep: () => void = () => {}): void {
    for (let steps = 0; ; steps++) {
      if (steps > 100_000) throw new Error('the threads do not come to an end');
      const ready = this.#actors.filter((actor) => !actor.isDone && !actor.isBlocked);
      if (ready.length === 0) break;
      this.#step(ready[choose(ready.length)]!);
      onStep();
    }
    if (this.#actors.some(({ isDone }) => !isDone)) throw new Error('the threads are deadlocked');
  }

  #step(actor: Actor): void {
    const { value, done } = actor.thread.next();
    if (done) {
      actor.isDone = true;
      return;
    }
    const request = value as KthreadRequest;
    if (request.kind !== 'wait' && request.kind !== 'spin') return;
    actor.isBlocked = true;
    request.queue.add(() => {
      actor.isBlocked = false;
    });
  }
}
