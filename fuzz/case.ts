/**
 * What a case is and how it may end. A case is one hostile input to a machine that many cases share;
 * whatever it is, it must end in one of `OUTCOMES`, and a case that is wrong by construction must
 * not be accepted in silence.
 */
import { BallastError } from '../shared/index.ts';
import type { Draw } from './draw.ts';

export const DIRECTIONS = ['guest-to-host', 'host-to-guest'] as const;
export type Direction = (typeof DIRECTIONS)[number];

export const OUTCOMES = [
  /** Did what a well-behaved peer would have had done. */
  'served',
  /** Had no effect, and the rules do not ask that it is counted. */
  'ignored',
  /** A counter of violations grew. */
  'counted',
  /** virtio_error: DEVICE_NEEDS_RESET, or a ring that is left alone from now on. */
  'broken',
  /** The session ended with a BallastError of one line. */
  'ended',
] as const;
export type Outcome = (typeof OUTCOMES)[number];

/** Outcomes of what is wrong by construction. */
export const REJECTED: readonly Outcome[] = ['counted', 'broken', 'ended'];
/** Of what may be right or wrong: everything but a failure. */
export const ANY: readonly Outcome[] = [...OUTCOMES];

export interface Verdict {
  /** What was sent: `avail.heads odd length`. */
  readonly label: string;
  readonly outcome: Outcome;
  /** Null: as it must be. Otherwise what is wrong, in one line. */
  readonly problem: string | null;
}

/** Cases on one machine, one after the other. */
export interface Session {
  /** The next case; throws what no peer may ever cause. */
  next(draw: Draw): Verdict | Promise<Verdict>;
  /** After the last case: null, or what does not hold any more. */
  close(): string | null | Promise<string | null>;
  /** What crossed the boundary in the last case, for a reproducer. */
  readonly trace: readonly string[];
}

export interface Kind {
  readonly name: string;
  readonly direction: Direction;
  readonly about: string;
  /** Share of the cases of its direction, in parts of the sum. */
  readonly weight: number;
  readonly casesPerSession: number;
  open(seed: number): Session | Promise<Session>;
}

/** The verdict of a case whose outcome must be one of `allowed`. */
export function judge(label: string, outcome: Outcome, allowed: readonly Outcome[]): Verdict {
  const problem = allowed.includes(outcome)
    ? null
    : `${label}: ${outcome}, expected ${allowed.join(' or ')}`;
  return { label, outcome, problem };
}

/** How a session ended. Throws again what is no answer to a peer's mistake. */
export function endOf(error: unknown): BallastError {
  if (!(error instanceof BallastError)) throw error;
  if (error.message.includes('\n') || error.message.length > 512) {
    throw new Error(`the session ended with more than a line: ${error.message.slice(0, 200)}`);
  }
  return error;
}
