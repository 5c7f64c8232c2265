/** One batch of migrate_pages: up to 512 base pages, with what has become of each block. */
import type { Pfn } from '../../shared/index.ts';

/** NR_MAX_BATCHED_MIGRATION: HPAGE_PMD_NR. */
export const NR_MAX_BATCHED_MIGRATION = 512;

export const EntryState = {
  /** Not tried yet. */
  PENDING: 0,
  /** Tried, and to be tried again. */
  BUSY: 1,
  /** Locked and unmapped, as its target is locked. */
  UNMAPPED: 2,
  /** Moved, or found to be free already. */
  DONE: 3,
  /** Not with this mode. */
  FAILED: 4,
} as const;

const NO_TARGET = -1;

export class Batch {
  readonly src = new Int32Array(NR_MAX_BATCHED_MIGRATION);
  readonly dst = new Int32Array(NR_MAX_BATCHED_MIGRATION);
  readonly nrPages = new Uint16Array(NR_MAX_BATCHED_MIGRATION);
  readonly state = new Uint8Array(NR_MAX_BATCHED_MIGRATION);
  /** Blocks in it. */
  count = 0;
  #basePages = 0;

  clear(): void {
    this.count = 0;
    this.#basePages = 0;
  }

  /** The last block may be larger than what was left. */
  get isFull(): boolean {
    return this.#basePages >= NR_MAX_BATCHED_MIGRATION;
  }

  /** `dst`: a target that the caller has allocated already. */
  add(src: Pfn, nrPages: number, dst: Pfn = NO_TARGET): void {
    this.src[this.count] = src;
    this.nrPages[this.count] = nrPages;
    this.dst[this.count] = dst;
    this.state[this.count++] = EntryState.PENDING;
    this.#basePages += nrPages;
  }

  /** Still to be tried in this phase: new, or busy the last time. */
  isOpen(index: number): boolean {
    return this.state[index]! <= EntryState.BUSY;
  }

  hasTarget(index: number): boolean {
    return this.dst[index] !== NO_TARGET;
  }

  dropTarget(index: number): void {
    this.dst[index] = NO_TARGET;
  }
}
