/**
 * Halt polling, as KVM does it (linux virt/kvm/kvm_main.c): who waits for the other side's frame
 * looks for it a moment long instead of sleeping at once, because being woken takes longer than most
 * answers do. Where looking did not help it is left for a while, each time for twice as long: the
 * answers are slow, or there are no processors to spare. Only speed depends on it.
 */

/** halt_poll_ns of KVM. */
const POLL_MS = 0.2;
/** Waits without a look at most, after many that were in vain. */
const PAUSE_WAITS_MAX = 1024;

export class HaltPoll {
  #sinceMs = 0;
  #isWaiting = false;
  #isPolling = false;
  /** Waits until the next try, and how many they were the last time. */
  #pauseWaits = 0;
  #lastPauseWaits = 0;
  readonly #turn = (): void => {
    this.#isPolling = false;
    if (!this.#isWaiting) return;
    if (performance.now() - this.#sinceMs < POLL_MS) {
      this.#poll();
      return;
    }
    this.#lastPauseWaits = Math.min(PAUSE_WAITS_MAX, Math.max(1, 2 * this.#lastPauseWaits));
    this.#pauseWaits = this.#lastPauseWaits;
  };

  /** It is the other side's turn. */
  begin(): void {
    this.#isWaiting = true;
    if (this.#pauseWaits > 0) {
      this.#pauseWaits--;
      return;
    }
    this.#sinceMs = performance.now();
    if (!this.#isPolling) this.#poll();
  }

  /** Its frame is here. */
  end(): void {
    if (this.#isWaiting && this.#isPolling) this.#lastPauseWaits = 0;
    this.#isWaiting = false;
  }

  /** The event loop looks at its sockets between two turns, and does not sleep before one. */
  #poll(): void {
    this.#isPolling = true;
    setImmediate(this.#turn);
  }
}
