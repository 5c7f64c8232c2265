/**
 * Planted bugs: real mistakes of the past that can be switched on to prove that the schedule
 * explorer finds them. All off in every other program; no scenario of `ballast run` reaches them.
 * docs/races/ has a page for each.
 */
export const PLANT_NAMES = [
  'hwpoison-on-failure',
  'putback-after-success',
  'isolate-without-page-lock',
  'driver-clears-movable-of-isolated',
  'balloon-frees-isolated',
  'leak-on-enomem',
  'dangling-iterator-cursor',
  'late-hint-accepted',
  'dirty-log-cleared-at-hint',
  'hint-discards-without-ack',
  'hints-trusted-free-pages',
] as const;
export type PlantName = (typeof PLANT_NAMES)[number];

/** What each plant does, for `--list-plants` and the documentation. */
export interface Plants {
  /** HWPoison is set, and counted, although the migration of the page failed. */
  readonly hwpoisonOnFailure: boolean;
  /** A page whose migration succeeded is put back to its driver instead of freed. */
  readonly putbackAfterSuccess: boolean;
  /** Isolation reads and sets PG_isolated without the page lock. */
  readonly isolateWithoutPageLock: boolean;
  /** The driver clears PG_movable of a page that somebody has isolated. */
  readonly driverClearsMovableOfIsolated: boolean;
  /** Deflation frees a page of the balloon that somebody has isolated. */
  readonly balloonFreesIsolated: boolean;
  /** -ENOMEM in the middle of a batch forgets what the batch has isolated. */
  readonly leakOnEnomem: boolean;
  /** The free page iterator's cursor stays on a node that was allocated. */
  readonly danglingIteratorCursor: boolean;
  /** The device takes hints of a round that a dirty sync has ended. */
  readonly lateHintAccepted: boolean;
  /** The log is KVM's bitmap, which a hint clears when it is processed. */
  readonly dirtyLogClearedAtHint: boolean;
  /** The host discards what was hinted, and the guest does not wait for its ack before reuse. */
  readonly hintDiscardsWithoutAck: boolean;
  /** Free pages are hinted although the next allocation relies on what they hold. */
  readonly hintsTrustedFreePages: boolean;
}

export const NO_PLANTS: Plants = Object.freeze({
  hwpoisonOnFailure: false,
  putbackAfterSuccess: false,
  isolateWithoutPageLock: false,
  driverClearsMovableOfIsolated: false,
  balloonFreesIsolated: false,
  leakOnEnomem: false,
  danglingIteratorCursor: false,
  lateHintAccepted: false,
  dirtyLogClearedAtHint: false,
  hintDiscardsWithoutAck: false,
  hintsTrustedFreePages: false,
});

/** The plants of one name: `hwpoison-on-failure` switches `hwpoisonOnFailure` on. */
export function plantsOf(name: PlantName | null): Plants {
  if (name === null) return NO_PLANTS;
  const key = name.replace(/-(\w)/g, (_match, letter: string) => letter.toUpperCase());
  return { ...NO_PLANTS, [key]: true };
}
