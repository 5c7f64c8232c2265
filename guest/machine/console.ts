/**
 * The serial console: each line is a command that runs as a kernel thread of its own. It prints
 * nothing when it succeeds, and one line that says why when it does not.
 */
import { BallastError } from '../../shared/index.ts';
import type { Kernel } from '../kernel/kernel.ts';
import type { Kthread } from '../sched/kthread.ts';
import { CommandLine } from './command-line.ts';

/** Returns why it failed, or null. Throws BallastError BAD_INPUT for words it does not understand. */
export type Command = (args: CommandLine) => Kthread<string | null>;
export type CommandTable = Readonly<Record<string, Command>>;

/** Characters of a line that the log keeps, and lines of output that wait for a reader. */
const LOGGED_CHARACTERS = 64;
const OUTPUT_LINES_MAX = 256;
/** Lines at work at one time: each is a thread. */
const PENDING_MAX = 256;

export class Console {
  readonly counters = { console_pending: 0, console_done: 0, console_failed: 0 };
  readonly #kernel: Pick<Kernel, 'log' | 'now' | 'spawn'>;
  readonly #vcpus: number;
  readonly #commands: CommandTable;
  #output: string[] = [];

  constructor(
    kernel: Pick<Kernel, 'log' | 'now' | 'spawn'>,
    vcpus: number,
    commands: CommandTable,
  ) {
    this.#kernel = kernel;
    this.#vcpus = vcpus;
    this.#commands = commands;
  }

  /** Types a line. A command that there is not fails at once. */
  enter(line: string): void {
    const args = new CommandLine(line);
    const command = Object.hasOwn(this.#commands, args.name) ? this.#commands[args.name] : null;
    const shown = line.slice(0, LOGGED_CHARACTERS);
    if (!command) {
      this.#kernel.log.add(this.#kernel.now, 'console_unknown', { line: shown });
      this.#fail(`${args.name.slice(0, LOGGED_CHARACTERS)}: no such command`);
      return;
    }
    if (!(args.cpu >= 0 && args.cpu < this.#vcpus && Number.isInteger(args.cpu))) {
      this.#fail(`expected a vCPU below ${this.#vcpus}, found ${args.cpu}`);
      return;
    }
    if (this.counters.console_pending >= PENDING_MAX) {
      this.#fail(`${PENDING_MAX} lines are at work already`);
      return;
    }
    this.#kernel.log.add(this.#kernel.now, 'console', { line: shown });
    this.counters.console_pending++;
    this.#kernel.spawn(args.name, () => this.#run(command, args), args.cpu);
  }

  /** What was printed since the last time. */
  read(): string[] {
    const lines = this.#output;
    this.#output = [];
    return lines;
  }

  *#run(command: Command, args: CommandLine): Kthread {
    let failure: string | null;
    try {
      failure = yield* command(args);
    } catch (error) {
      if (!(error instanceof BallastError)) throw error;
      failure = error.message;
    }
    this.counters.console_pending--;
    if (failure === null) this.counters.console_done++;
    else this.#fail(failure);
    this.#kernel.log.add(this.#kernel.now, 'console_end', {
      name: args.name,
      ...(failure === null ? {} : { failure }),
    });
  }

  #fail(reason: string): void {
    this.counters.console_failed++;
    if (this.#output.length < OUTPUT_LINES_MAX) this.#output.push(reason);
  }
}
