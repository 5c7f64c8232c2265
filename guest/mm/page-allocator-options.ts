/** What a page allocator is made of, and what it asks of the kernel around it. */
import type { MmOptions } from '../../protocol/control.ts';
import type { Pfn } from '../../shared/index.ts';
import type { GfpMask } from './gfp.ts';
import type { ZoneType } from './zone-type.ts';

export interface PageAllocatorOptions {
  readonly ramPages: number;
  readonly vcpus: number;
  readonly mm: MmOptions;
  /** Size of ZONE_MOVABLE; default 0. */
  readonly movablePages?: number;
  /** vm.min_free_kbytes; default: what Linux computes from the memory size. */
  readonly minFreeKbytes?: number;
}

export interface PageAllocatorHooks {
  /** Page contents become zero, or the poison pattern. */
  clearPages(pfn: Pfn, pageCount: number, pattern: 'zero' | 'poison'): void;
  /** A block is handed out with whatever is in it. */
  leavePages?(pfn: Pfn, pageCount: number): void;
  /** A block is handed out that was filled when it was freed, and is not filled again. */
  trustPages?(pfn: Pfn, pageCount: number, pattern: 'zero' | 'poison'): void;
  /** Direct reclaim: tries to free memory; returns the pages it freed. None: nothing can be reclaimed. */
  reclaim?(order: number, gfp: GfpMask): number;
  /** wake_all_kswapds: the low watermark is not met for a request of that order. */
  wakeKswapd?(order: number, highest: ZoneType): void;
}
