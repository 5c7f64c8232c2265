/**
 * Locks of kernel threads (linux include/linux/{spinlock,mutex}.h). Taking one is a preemption
 * point. Code that never yields while it would hold a lock is atomic already and takes none.
 */
import { assert } from '../../shared/index.ts';
import { type Kthread, type KthreadRequest, preempt, WaitQueue } from './kthread.ts';

class Lock {
  readonly name: string;
  readonly #point: KthreadRequest;
  readonly #wait: KthreadRequest;
  readonly #released = new WaitQueue();
  #isHeld = false;

  constructor(name: string, waits: 'wait' | 'spin') {
    this.name = name;
    this.#point = preempt(name);
    this.#wait = { kind: waits, queue: this.#released };
  }

  get isHeld(): boolean {
    return this.#isHeld;
  }

  /** False if it is taken: never waits, and is no preemption point. */
  tryLock(): boolean {
    if (this.#isHeld) return false;
    this.#isHeld = true;
    return true;
  }

  *lock(): Kthread {
    yield this.#point;
    while (this.#isHeld) yield this.#wait;
    this.#isHeld = true;
  }

  unlock(): void {
    assert(this.#isHeld, `${this.name} is held by who unlocks it`);
    this.#isHeld = false;
    this.#released.wake();
  }
}

/** Whoever waits keeps its vCPU busy; the holder must not sleep. */
export class SpinLock extends Lock {
  constructor(name: string) {
    super(name, 'spin');
  }
}

/** Whoever waits sleeps, and so may the holder. */
export class Mutex extends Lock {
  constructor(name: string) {
    super(name, 'wait');
  }
}
