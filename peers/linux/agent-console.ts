/** Command lines for the shell in the guest, one at a time, and what they printed. */
import type { X86Machine } from './x86-machine.ts';

/** As many as one message holds; what a line prints beyond that is cut. */
const LINES_MAX = 256;
const LINE_CHARS_MAX = 4096;
/** Lines typed ahead. */
const TYPED_MAX = 1024;

export class AgentConsole {
  readonly #machine: Pick<X86Machine, 'typeLine' | 'takeOutput'>;
  #typed: string[] = [];
  #busy = false;
  #output: string[] = [];

  constructor(machine: Pick<X86Machine, 'typeLine' | 'takeOutput'>) {
    this.#machine = machine;
  }

  enter(line: string): void {
    if (this.#typed.length < TYPED_MAX) this.#typed.push(line);
    this.poll();
  }

  /** Lines printed since the last time; a line that failed adds its exit status. */
  read(): { pending: number; lines: string[] } {
    this.poll();
    const lines = this.#output.splice(0, LINES_MAX);
    return { pending: this.#typed.length + Number(this.#busy), lines };
  }

  poll(): void {
    const output = this.#busy ? this.#machine.takeOutput() : null;
    if (output) {
      this.#busy = false;
      const lines = output.text.split('\n').filter((line) => line !== '');
      if (output.status !== 0) lines.push(`exit status ${output.status}`);
      const room = LINES_MAX - this.#output.length;
      this.#output.push(...lines.slice(0, room).map((line) => line.slice(0, LINE_CHARS_MAX)));
    }
    if (this.#busy) return;
    const next = this.#typed.shift();
    if (next === undefined) return;
    this.#busy = true;
    this.#machine.typeLine(next);
  }
}
