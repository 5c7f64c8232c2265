/** A kernel with users of memory and a scheduler, in which allocations can be made to fail. */
import { Folios } from '../../../../guest/folio/index.ts';
import type { Kernel } from '../../../../guest/kernel/kernel.ts';
import { Ram, ZERO_TAG } from '../../../../guest/machine/ram.ts';
import { MemoryUsers } from '../../../../guest/memory-users/memory-users.ts';
import { PageAllocator, type PageAllocatorHooks } from '../../../../guest/mm/index.ts';
import type { Kthread } from '../../../../guest/sched/kthread.ts';
import { Scheduler } from '../../../../guest/sched/scheduler.ts';
import { Bitmap, DEFAULT_COSTS, Errno, EventLog, NO_PLANTS } from '../../../../shared/index.ts';
import { NO_INIT } from '../mm/machine.ts';

export interface MachineOptions {
  readonly ramPages?: number;
  readonly movablePages?: number;
}

export class Machine {
  readonly mm: PageAllocator;
  readonly ram: Ram;
  readonly scheduler = new Scheduler(2);
  readonly kernel: Kernel;
  readonly folios: Folios;
  readonly users: MemoryUsers;
  /** Asked before each allocation: true makes it fail. */
  failsNow: () => boolean = () => false;
  readonly #freeAtBoot: number;

  constructor({ ramPages = 4096, movablePages = 0 }: MachineOptions = {}) {
    const ram = new Ram(ramPages);
    const hooks: { -readonly [K in keyof PageAllocatorHooks]: PageAllocatorHooks[K] } = {
      clearPages: (pfn, pageCount) => ram.fill(pfn, pageCount, ZERO_TAG),
    };
    this.ram = ram;
    this.mm = new PageAllocator({ ramPages, vcpus: 2, mm: NO_INIT, movablePages }, hooks);
    const alloc = this.mm.alloc.bind(this.mm);
    this.mm.alloc = (order, gfp, cpu) => {
      if (!this.failsNow()) return alloc(order, gfp, cpu);
      this.mm.vmstat.alloc_failures++;
      return Errno.ENOMEM;
    };
    const free = new Bitmap(ramPages);
    free.setRange(1, ramPages - 1);
    this.mm.adoptFreeSet(free);
    const { scheduler } = this;
    this.kernel = {
      get now() {
        return scheduler.now;
      },
      costs: DEFAULT_COSTS,
      log: new EventLog(),
      mm: this.mm,
      ram,
      plants: NO_PLANTS,
      tracer: null,
      isExplored: false,
      spawn: (_name, body, cpu) => scheduler.spawn(body, cpu),
      post: () => {},
      notify: () => {},
    };
    this.folios = new Folios(this.mm);
    this.users = new MemoryUsers(this.kernel, this.folios);
    Object.assign(hooks, this.users.allocatorHooks);
    this.users.start();
    this.#freeAtBoot = this.mm.freePages();
  }

  /** Runs threads together until nothing happens for ten virtual seconds; returns their results. */
  run(...bodies: (() => Kthread<unknown>)[]): unknown[] {
    const results: unknown[] = [];
    let ended = 0;
    for (const [index, body] of bodies.entries()) {
      this.scheduler.spawn(function* () {
        results[index] = yield* body();
        ended++;
      }, index % 2);
    }
    this.scheduler.run(this.scheduler.now + 10e9, 0);
    if (ended !== bodies.length) throw new Error(`${bodies.length - ended} threads hang`);
    return results;
  }

  run1<T>(body: () => Kthread<T>): T {
    return this.run(body)[0] as T;
  }

  /** What does not hold, the allocator's own state included. */
  audit(): string[] {
    return [...this.mm.audit(), ...this.users.audit()];
  }

  /** Pages in use that were free at boot. */
  get usedPages(): number {
    return this.#freeAtBoot - this.mm.freePages();
  }
}
