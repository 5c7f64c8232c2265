import { AssertionError } from '../shared/index.ts';

/** Something that must hold did not: what a schedule is explored for. */
export class Violation extends Error {
  override readonly name = 'Violation';
  /** Name of what must hold; two violations are the same bug when it is the same. */
  readonly invariant: string;

  constructor(invariant: string, message: string) {
    super(message);
    this.invariant = invariant;
  }

  /** Whatever was thrown while a step ran: also our own assertions are invariants. */
  static of(error: unknown): Violation {
    if (error instanceof Violation) return error;
    if (error instanceof AssertionError) return new Violation(error.message, error.message);
    const told = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
    return new Violation(`exception ${told.replace(/\d+/g, 'N')}`, told);
  }
}
