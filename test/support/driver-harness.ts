/**
 * Driver and device in one process: the real scheduler, RAM, transport, driver and device with a
 * trivial host loop and an allocator that only counts up. For tests of the two sides' contract.
 */
import { BalloonDriver } from '../../guest/balloon/driver.ts';
import type { BalloonDriverOptions } from '../../guest/balloon/driver-options.ts';
import type { HintingStrategy, HintObserver } from '../../guest/balloon/hinting.ts';
import { Folios } from '../../guest/folio/index.ts';
import type { Kernel } from '../../guest/kernel/kernel.ts';
import { Ram, tagOfFill } from '../../guest/machine/ram.ts';
import { PAGEBLOCK_ORDER, PageAllocator } from '../../guest/mm/index.ts';
import { PageFlag, PageOwner, Pages } from '../../guest/mm/pages.ts';
import type { Zone } from '../../guest/mm/zone.ts';
import {
  ListGeneration,
  type MovableGeneration,
  PageMigration,
  PfnGeneration,
} from '../../guest/page-migration/index.ts';
import { PageReporting } from '../../guest/page-reporting/page-reporting.ts';
import type { Kthread } from '../../guest/sched/kthread.ts';
import { Scheduler } from '../../guest/sched/scheduler.ts';
import { ChannelTransport } from '../../guest/virtio/channel-transport.ts';
import {
  BALLOON_DEVICE_DEFAULTS,
  BalloonDevice,
  type BalloonDeviceOptions,
} from '../../host/balloon/device.ts';
import type { HintOrigin } from '../../host/balloon/hinting.ts';
import { type Message, type MmOptions, toUint32 } from '../../protocol/index.ts';
import {
  Bitmap,
  DEFAULT_COSTS,
  Errno,
  EventLog,
  EventQueue,
  NO_PLANTS,
  type Pfn,
  type Plants,
} from '../../shared/index.ts';

/** First fit over a stack of freed pages and a bump pointer; `limitPages` makes it fail. */
export class BumpAllocator {
  readonly pages: Pages;
  readonly freed: number[] = [];
  limitPages: number;
  allocatedPages = 0;
  readonly zone: { managedPages: number };
  #next = 1024;

  constructor(ramPages: number) {
    this.pages = new Pages(ramPages, 1);
    this.zone = { managedPages: ramPages };
    this.limitPages = ramPages - this.#next;
  }

  alloc(order: number, _gfp: number): number {
    const count = 1 << order;
    if (this.allocatedPages + count > this.limitPages) return Errno.ENOMEM;
    this.allocatedPages += count;
    const pfn = this.#take(order);
    this.pages.flags[pfn] = PageFlag.ALLOCATED;
    this.pages.order[pfn] = order;
    this.pages.owner[pfn] = PageOwner.USER;
    this.pages.refcount[pfn] = 1;
    return pfn;
  }

  free(pfn: number, order: number): void {
    this.pages.disown(pfn, order);
    this.allocatedPages -= 1 << order;
    this.freed.push(pfn);
  }

  zoneOf(): Pick<Zone, 'managedPages'> {
    return this.zone;
  }

  #take(order: number): number {
    if (order === 0 && this.freed.length > 0) return this.freed.pop()!;
    const count = 1 << order;
    const pfn = Math.ceil(this.#next / count) * count;
    this.#next = pfn + count;
    return pfn;
  }
}

/** Hints nothing. */
export const IDLE_STRATEGY: HintingStrategy = {
  name: 'none',
  heldPages: 0,
  holds: false,
  refills: true,
  *run() {},
  release() {},
};

export interface AcceptedHint extends HintOrigin {
  readonly firstPfn: Pfn;
  readonly pageCount: number;
}

export interface HarnessOptions {
  readonly ramPages?: number;
  readonly device?: Partial<BalloonDeviceOptions>;
  readonly driver?: Partial<BalloonDriverOptions>;
  readonly strategy?: HintingStrategy | null;
  /** Instead of `strategy`, for one that needs the kernel. */
  readonly createStrategy?: (kernel: Kernel) => HintingStrategy;
  readonly observers?: readonly HintObserver[];
  readonly recordHints?: boolean;
  /** The guest's own page allocator instead of the counting one. */
  readonly realAllocator?: boolean;
  readonly generation?: MovableGeneration['name'];
  /** CONFIG_BALLOON_COMPACTION; default true. */
  readonly compaction?: boolean;
  /** Size of ZONE_MOVABLE of the real allocator. */
  readonly movablePages?: number;
  /** What the real allocator fills pages with. */
  readonly mm?: Partial<MmOptions>;
  readonly plants?: Plants;
}

export class DriverHarness {
  readonly ram: Ram;
  readonly mm: BumpAllocator;
  readonly pageAllocator: PageAllocator | null;
  readonly kernel: Kernel;
  readonly folios: Folios;
  readonly generation: MovableGeneration;
  readonly migration: PageMigration;
  readonly transport: ChannelTransport;
  readonly reporting: PageReporting;
  readonly driver: BalloonDriver;
  readonly device: BalloonDevice;
  readonly hints: AcceptedHint[] = [];
  readonly discarded: [pfn: number, count: number][] = [];
  /** Every message of either side, in order. */
  readonly trace: Message[] = [];
  /** Tests may put themselves in the way of what the host sends; null drops it. */
  tamper: (message: Message) => Message | null = (message) => message;
  /** True: the device does not look at its queues. */
  stalled = false;
  readonly #scheduler = new Scheduler(1);
  readonly #posted: Message[] = [];
  readonly #hostEvents = new EventQueue<() => void>();

  constructor(options: HarnessOptions = {}) {
    const ramPages = options.ramPages ?? 65536;
    this.ram = new Ram(ramPages);
    this.mm = new BumpAllocator(ramPages);
    this.pageAllocator = options.realAllocator ? realAllocator(ramPages, options, this.ram) : null;
    const scheduler = this.#scheduler;
    this.kernel = {
      get now() {
        return scheduler.now;
      },
      costs: DEFAULT_COSTS,
      log: new EventLog(),
      mm: this.pageAllocator ?? (this.mm as unknown as PageAllocator),
      ram: this.ram,
      plants: options.plants ?? NO_PLANTS,
      tracer: null,
      isExplored: false,
      spawn: (_name, body, cpu) => scheduler.spawn(body, cpu),
      post: (message) => void this.#posted.push(message),
      notify: () => scheduler.notify(),
    };
    this.folios = new Folios(this.kernel.mm);
    const Generation = options.generation === 'pfn' ? PfnGeneration : ListGeneration;
    this.generation = new Generation(this.kernel, this.folios);
    this.migration = new PageMigration(this.kernel, this.folios, this.generation);
    this.transport = new ChannelTransport(this.kernel);
    this.reporting = new PageReporting(this.kernel, PAGEBLOCK_ORDER);
    this.driver = new BalloonDriver(this.kernel, {
      transport: this.transport,
      memory: {
        folios: this.folios,
        generation: this.generation,
        compaction: options.compaction ?? true,
        freedContent: this.pageAllocator?.freedContent ?? null,
      },
      statistics: (tags) => tags.map((tag) => [tag, 1000 * tag + this.now]),
      ...(this.pageAllocator ? { reporting: this.reporting } : {}),
      strategy:
        options.createStrategy?.(this.kernel) ??
        (options.strategy === undefined ? IDLE_STRATEGY : options.strategy),
      observers: options.observers ?? [],
      ...options.driver,
    });
    this.device = new BalloonDevice(
      { ...BALLOON_DEVICE_DEFAULTS, ramPages, costs: DEFAULT_COSTS, ...options.device },
      {
        post: (message) => this.#toGuest(message),
        now: () => this.now,
        after: (delayNs, action) => this.#hostEvents.schedule(this.now + delayNs, action),
        onHint: (firstPfn, pageCount, origin) => {
          if (options.recordHints === false) return;
          this.hints.push({ firstPfn, pageCount, ...origin });
        },
      },
    );
  }

  get now(): number {
    return this.#scheduler.now;
  }

  /** Probe, and let everything settle. */
  boot(): this {
    this.driver.start();
    this.runFor(1_000_000);
    return this;
  }

  /** Runs a kernel thread until it has ended, at most for so long; returns its result. */
  run<T>(body: () => Kthread<T>, withinNs = 10_000_000_000): T | 'running' {
    let result: T | 'running' = 'running';
    this.kernel.spawn('test', function* () {
      result = yield* body();
    });
    this.runFor(withinNs);
    return result;
  }

  runFor(ns: number): void {
    const until = this.now + ns;
    this.#collect();
    for (;;) {
      while (this.#hostEvents.nextAt <= this.now) this.#hostEvents.take()!.value();
      const grant = Math.min(until, this.#hostEvents.nextAt);
      const reason = this.#scheduler.run(grant, DEFAULT_COSTS.notifyNs);
      this.#collect();
      if (reason.kind === 'access') {
        this.trace.push(reason.message);
        this.#scheduler.completeAccess(this.device.handle(reason.message)!);
      } else if (this.now >= until && this.#hostEvents.nextAt > until) return;
    }
  }

  #collect(): void {
    for (const message of this.#posted.splice(0)) {
      this.trace.push(message);
      this.device.handle(message);
    }
    if (this.stalled) return;
    for (const message of this.transport.drainAvail()) {
      this.trace.push(message);
      const { used, irqVectors, costNs } = this.device.handleAvail(message);
      this.#hostEvents.schedule(this.now + costNs, () => {
        for (const one of used) this.#toGuest(one);
        for (const vector of irqVectors) this.#toGuest({ name: 'irq', vector });
      });
    }
  }

  #toGuest(original: Message): void {
    const message = this.tamper(original);
    if (message === null) return;
    this.trace.push(message);
    if (message.name === 'discard') {
      const ranges = toUint32(message.ranges)!;
      for (let i = 0; i < ranges.length; i += 2) {
        this.discarded.push([ranges[i]!, ranges[i + 1]!]);
        this.ram.discard(ranges[i]!, ranges[i + 1]!);
      }
    } else if (
      message.name === 'used' ||
      message.name === 'irq' ||
      message.name === 'configChanged'
    ) {
      this.transport.receive(message);
    }
  }
}

function realAllocator(ramPages: number, options: HarnessOptions, ram: Ram): PageAllocator {
  const { movablePages = 0 } = options;
  const mm = { initOnAlloc: true, initOnFree: false, pagePoison: false, ...options.mm };
  const allocator = new PageAllocator(
    { ramPages, movablePages, vcpus: 1, mm },
    {
      clearPages: (pfn, pageCount, pattern) => ram.fill(pfn, pageCount, tagOfFill(pattern)),
    },
  );
  const free = new Bitmap(ramPages);
  free.setRange(1024, ramPages - 1024);
  allocator.adoptFreeSet(free);
  return allocator;
}
