/**
 * A queue that is set up may be kicked before DRIVER_OK, as Linux does with the first buffer for
 * statistics, or just before a suspension: the device looks at it when it runs.
 */
import type { Message } from '../../protocol/index.ts';

export class HeldNotifications {
  #messages: Message<'avail'>[] = [];

  /** False: more than rings of so many entries in all can have sent, as they hold no chain twice. */
  hold(message: Message<'avail'>, ringEntries: number): boolean {
    if (this.#messages.length >= ringEntries) return false;
    this.#messages.push(message);
    return true;
  }

  take(): readonly Message<'avail'>[] {
    const messages = this.#messages;
    this.#messages = [];
    return messages;
  }

  forgetQueue(index: number): void {
    this.#messages = this.#messages.filter(({ queue }) => queue !== index);
  }
}
