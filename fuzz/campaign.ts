/**
 * Runs cases and counts how they end. Which kind a case is of, and on which machine it runs, follow
 * from the seed and its number alone, so that any case can be had again without the ones of other
 * machines.
 */
import type { Direction, Kind, Outcome, Session, Verdict } from './case.ts';
import { Draw, seedOf, type Tape } from './draw.ts';

/** Case by case: on which machine it runs, and as which of its cases. */
export interface Place {
  readonly kind: Kind;
  /** Number of the machine: with the seed it decides everything that happens on it. */
  readonly session: number;
  /** Number of the first case on this machine. */
  readonly firstCase: number;
}

export interface Failure {
  readonly case: number;
  readonly kind: string;
  readonly problem: string;
}

/** Cases by kind and label, and by outcome. */
export type Tally = Map<string, Map<string, Record<Outcome, number>>>;

export interface Campaign {
  readonly cases: number;
  readonly tally: Tally;
  readonly failure: Failure | null;
}

/** The machines of a campaign, in order. */
export function* sessions(kinds: readonly Kind[], seed: number): Generator<Place> {
  // Shares are of cases: a kind with many cases on a machine needs fewer machines.
  let total = 0;
  const sums = kinds.map(({ weight, casesPerSession }) => {
    total += weight / casesPerSession;
    return total;
  });
  let firstCase = 0;
  for (let session = 0; ; session++) {
    const at = (seedOf(seed, session, 0x5e55) / 2 ** 32) * total;
    const kind = kinds.find((_, i) => at < sums[i]!) ?? kinds.at(-1)!;
    yield { kind, session, firstCase };
    firstCase += kind.casesPerSession;
  }
}

/** Where a case has its place. */
export function placeOf(kinds: readonly Kind[], seed: number, number: number): Place {
  for (const place of sessions(kinds, seed)) {
    if (number < place.firstCase + place.kind.casesPerSession) return place;
  }
  throw new Error('there is a place for every case');
}

/**
 * Cases `0 … count−1`, or fewer: the first failure ends a campaign. `onCase` is told before each
 * case, so that whoever listens knows which one did not come to an end.
 */
export async function runCampaign(
  kinds: readonly Kind[],
  seed: number,
  count: number,
  onCase: (number: number) => void,
): Promise<Campaign> {
  const tally: Tally = new Map();
  let done = 0;
  for (const place of sessions(kinds, seed)) {
    if (done >= count) break;
    const cases = Math.min(place.kind.casesPerSession, count - done);
    const sources = Array.from({ length: cases }, (_, i) => seedOf(seed, place.session, i));
    const failure = await runSession(place, seed, sources, (index, verdict) => {
      onCase(place.firstCase + index);
      if (verdict) add(tally, place.kind.name, verdict);
    });
    if (failure) {
      const number = place.firstCase + failure.index;
      return {
        cases: number + 1,
        tally,
        failure: { case: number, kind: place.kind.name, problem: failure.problem },
      };
    }
    done += cases;
  }
  return { cases: done, tally, failure: null };
}

export interface SessionFailure {
  /** Which of the cases of this machine. */
  readonly index: number;
  readonly problem: string;
  /** The decisions of every case up to this one. */
  readonly tapes: readonly Tape[];
  /** What crossed the boundary in the last one. */
  readonly trace: readonly string[];
}

/** Cases on one machine, from seeds or tapes. Null: all ended as they must. */
export async function runSession(
  place: Pick<Place, 'kind' | 'session'>,
  seed: number,
  sources: readonly (number | Tape)[],
  onCase: (index: number, verdict: Verdict | null) => void = () => {},
): Promise<SessionFailure | null> {
  const session = await place.kind.open(seedOf(seed, place.session, 0x0be9));
  const tapes: Tape[] = [];
  const fail = (index: number, problem: string): SessionFailure => ({
    index,
    problem,
    tapes,
    trace: [...session.trace],
  });
  for (const [index, source] of sources.entries()) {
    const draw = new Draw(source);
    tapes.push(draw.tape);
    onCase(index, null);
    try {
      const verdict = await session.next(draw);
      onCase(index, verdict);
      if (verdict.problem !== null) return fail(index, verdict.problem);
    } catch (error) {
      return fail(index, describe(error));
    }
  }
  const problem = await closed(session);
  return problem === null ? null : fail(sources.length - 1, problem);
}

async function closed(session: Session): Promise<string | null> {
  try {
    return await session.close();
  } catch (error) {
    return describe(error);
  }
}

/** What was thrown, and where: its first lines. */
function describe(error: unknown): string {
  if (!(error instanceof Error)) return `threw ${String(error)}`;
  const lines = (error.stack ?? error.message).split('\n');
  return `threw ${lines.slice(0, 6).join('\n')}`;
}

function add(tally: Tally, kind: string, { label, outcome }: Verdict): void {
  const labels = tally.get(kind) ?? new Map<string, Record<Outcome, number>>();
  tally.set(kind, labels);
  const counts = labels.get(label) ?? { served: 0, ignored: 0, counted: 0, broken: 0, ended: 0 };
  labels.set(label, counts);
  counts[outcome]++;
}

export function kindsFor(kinds: readonly Kind[], direction: Direction): Kind[] {
  return kinds.filter((kind) => kind.direction === direction);
}
