/** One batch of migrate_pages: up to 512 pages with what has become of each. */
import type { Pfn } from '../../shared/index.ts';

/** NR_MAX_BATCHED_MIGRATION: HPAGE_PMD_NR. */
export const NR_MAX_BATCHED_MIGRATION = 512;

export const EntryState = {
  /** Not tried yet, or to be tried again. */
  PENDING: 0,
  /** Locked and unmapped, as its target is locked. */
  UNMAPPED: 1,
  /** Moved, or found to be free already. */
  DONE: 2,
  /** Not in this call. */
  FAILED: 3,
} as const;

const NO_TARGET = -1;

export class Batch {
  readonly src = new Int32Array(NR_MAX_BATCHED_MIGRATION);
  readonly dst = new Int32Array(NR_MAX_BATCHED_MIGRATION);
  readonly nrPages = new Uint16Array(NR_MAX_BATCHED_MIGRATION);
  readonly state = new Uint8Array(NR_MAX_BATCHED_MIGRATION);
  count = 0;

  clear(): void {
    this.count = 0;
  }

  get isFull(): boolean {
    return this.count === NR_MAX_BATCHED_MIGRATION;
  }

  /** `dst`: a target that the caller has allocated already. */
  add(src: Pfn, nrPages: number, dst: Pfn = NO_TARGET): void {
    this.src[this.count] = src;
    this.nrPages[this.count] = nrPages;
    this.dst[this.count] = dst;
    this.state[this.count++] = EntryState.PENDING;
  }

  hasTarget(index: number): boolean {
    return this.dst[index] !== NO_TARGET;
  }

  dropTarget(index: number): void {
    this.dst[index] = NO_TARGET;
  }
}
