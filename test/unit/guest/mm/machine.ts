import { PageAllocator, type PageAllocatorOptions } from '../../../../guest/mm/index.ts';
import { Bitmap } from '../../../../shared/index.ts';

export const NO_INIT = { initOnAlloc: false, initOnFree: false, pagePoison: false };

/** An allocator with all frames free but the first, and what its hook was asked to clear. */
export function freshMachine(options: Partial<PageAllocatorOptions> = {}): {
  mm: PageAllocator;
  cleared: string[];
} {
  const ramPages = options.ramPages ?? 1 << 14;
  const cleared: string[] = [];
  const mm = new PageAllocator(
    { vcpus: 1, mm: NO_INIT, ...options, ramPages },
    { clearPages: (pfn, pageCount, pattern) => cleared.push(`${pattern} ${pfn}+${pageCount}`) },
  );
  const free = new Bitmap(ramPages);
  free.setRange(1, ramPages - 1);
  mm.adoptFreeSet(free);
  return { mm, cleared };
}
