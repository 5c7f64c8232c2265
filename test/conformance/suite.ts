/** The conformance suite: the same tests for every device. */
import { describe } from 'vitest';
import { brokenRingTests } from './broken-rings.ts';
import { configTests } from './config.ts';
import { driverTests } from './driver.ts';
import type { StartMachine } from './fixture.ts';
import { hintingTests } from './hinting.ts';
import { inflateTests } from './inflate.ts';
import { queueTests } from './queues.ts';
import { reportingTests } from './reporting.ts';
import { ringTests } from './rings.ts';
import { statsTests } from './stats.ts';
import { statusTests } from './status.ts';

export function conformanceSuite(name: string, start: StartMachine): void {
  describe(name, () => {
    statusTests(start);
    configTests(start);
    queueTests(start);
    inflateTests(start);
    statsTests(start);
    reportingTests(start);
    ringTests(start);
    hintingTests(start);
    driverTests(start);
    brokenRingTests(start);
  });
}
