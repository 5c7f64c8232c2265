/** What processes, the page cache and whoever else uses pages need of the kernel. */
import type { Errno, Pfn } from '../../shared/index.ts';
import type { Kernel } from '../kernel/kernel.ts';
import type { GfpMask } from '../mm/index.ts';
import type { Kthread } from '../sched/kthread.ts';
import type { Folios } from './folios.ts';

/** Where pages come from. */
export interface PageSource {
  /** A block with one reference, or ENOMEM: wakes kswapd, but waits for nothing. */
  tryAlloc(order: number, gfp: GfpMask, cpu: number): Pfn | Errno;
  /** alloc_pages: waits for reclaim, compaction and the OOM killer as `gfp` allows. */
  allocPages(order: number, gfp: GfpMask, cpu: number): Kthread<Pfn | Errno>;
}

export interface Memory {
  readonly kernel: Kernel;
  readonly folios: Folios;
  readonly source: PageSource;
}

/** Things of the kernel that hold references of pages, for the audit. */
export interface ReferenceHolder {
  /** Adds the references that it holds now, by page frame. */
  countReferences(into: Int32Array): void;
}
