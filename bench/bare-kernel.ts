/** A kernel around a page allocator, without devices and without time. */
import type { Kernel } from '../guest/kernel/kernel.ts';
import { Ram } from '../guest/machine/ram.ts';
import { PageAllocator } from '../guest/mm/index.ts';
import type { Kthread } from '../guest/sched/kthread.ts';
import { assert, Bitmap, DEFAULT_COSTS, NO_PLANTS } from '../shared/index.ts';

/** An allocator of which every frame is free; pages are given out as they are. */
export function freeMemory(ramPages: number): PageAllocator {
  const mm = { initOnAlloc: false, initOnFree: false, pagePoison: false };
  const allocator = new PageAllocator({ ramPages, vcpus: 1, mm }, { clearPages() {} });
  const free = new Bitmap(ramPages);
  free.setAll();
  allocator.adoptFreeSet(free);
  return allocator;
}

export function bareKernel(mm: PageAllocator): Kernel {
  return {
    now: 0,
    costs: DEFAULT_COSTS,
    log: { add() {} },
    mm,
    ram: new Ram(mm.pages.ramPages),
    plants: NO_PLANTS,
    tracer: null,
    isExplored: false,
    spawn() {},
    post() {},
    notify() {},
  };
}

/** Runs a thread to its end; what it charges takes no time. */
export function finish<T>(thread: Kthread<T>): T {
  for (;;) {
    const { value, done } = thread.next();
    if (done) return value;
    assert(value.kind === 'cpu' || value.kind === 'preempt', 'nothing has to be waited for');
  }
}
