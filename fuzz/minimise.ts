/**
 * Makes a failure smaller: fewer cases before the one that fails, then plainer decisions in what is
 * left, as long as the same thing goes wrong.
 */
import type { Place, SessionFailure } from './campaign.ts';
import { runSession } from './campaign.ts';
import type { Tape } from './draw.ts';

/** Machines that are tried at most. */
const ATTEMPTS_MAX = 3000;

export interface Minimal {
  readonly failure: SessionFailure;
  readonly attempts: number;
}

/** `failure` again with as little as possible; itself when nothing can be left out. */
export async function minimise(
  place: Pick<Place, 'kind' | 'session'>,
  seed: number,
  failure: SessionFailure,
  onAttempt: () => void = () => {},
): Promise<Minimal> {
  const wanted = signature(failure);
  let best = failure;
  let attempts = 0;
  const accept = async (tapes: readonly Tape[]): Promise<boolean> => {
    if (attempts >= ATTEMPTS_MAX) return false;
    attempts++;
    onAttempt();
    const again = await runSession(place, seed, tapes);
    if (again === null || signature(again) !== wanted) return false;
    // Fewer cases may have been enough, and a tape may have been longer than what was read of it.
    best = again;
    return true;
  };
  await dropCases(() => best.tapes, accept);
  await simplify(() => best.tapes, accept);
  return { failure: best, attempts };
}

/** What goes wrong, without the numbers of the one time. */
function signature({ problem }: SessionFailure): string {
  return (problem.split('\n')[0] ?? '').replaceAll(/\d+/g, '#');
}

type Accept = (tapes: readonly Tape[]) => Promise<boolean>;

/** The last case fails; of those before it all, then halves, then single ones are left out. */
async function dropCases(current: () => readonly Tape[], accept: Accept): Promise<void> {
  if (await accept(current().slice(-1))) return;
  for (let size = current().length >>> 1; size >= 1; size >>>= 1) {
    for (let first = 0; first < current().length - 1; ) {
      const tapes = current();
      const end = Math.min(first + size, tapes.length - 1);
      if (!(await accept([...tapes.slice(0, first), ...tapes.slice(end)]))) first = end;
    }
  }
}

/** Each decision as small as it can be: 0 if that will do, or by halving the distance to what will not. */
async function simplify(current: () => readonly Tape[], accept: Accept): Promise<void> {
  for (let i = current().length - 1; i >= 0; i--) {
    for (let at = 0; at < (current()[i]?.length ?? 0); at++) {
      const to = (value: number) => accept(current().with(i, current()[i]!.with(at, value)));
      if (current()[i]![at] === 0 || (await to(0))) continue;
      let tooSmall = 0;
      for (;;) {
        const value = current()[i]?.[at] ?? 0;
        const middle = Math.floor((tooSmall + value) / 2);
        if (middle <= tooSmall) break;
        if (!(await to(middle))) tooSmall = middle;
      }
    }
  }
}
