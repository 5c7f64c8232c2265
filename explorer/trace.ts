/** The steps of a schedule, as they are printed. */
import type { ExploreStep } from '../protocol/index.ts';
import type { Actor } from './actor.ts';

export class Trace {
  readonly steps: ExploreStep[] = [];
  #notes: string[] = [];

  note(text: string): void {
    this.#notes.push(text);
  }

  stepped(actor: Actor): void {
    const number = this.steps.length + 1;
    this.steps.push({ number, actor: actor.name, notes: this.#notes, at: actor.at });
    this.#notes = [];
  }
}

/** How often the next step is another actor's. */
export function countSwitches(steps: readonly { readonly actor: string }[]): number {
  let switches = 0;
  for (let i = 1; i < steps.length; i++) if (steps[i]!.actor !== steps[i - 1]!.actor) switches++;
  return switches;
}
