/** A kernel without devices: page allocator, RAM and scheduler, for what runs as a kernel thread. */
import type { Kernel } from '../../../../guest/kernel/kernel.ts';
import { Ram, ZERO_TAG } from '../../../../guest/machine/ram.ts';
import { PageAllocator } from '../../../../guest/mm/index.ts';
import type { Kthread } from '../../../../guest/sched/kthread.ts';
import { Scheduler } from '../../../../guest/sched/scheduler.ts';
import type { MmOptions } from '../../../../protocol/index.ts';
import { Bitmap, DEFAULT_COSTS, EventLog, NO_PLANTS } from '../../../../shared/index.ts';
import { NO_INIT } from '../mm/machine.ts';

interface BareKernelOptions {
  readonly ramPages: number;
  /** Frames for the buddy lists; the others are the kernel's, with content. */
  readonly isFree: (pfn: number) => boolean;
  readonly mm?: MmOptions;
}

interface BareKernel {
  readonly kernel: Kernel;
  readonly mm: PageAllocator;
  readonly ram: Ram;
  readonly scheduler: Scheduler;
  /** Start a thread and let virtual time pass. */
  run(body: () => Kthread, untilNs: number): void;
}

export function bareKernel({ ramPages, isFree, mm: options }: BareKernelOptions): BareKernel {
  const ram = new Ram(ramPages);
  const scheduler = new Scheduler(1);
  const mm = new PageAllocator(
    { ramPages, vcpus: 1, mm: options ?? NO_INIT },
    { clearPages: (pfn, pageCount) => ram.fill(pfn, pageCount, ZERO_TAG) },
  );
  const free = new Bitmap(ramPages);
  for (let pfn = 0; pfn < ramPages; pfn++) {
    if (isFree(pfn)) free.set(pfn);
    ram.setInitial(pfn, isFree(pfn), isFree(pfn));
  }
  mm.adoptFreeSet(free);
  const kernel: Kernel = {
    get now() {
      return scheduler.now;
    },
    costs: DEFAULT_COSTS,
    log: new EventLog(),
    mm,
    ram,
    plants: NO_PLANTS,
    tracer: null,
    isExplored: false,
    spawn: (_name, body, cpu) => scheduler.spawn(body, cpu),
    post: () => {},
    notify: () => {},
  };
  const run = (body: () => Kthread, untilNs: number) => {
    scheduler.spawn(body);
    scheduler.run(untilNs, 0);
  };
  return { kernel, mm, ram, scheduler, run };
}
