/** Console commands of processes and of who pins their memory. */
import { BallastError, type Errno, errnoName } from '../../../shared/index.ts';
import { Gfp } from '../../mm/index.ts';
import type { Kthread } from '../../sched/kthread.ts';
import type { CommandLine } from '../command-line.ts';
import type { CommandTable } from '../console.ts';
import type { System } from '../system.ts';
import { type PinKind, UserMemory } from './user-memory.ts';

const PIN_KINDS: readonly PinKind[] = ['vfio', 'longterm', 'short'];
const POPULATE_GFP = Gfp.GFP_HIGHUSER_MOVABLE | Gfp.__GFP_ZERO;
/** Pages between two requests for CPU time. */
const PAGES_PER_SLICE = 512;

export class ProcessCommands {
  readonly #system: System;
  readonly #processes = new Map<string, UserMemory>();

  constructor(system: System) {
    this.#system = system;
    system.slowPath.killProcess = () => this.#killLargest();
  }

  get commands(): CommandTable {
    return {
      process: (args) => this.#process(args),
      exit: (args) => this.#exit(args),
      pin: (args) => this.#pin(args),
      unpin: (args) => this.#unpin(args),
    };
  }

  audit(): string[] {
    return [...this.#processes.values()].flatMap((memory) => memory.audit());
  }

  *#process(args: CommandLine): Kthread<string | null> {
    const name = args.text('name');
    if (this.#processes.has(name)) return `there is a process ${name} already`;
    const kind = args.has('shmem') ? 'shmem' : 'anonymous';
    const { slowPath } = this.#system;
    const memory = new UserMemory(this.#system, kind);
    this.#processes.set(name, memory);
    const pageCount = args.number(kind);
    while (memory.pageCount < pageCount) {
      const pfn = yield* slowPath.allocPages(0, POPULATE_GFP, args.cpu);
      if (memory.isKilled) {
        if (pfn >= 0) this.#system.mm.free(pfn, 0, args.cpu);
        return null;
      }
      if (pfn < 0) return `${errnoName(pfn as Errno)} after ${memory.pageCount} pages`;
      memory.add(pfn);
      yield* this.#spend(memory.pageCount);
    }
    return null;
  }

  *#exit(args: CommandLine): Kthread<string | null> {
    const memory = this.#of(args.text('name'));
    this.#processes.delete(args.text('name'));
    yield* memory.exit();
    return null;
  }

  *#pin(args: CommandLine): Kthread<string | null> {
    const memory = this.#of(args.text('process'));
    const kind = args.oneOf('by', PIN_KINDS);
    const size = args.number('size');
    if (size > memory.pageCount) return `the process has only ${memory.pageCount} pages`;
    for (let index = 0; index < size; index++) {
      if (!(yield* memory.pin(index, kind))) return `page ${index} cannot leave ZONE_MOVABLE`;
      yield* this.#spend(index);
    }
    return null;
  }

  *#unpin(args: CommandLine): Kthread<string | null> {
    const memory = this.#of(args.text('name'));
    yield* this.#spend(0);
    memory.unpinAll();
    return null;
  }

  /** oom_badness is what a process has in memory; the killed one is no failure of its line. */
  *#killLargest(): Kthread<boolean> {
    let victim: [string, UserMemory] | null = null;
    for (const one of this.#processes) {
      if (!victim || one[1].pageCount > victim[1].pageCount) victim = one;
    }
    if (!victim) return false;
    const [name, memory] = victim;
    this.#processes.delete(name);
    memory.isKilled = true;
    yield* memory.exit();
    return true;
  }

  #of(name: string): UserMemory {
    const memory = this.#processes.get(name);
    if (memory) return memory;
    throw new BallastError('BAD_INPUT', `there is no process ${name}`);
  }

  *#spend(index: number): Kthread {
    if (index % PAGES_PER_SLICE !== 0) return;
    yield { kind: 'cpu', ns: PAGES_PER_SLICE * this.#system.kernel.costs.allocNs };
  }
}
