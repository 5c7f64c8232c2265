/** What console commands took and `free` gives back, by the name that each was given. */
import { BallastError } from '../../../shared/index.ts';
import type { Kthread } from '../../sched/kthread.ts';
import type { CommandLine } from '../command-line.ts';
import type { CommandTable } from '../console.ts';

export class Held {
  readonly #releases = new Map<string, () => Kthread>();

  get commands(): CommandTable {
    return { free: (args) => this.#free(args) };
  }

  /** The name that a line gives to what it takes. Throws BallastError BAD_INPUT if it is in use. */
  newName(args: CommandLine): string {
    const name = args.text('name');
    if (!this.#releases.has(name)) return name;
    throw new BallastError('BAD_INPUT', `expected a new name, found ${name}`);
  }

  add(name: string, release: () => Kthread): void {
    this.#releases.set(name, release);
  }

  *#free(args: CommandLine): Kthread<string | null> {
    const name = args.text('name');
    const release = this.#releases.get(name);
    if (!release) return `nothing has the name ${name}`;
    this.#releases.delete(name);
    yield* release();
    return null;
  }
}
