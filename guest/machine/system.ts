/**
 * The guest's kernel with everything in it, around a scheduler and without a channel: what boots,
 * what its parts know of each other, what is audited. `Guest` puts it behind the channel; an
 * explorer of schedules drives the same with a scheduler of its own.
 */

import type { GuestConfig, Message } from '../../protocol/index.ts';
import type { EventLog, Nanoseconds, Plants } from '../../shared/index.ts';
import type { BalloonDriver } from '../balloon/driver.ts';
import { refusesToHint } from '../balloon/features.ts';
import type { HintingStrategy } from '../balloon/hinting.ts';
import { Compaction, Kcompactd } from '../compaction/index.ts';
import { Folios } from '../folio/index.ts';
import { createStrategy } from '../hinting/create.ts';
import { HintRecord } from '../hinting/hint-record.ts';
import type { ContentReader } from '../kernel/content-reader.ts';
import type { Kernel, PageTracer } from '../kernel/kernel.ts';
import type { MemoryUsers } from '../memory-users/memory-users.ts';
import { PageAllocator } from '../mm/index.ts';
import { MappedDriver, PageTables, Zspool } from '../movable/index.ts';
import {
  ListGeneration,
  MemoryFailure,
  type MovableGeneration,
  PageMigration,
  PfnGeneration,
} from '../page-migration/index.ts';
import { PageReporting } from '../page-reporting/page-reporting.ts';
import { PageReliance, Reliance } from '../reliance/page-reliance.ts';
import type { Kthread } from '../sched/kthread.ts';
import type { VirtioTransport } from '../virtio/transport.ts';
import { ANY_CONTENT, auditFreedContent, ContentChecks } from './content-checks.ts';
import { createDriver } from './create-driver.ts';
import { memoryUsers, registerHintShrinker } from './memory-management.ts';
import { Ram, tagOfFill } from './ram.ts';
import { UserSpace } from './user-space.ts';

/** What drives the kernel's threads. */
export interface KernelScheduler {
  readonly now: Nanoseconds;
  /** `name` is for traces. */
  spawn(body: () => Kthread, cpu: number, name: string): void;
  /** A queue was notified now. */
  notify(): void;
}

/** A transport that counts what passes it. */
export interface CountingTransport extends VirtioTransport {
  readonly counters: Readonly<Record<string, number>>;
}

export interface SystemRuntime<T extends CountingTransport> {
  /** What the balloon device sits on. */
  createTransport(kernel: Kernel): T;
  readonly scheduler: KernelScheduler;
  readonly log: Pick<EventLog, 'add'>;
  /** A message that the kernel posts to the host. */
  post(message: Message): void;
  readonly plants: Plants;
  readonly tracer: PageTracer | null;
  readonly isExplored: boolean;
}

/** The part of the configuration that the kernel sees. */
export type SystemConfig = Pick<
  GuestConfig,
  'ramPages' | 'vcpus' | 'mm' | 'kernel' | 'strategy' | 'driver' | 'iterate' | 'costs'
>;

/** An explored machine lives for some hundred steps, and there are thousands of them a second. */
const EXPLORED_HINT_RANGES = 64;

export class System<T extends CountingTransport = CountingTransport> {
  readonly ram: Ram;
  /** What the guest itself has found to be other than it relied on. */
  readonly contents: ContentChecks;
  readonly mm: PageAllocator;
  readonly kernel: Kernel;
  readonly folios: Folios;
  readonly generation: MovableGeneration;
  readonly migration: PageMigration;
  readonly memoryFailure: MemoryFailure;
  readonly compaction: Compaction;
  readonly kcompactd: Kcompactd;
  readonly users: MemoryUsers;
  readonly userSpace: UserSpace;
  readonly transport: T;
  readonly strategy: HintingStrategy | null;
  readonly hints: HintRecord;
  readonly reporting: PageReporting;
  /** Who relies on what a page holds. */
  readonly reliance: PageReliance;
  readonly driver: BalloonDriver;
  /** The guest relies on what its free pages hold, and its strategy would spoil them. */
  readonly #refusesToHint: boolean;
  /** Who else has memory to be audited. */
  readonly alsoAudited: { audit(holds: ContentReader): string[] }[] = [];
  #zspool: Zspool | null = null;
  #mappedDriver: MappedDriver | null = null;
  #pageTables: PageTables | null = null;

  /** All frames are allocated until somebody calls `mm.adoptFreeSet`. */
  constructor(config: SystemConfig, runtime: SystemRuntime<T>) {
    const ram = new Ram(config.ramPages);
    this.ram = ram;
    this.contents = new ContentChecks(ram);
    this.mm = new PageAllocator(
      {
        ramPages: config.ramPages,
        vcpus: config.vcpus,
        mm: config.mm,
        movablePages: config.kernel.movableZonePages,
      },
      {
        clearPages: (pfn, pageCount, pattern) => ram.fill(pfn, pageCount, tagOfFill(pattern)),
        leavePages: (pfn, pageCount) => ram.undefinedPages.setRange(pfn, pageCount),
        trustPages: (pfn, pageCount, pattern) =>
          this.contents.trusted(pfn, pageCount, tagOfFill(pattern)),
        reclaim: (order, gfp) => this.users.allocatorHooks.reclaim(order, gfp),
        wakeKswapd: (order, highest) => this.users.kswapd.wake(order, highest),
      },
    );
    this.mm.freeLists.walk.cursorDangles = runtime.plants.danglingIteratorCursor;
    this.kernel = kernelOf(config, runtime, this.mm, ram);
    this.folios = new Folios(this.mm);
    this.generation =
      config.kernel.movableGeneration === 'list'
        ? new ListGeneration(this.kernel, this.folios)
        : new PfnGeneration(this.kernel, this.folios);
    this.migration = new PageMigration(this.kernel, this.folios, this.generation);
    this.memoryFailure = new MemoryFailure(this.kernel, this.folios, this.migration);
    this.compaction = new Compaction(this.kernel, this.folios, this.migration, config.kernel);
    this.kcompactd = new Kcompactd(this.kernel, this.compaction);
    this.users = memoryUsers(this);
    this.userSpace = new UserSpace(this.users, this.contents);
    this.transport = runtime.createTransport(this.kernel);
    this.strategy = createStrategy(this.kernel, config);
    registerHintShrinker(this.users, this.strategy);
    this.hints = new HintRecord(
      (pfn) => this.mm.isFree(pfn) || this.strategy?.isHeld?.(pfn) === true,
      runtime.isExplored ? EXPLORED_HINT_RANGES : undefined,
    );
    this.reporting = new PageReporting(this.kernel, config.kernel.pageReportingOrder);
    this.reliance = new PageReliance({
      mm: this.mm,
      undefinedPages: ram.undefinedPages,
      strategy: this.strategy,
    });
    ram.isInUse = (pfn) => this.reliance.of(pfn) === Reliance.CONTENTS;
    this.driver = createDriver(this, config);
    this.#refusesToHint = refusesToHint({
      strategy: this.strategy,
      memory: this.mm,
      hintTrustedFreePages: config.driver?.hintTrustedFreePages === true,
    });
  }

  /** Users of movable pages that a machine has only if somebody uses them. */
  get zspool(): Zspool {
    this.#zspool ??= new Zspool(this.kernel, this.folios, this.generation);
    return this.#zspool;
  }

  get mappedDriver(): MappedDriver {
    this.#mappedDriver ??= new MappedDriver(this.kernel, this.folios, this.generation);
    return this.#mappedDriver;
  }

  get pageTables(): PageTables {
    this.#pageTables ??= new PageTables(this.kernel, this.folios, this.generation);
    return this.#pageTables;
  }

  /**
   * Empty when every page has exactly one owner, all counts agree, and pages hold what was written.
   * `contents` false: not what they hold, as a hostile host may write and discard any page.
   */
  audit(contents = true): string[] {
    const problems = [...this.mm.audit(), ...this.driver.audit(), ...this.reporting.audit()];
    // What an audit finds, the guest has found.
    const holds: ContentReader = contents
      ? (pfn, tag) => this.contents.read(pfn, tag)
      : ANY_CONTENT;
    for (const user of this.#movableUsers()) problems.push(...user.audit(holds));
    problems.push(...this.users.audit(), ...this.userSpace.audit(holds));
    for (const one of this.alsoAudited) problems.push(...one.audit(holds));
    if (contents) problems.push(...auditFreedContent(this));
    return problems;
  }

  #movableUsers(): (Zspool | MappedDriver | PageTables)[] {
    return [this.#zspool, this.#mappedDriver, this.#pageTables].filter((user) => user !== null);
  }

  /** Named counters; those of Linux have the names of /proc/vmstat. */
  statistics(): Record<string, number> {
    return {
      nr_free_pages: this.mm.freePages(),
      managed_pages: this.mm.zones.reduce((sum, zone) => sum + zone.managedPages, 0),
      held_pages: this.strategy?.heldPages ?? 0,
      balloon_pages: this.driver.numPages,
      ...this.strategy?.counters,
      ...this.mm.vmstat,
      ...this.driver.counters,
      ...this.driver.hinting?.counters,
      ...this.reporting.counters,
      ...this.hints.counters,
      ...this.transport.counters,
      ...this.memoryFailure.counters,
      ...this.compaction.counters,
      ...Object.assign({}, ...this.#movableUsers().map(({ counters }) => counters)),
      hwpoison_pages: this.folios.poisonedPages,
      corruptions: this.contents.corruptions,
      dirty_faults: this.ram.dirtyLog.faultCount,
      dirty_limited_ns: this.ram.dirtyLog.limitedNs,
      dirty_ring_full: this.ram.dirtyLog.ringFullCount,
      strategy_holds: Number(this.strategy?.holds === true),
      hinting_declined_trusted_free: Number(this.#refusesToHint),
    };
  }
}

function kernelOf(
  config: SystemConfig,
  runtime: SystemRuntime<CountingTransport>,
  mm: PageAllocator,
  ram: Ram,
): Kernel {
  const { scheduler } = runtime;
  return {
    get now() {
      return scheduler.now;
    },
    costs: config.costs,
    log: runtime.log,
    mm,
    ram,
    plants: runtime.plants,
    tracer: runtime.tracer,
    isExplored: runtime.isExplored,
    spawn: (name, body, cpu = 0) => scheduler.spawn(body, cpu, name),
    post: (message) => runtime.post(message),
    notify: () => scheduler.notify(),
  };
}
