/** A broken invariant of our own: never caught inside the core, it ends the process. */
export class AssertionError extends Error {
  override readonly name = 'AssertionError';
}

/** Always on. `message` states what must hold, as a positive sentence. */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new AssertionError(`must hold: ${message}`);
}
