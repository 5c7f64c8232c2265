/** What main.ts and the process that runs the cases say to each other. */
import type { Failure, SessionFailure } from './campaign.ts';
import type { Direction, Outcome } from './case.ts';

export interface FuzzRequest {
  /** Run so many cases, or repeat the one of this number. */
  readonly task: 'campaign' | 'repeat';
  readonly direction: Direction;
  /** Names of kinds; empty: all of the direction. */
  readonly kinds: readonly string[];
  readonly seed: number;
  readonly cases: number;
}

/** Outcomes by label, by kind. */
export type TallyRows = readonly (readonly [
  kind: string,
  labels: readonly (readonly [label: string, counts: Readonly<Record<Outcome, number>>])[],
])[];

export interface Done {
  readonly kind: 'done';
  readonly cases: number;
  readonly ms: number;
  readonly tally: TallyRows;
  /** Between a fifth of the cases and the end, garbage collected; null: too few cases to say. */
  readonly heapGrowthBytes: number | null;
  readonly failure: Failure | null;
}

export interface Repeated {
  readonly kind: 'repeated';
  readonly kindName: string;
  /** Cases that ran before it on the same machine. */
  readonly before: number;
  /** As small as it could be made. */
  readonly failure: (SessionFailure & { readonly attempts: number }) | null;
}

export type FuzzReply =
  | { readonly kind: 'progress'; readonly case: number; readonly ms: number }
  | Done
  | Repeated;
