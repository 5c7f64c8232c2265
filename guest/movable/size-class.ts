/**
 * Size classes of a zsmalloc-like pool (linux mm/zsmalloc.c). A class puts its objects one after
 * the other into zspages of one to four pages that need not be contiguous, so an object may begin
 * in one page and end in the next.
 */
import { PAGE_SIZE_BYTES } from '../../shared/index.ts';
import { SpinLock } from '../sched/locks.ts';

const MAX_PAGES_PER_ZSPAGE = 4;
/** Bytes of the largest object of each class. */
const CLASS_SIZES_BYTES = [256, 640, 1360, 2720, 3264, PAGE_SIZE_BYTES] as const;

/** `Z` is a zspage, which knows its class. */
export class SizeClass<Z> {
  readonly sizeBytes: number;
  readonly pagesPerZspage: number;
  readonly objectsPerZspage: number;
  /** Guards the zspages of the class and their free objects. */
  readonly lock: SpinLock;
  /** Those that hold objects and have room for another, and those that have none; oldest first. */
  readonly partial = new Set<Z>();
  readonly full = new Set<Z>();

  constructor(sizeBytes: number) {
    this.sizeBytes = sizeBytes;
    this.pagesPerZspage = pagesPerZspage(sizeBytes);
    this.objectsPerZspage = Math.floor((this.pagesPerZspage * PAGE_SIZE_BYTES) / sizeBytes);
    this.lock = new SpinLock(`zs class ${sizeBytes} lock`);
  }

  *zspages(): Generator<Z> {
    yield* this.partial;
    yield* this.full;
  }

  /** Index of the page of its zspage in which an object begins. */
  firstPageOf(object: number): number {
    return Math.floor((object * this.sizeBytes) / PAGE_SIZE_BYTES);
  }

  lastPageOf(object: number): number {
    return Math.floor(((object + 1) * this.sizeBytes - 1) / PAGE_SIZE_BYTES);
  }
}

export function sizeClasses<Z>(): readonly SizeClass<Z>[] {
  return CLASS_SIZES_BYTES.map((sizeBytes) => new SizeClass<Z>(sizeBytes));
}

/** The number of pages that wastes the smallest share at their end. */
function pagesPerZspage(sizeBytes: number): number {
  let best = 1;
  let bestShare = Number.POSITIVE_INFINITY;
  for (let count = 1; count <= MAX_PAGES_PER_ZSPAGE; count++) {
    const bytes = count * PAGE_SIZE_BYTES;
    const share = (bytes % sizeBytes) / bytes;
    if (share >= bestShare) continue;
    best = count;
    bestShare = share;
  }
  return best;
}
