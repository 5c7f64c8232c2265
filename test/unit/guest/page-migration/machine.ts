/** A kernel with page migration in one generation, two vCPUs, a scripted driver and a test mapping. */

import { Folios } from '../../../../guest/folio/index.ts';
import type { ContentReader } from '../../../../guest/kernel/content-reader.ts';
import type { Kernel } from '../../../../guest/kernel/kernel.ts';
import { Ram, ZERO_TAG } from '../../../../guest/machine/ram.ts';
import { Gfp, PageAllocator } from '../../../../guest/mm/index.ts';
import {
  ListGeneration,
  MemoryFailure,
  type MigrateMode,
  type MigrateRequest,
  type MigrateTarget,
  type MovableGeneration,
  PageMigration,
  PfnGeneration,
} from '../../../../guest/page-migration/index.ts';
import type { Kthread } from '../../../../guest/sched/kthread.ts';
import { Scheduler } from '../../../../guest/sched/scheduler.ts';
import {
  Bitmap,
  DEFAULT_COSTS,
  Errno,
  EventLog,
  NO_PLANTS,
  type Plants,
} from '../../../../shared/index.ts';
import { NO_INIT } from '../mm/machine.ts';

export const GENERATIONS = ['list', 'pfn'] as const;
export type GenerationName = (typeof GENERATIONS)[number];

/** Frames below are the kernel's, for ever. */
export const KERNEL_PAGES = 512;
const RAM_PAGES = 4096;

interface MachineOptions {
  readonly plants?: Partial<Plants>;
  readonly ramPages?: number;
  /** Size of ZONE_MOVABLE. */
  readonly movablePages?: number;
  readonly isExplored?: boolean;
}

export class MigrationMachine {
  readonly ram: Ram;
  readonly mm: PageAllocator;
  readonly folios: Folios;
  readonly kernel: Kernel;
  readonly scheduler = new Scheduler(2);
  readonly generation: MovableGeneration;
  readonly migration: PageMigration;
  readonly memoryFailure: MemoryFailure;
  /** Tracer notes, `isolate 700`. */
  readonly notes: string[] = [];
  /** Free pages after boot. */
  readonly freeAtStart: number;
  /** The default target: counts, and fails on demand. */
  readonly target: MigrateTarget & { allocated: number; freed: number; leftUntilEnomem: number };

  /** For audits. */
  readonly holds: ContentReader = (pfn, tag) => this.ram.tags[pfn] === tag;

  constructor(name: GenerationName, options: MachineOptions = {}) {
    const ramPages = options.ramPages ?? RAM_PAGES;
    const ram = new Ram(ramPages);
    this.ram = ram;
    this.mm = new PageAllocator(
      {
        ramPages,
        vcpus: 2,
        mm: NO_INIT,
        minFreeKbytes: 0,
        movablePages: options.movablePages ?? 0,
      },
      { clearPages: (pfn, pageCount) => ram.fill(pfn, pageCount, ZERO_TAG) },
    );
    const free = new Bitmap(ramPages);
    free.setRange(KERNEL_PAGES, ramPages - KERNEL_PAGES);
    this.mm.adoptFreeSet(free);
    this.freeAtStart = this.mm.freePages();
    this.folios = new Folios(this.mm);
    this.kernel = this.#kernelWith(options);
    const Generation = name === 'list' ? ListGeneration : PfnGeneration;
    this.generation = new Generation(this.kernel, this.folios);
    this.migration = new PageMigration(this.kernel, this.folios, this.generation);
    this.memoryFailure = new MemoryFailure(this.kernel, this.folios, this.migration);
    this.target = this.#newTarget();
  }

  get pages() {
    return this.folios.pages;
  }

  /** A page of user memory with content of its own, and one reference. */
  allocate(order = 0): number {
    const pfn = this.mm.alloc(order, Gfp.GFP_HIGHUSER_MOVABLE);
    if (pfn < 0) throw new Error('the machine is too small');
    for (let i = 0; i < 1 << order; i++) this.ram.write(pfn + i);
    return pfn;
  }

  /** Runs a thread on vCPU 0 to its end; what others do meanwhile happens, too. */
  run<T>(body: () => Kthread<T>): T {
    const result: { value?: T } = {};
    this.spawn(function* () {
      result.value = yield* body();
    });
    this.settle();
    if (!('value' in result)) throw new Error('the thread waits for ever');
    return result.value as T;
  }

  spawn(body: () => Kthread, cpu = 0): void {
    this.scheduler.spawn(body, cpu);
  }

  /** Until nothing can happen any more. */
  settle(): void {
    this.scheduler.run(this.scheduler.now + 1e9, 0);
  }

  request(mode: MigrateMode, more: Partial<MigrateRequest> = {}): MigrateRequest {
    return { mode, reason: 'compaction', target: this.target, ...more };
  }

  /** Isolates all, migrates them, and puts back what is left. */
  *migrateAll(
    pfns: readonly number[],
    mode: MigrateMode,
    more: Partial<MigrateRequest> = {},
  ): Kthread<number> {
    const isolated = yield* this.isolateAll(pfns, mode);
    const result = yield* this.migration.migrate(isolated, this.request(mode, more));
    yield* this.migration.putbackAll(isolated);
    this.migration.recycle(isolated);
    return result;
  }

  *isolateAll(pfns: readonly number[], mode: MigrateMode) {
    const isolated = this.migration.newSet(pfns.length);
    for (const pfn of pfns) if (yield* this.migration.isolate(pfn, mode)) isolated.add(pfn);
    return isolated;
  }

  /** Every reason why memory is not as it should be while no page is isolated. */
  audit(): string[] {
    const { lruvec } = this.folios;
    const isolatedPages = lruvec.isolatedAnonPages + lruvec.isolatedFilePages;
    const lost = this.target.allocated - this.target.freed;
    return [
      ...this.mm.audit(),
      ...(isolatedPages === 0 ? [] : [`NR_ISOLATED is ${isolatedPages}`]),
      ...(lost >= 0 ? [] : ['more targets freed than allocated']),
    ];
  }

  #newTarget() {
    const { mm, folios } = this;
    const target = {
      allocated: 0,
      freed: 0,
      leftUntilEnomem: Number.POSITIVE_INFINITY,
      alloc: (_src: number, order: number) => {
        if (target.leftUntilEnomem-- <= 0) return Errno.ENOMEM;
        target.allocated++;
        return mm.alloc(order, Gfp.GFP_HIGHUSER_MOVABLE);
      },
      free: (dst: number) => {
        target.freed++;
        folios.put(dst);
      },
    };
    return target;
  }

  #kernelWith({ plants, isExplored }: MachineOptions): Kernel {
    const { scheduler } = this;
    return {
      get now() {
        return scheduler.now;
      },
      costs: DEFAULT_COSTS,
      log: new EventLog(),
      mm: this.mm,
      ram: this.ram,
      plants: { ...NO_PLANTS, ...plants },
      tracer: { note: (what, pfn) => void this.notes.push(`${what} ${pfn}`) },
      isExplored: isExplored ?? false,
      spawn: (_name, body, cpu) => scheduler.spawn(body, cpu),
      post: () => {},
      notify: () => {},
    };
  }
}
