/** The conformance suite: the same tests for every device. */
import { describe } from 'vitest';
import type { StartMachine } from './fixture.ts';
import { inflateTests } from './inflate.ts';
import { statusTests } from './status.ts';

export function conformanceSuite(name: string, start: StartMachine): void {
  describe(name, () => {
    statusTests(start);
    inflateTests(start);
  });
}
