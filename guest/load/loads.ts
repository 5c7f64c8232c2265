/**
 * Programs that use memory in the background, at a rate: what the workloads of recordings do, by the
 * same names. Each runs as one thread until it is told to finish, and checks what it reads.
 */
import { BallastError, Errno, type Prng } from '../../shared/index.ts';
import type { ContentReader } from '../kernel/content-reader.ts';
import type { Kernel } from '../kernel/kernel.ts';
import type { MemoryUsers } from '../memory-users/memory-users.ts';
import { type Kthread, WaitQueue } from '../sched/kthread.ts';
import { CheckedMemory } from './checked-memory.ts';
import { Pace } from './pace.ts';

/** Sizes in pages, rates in pages a second. */
export type LoadOptions =
  /** Holds `keep`, and replaces random chunks. */
  | { readonly kind: 'churn'; readonly keep: number; readonly chunk: number; readonly rate: number }
  /** Writes random pages of a set in place. */
  | { readonly kind: 'rewrite'; readonly set: number; readonly rate: number }
  /** Forks so often; each child writes what it shares. */
  | { readonly kind: 'fork'; readonly perSecond: number; readonly private: number }
  /** Holds `size` and gives back every second run of pages. */
  | { readonly kind: 'frag'; readonly size: number; readonly run: number }
  /** A ring of files in shared memory, removed and written anew. */
  | {
      readonly kind: 'tmpfs';
      readonly files: number;
      readonly file: number;
      readonly perSecond: number;
    }
  /** Takes memory until only so much is free, and keeps it so. */
  | { readonly kind: 'pressure'; readonly leave: number }
  | { readonly kind: 'idle' };

/** Pages that are written between two looks at the clock. */
const SLICE_PAGES = 64;
/** How often it is looked whether more memory is free than is to be left. */
const LOOK_NS = 10_000_000;
/** At least so many pages are taken or given back at once under pressure. */
const PRESSURE_PAGES = 256;

interface Load {
  isToFinish: boolean;
  readonly told: WaitQueue;
  readonly ended: WaitQueue;
  memory: CheckedMemory | null;
}

export class Loads {
  readonly counters = { load_written_pages: 0, load_failures: 0 };
  readonly #kernel: Kernel;
  readonly #users: MemoryUsers;
  readonly #holds: ContentReader;
  readonly #prng: Prng;
  readonly #loads = new Map<string, Load>();

  constructor(kernel: Kernel, users: MemoryUsers, holds: ContentReader, prng: Prng) {
    this.#kernel = kernel;
    this.#users = users;
    this.#holds = holds;
    this.#prng = prng;
  }

  /** @throws BallastError BAD_INPUT: the name is in use. */
  start(name: string, options: LoadOptions, cpu: number): void {
    if (this.#loads.has(name)) throw new BallastError('BAD_INPUT', `${name} runs already`);
    const load: Load = {
      isToFinish: false,
      told: new WaitQueue(),
      ended: new WaitQueue(),
      memory: null,
    };
    load.memory = this.#memoryOf(name, options, cpu);
    this.#loads.set(name, load);
    const random = this.#prng.split(name);
    const threads = this;
    this.#kernel.spawn(
      name,
      function* () {
        const failure = yield* threads.#body(name, load, options, random);
        if (failure !== Errno.OK) threads.counters.load_failures++;
        threads.#kernel.log.add(threads.#kernel.now, 'load_end', { name, failure });
        load.memory?.exit();
        threads.#loads.delete(name);
        load.ended.wake();
      },
      cpu,
    );
  }

  /** Waits until it has ended and its memory is free. Also of one that has ended by itself. */
  *finish(name: string): Kthread {
    const load = this.#loads.get(name);
    if (!load) return;
    load.isToFinish = true;
    load.told.wake();
    while (this.#loads.get(name) === load) yield { kind: 'wait', queue: load.ended };
  }

  audit(holds: ContentReader): string[] {
    return [...this.#loads.values()].flatMap(({ memory }) => memory?.audit(holds) ?? []);
  }

  #memoryOf(name: string, options: LoadOptions, cpu: number): CheckedMemory | null {
    const pages = pagesOf(options, this.#kernel.ram.pageCount);
    if (pages === 0) return null;
    const memory = CheckedMemory.start(this.#users, this.#holds, { name, pages, cpu });
    if (memory) return memory;
    throw new BallastError('BAD_INPUT', `there is a process ${name} already`);
  }

  #body(name: string, load: Load, options: LoadOptions, random: Prng): Kthread<Errno> {
    switch (options.kind) {
      case 'churn':
        return this.#churn(load, options, random);
      case 'rewrite':
        return this.#rewrite(load, options, random);
      case 'fork':
        return this.#fork(name, load, options);
      case 'frag':
        return this.#frag(load, options);
      case 'tmpfs':
        return this.#tmpfs(name, load, options);
      case 'pressure':
        return this.#pressure(load, options);
      case 'idle':
        return this.#rest(load);
    }
  }

  *#churn(
    load: Load,
    { keep, chunk, rate }: LoadOptions & { kind: 'churn' },
    random: Prng,
  ): Kthread<Errno> {
    const memory = load.memory!;
    const chunks = Math.ceil(keep / chunk);
    const pace = new Pace(this.#kernel, Math.max(rate, 1));
    for (let filled = 0; !load.isToFinish; filled++) {
      const isFull = filled >= chunks;
      if (isFull && rate === 0) return yield* this.#rest(load);
      const first = (isFull ? random.below(chunks) : filled) * chunk;
      const count = Math.min(chunk, keep - first);
      if (isFull) {
        yield* pace.wait(count);
        memory.discard(first, count);
      }
      const outcome = yield* this.#write(memory, first, count);
      if (outcome !== Errno.OK) return outcome;
    }
    return Errno.OK;
  }

  *#rewrite(
    load: Load,
    { set, rate }: LoadOptions & { kind: 'rewrite' },
    random: Prng,
  ): Kthread<Errno> {
    const memory = load.memory!;
    const filled = yield* this.#write(memory, 0, set);
    if (filled !== Errno.OK) return filled;
    if (rate === 0) return yield* this.#rest(load);
    const pace = new Pace(this.#kernel, rate);
    const slice = Math.max(1, Math.min(SLICE_PAGES, Math.floor(rate / 100)));
    while (!load.isToFinish) {
      yield* pace.wait(slice);
      for (let i = 0; i < slice; i++) {
        const outcome = yield* this.#write(memory, random.below(set), 1);
        if (outcome !== Errno.OK) return outcome;
      }
    }
    return Errno.OK;
  }

  *#fork(name: string, load: Load, options: LoadOptions & { kind: 'fork' }): Kthread<Errno> {
    const memory = load.memory!;
    const filled = yield* this.#write(memory, 0, options.private);
    if (filled !== Errno.OK) return filled;
    const pace = new Pace(this.#kernel, options.perSecond);
    for (let child = 0; !load.isToFinish; child++) {
      yield* pace.wait(1);
      const outcome = yield* memory.forkAndWrite(`${name}.${child}`, options.private);
      this.counters.load_written_pages += options.private;
      // A child that finds no memory ends, and its parent goes on.
      if (!memory.isAlive) return outcome;
    }
    return Errno.OK;
  }

  *#frag(load: Load, { size, run }: LoadOptions & { kind: 'frag' }): Kthread<Errno> {
    const memory = load.memory!;
    const filled = yield* this.#write(memory, 0, size);
    if (filled !== Errno.OK) return filled;
    for (let first = 0; first < size; first += 2 * run) {
      memory.discard(first, Math.min(run, size - first));
      yield { kind: 'cpu', ns: run * this.#kernel.costs.allocNs };
    }
    return yield* this.#rest(load);
  }

  *#tmpfs(
    name: string,
    load: Load,
    { files, file, perSecond }: LoadOptions & { kind: 'tmpfs' },
  ): Kthread<Errno> {
    const pace = new Pace(this.#kernel, perSecond);
    const nameOf = (index: number): string => `${name}/${index}`;
    let outcome: Errno = Errno.OK;
    for (let next = 0; !load.isToFinish && outcome === Errno.OK; next++) {
      if (next >= files) yield* pace.wait(1);
      const key = nameOf(next % files);
      yield* this.#users.removeSpace(key);
      const space = this.#users.createSpace({ name: key, kind: 'shmem', sizePages: file });
      outcome = space ? yield* space.write(0, file) : Errno.EBUSY;
      this.counters.load_written_pages += file;
    }
    for (let i = 0; i < files; i++) yield* this.#users.removeSpace(nameOf(i));
    return outcome;
  }

  *#pressure(load: Load, { leave }: LoadOptions & { kind: 'pressure' }): Kthread<Errno> {
    const memory = load.memory!;
    const { mm } = this.#kernel;
    for (let held = 0; !load.isToFinish; ) {
      const excess = mm.freePages() - leave;
      if (excess < PRESSURE_PAGES) {
        yield { kind: 'sleep', ns: LOOK_NS };
        continue;
      }
      const count = Math.min(excess, memory.pages - held, SLICE_PAGES * PRESSURE_PAGES);
      if (count <= 0) return yield* this.#rest(load);
      const outcome = yield* this.#write(memory, held, count);
      if (outcome !== Errno.OK) return outcome;
      held += count;
    }
    return Errno.OK;
  }

  *#rest(load: Load): Kthread<Errno> {
    while (!load.isToFinish) yield { kind: 'wait', queue: load.told };
    return Errno.OK;
  }

  *#write(memory: CheckedMemory, first: number, count: number): Kthread<Errno> {
    const outcome = yield* memory.write(first, count);
    this.counters.load_written_pages += count;
    return outcome;
  }
}

/** Of the process; 0: it needs none. */
function pagesOf(options: LoadOptions, ramPages: number): number {
  switch (options.kind) {
    case 'churn':
      return options.keep;
    case 'rewrite':
      return options.set;
    case 'fork':
      return options.private;
    case 'frag':
      return options.size;
    case 'pressure':
      return ramPages;
    default:
      return 0;
  }
}
