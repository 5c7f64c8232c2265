/** The conformance suite: the same tests for every device. */
import { afterAll, describe, expect, it } from 'vitest';
import { TRAITS, type TraitName, usedTraits } from '../../peers/device-traits.ts';
import { brokenRingTests } from './broken-rings.ts';
import { configTests } from './config.ts';
import { driverTests } from './driver.ts';
import { outcomes, type StartMachine } from './fixture.ts';
import { hintingTests } from './hinting.ts';
import { inflateTests } from './inflate.ts';
import { queueTests } from './queues.ts';
import { reportingTests } from './reporting.ts';
import { saveResults } from './results.ts';
import { ringTests } from './rings.ts';
import { statsTests } from './stats.ts';
import { statusTests } from './status.ts';

export function conformanceSuite(device: string, start: StartMachine): void {
  describe(device, () => {
    afterAll(() => {
      saveResults({ device, passed: [...outcomes.passed], failed: [...outcomes.failed] });
    });

    statusTests(start);
    configTests(start);
    queueTests(start);
    inflateTests(start);
    statsTests(start);
    reportingTests(start);
    ringTests(start);
    brokenRingTests(start);
    hintingTests(start);
    driverTests(start);

    it('every listed difference is asked for by a test', () => {
      const names = Object.keys(TRAITS) as TraitName[];
      expect(names.filter((name) => !usedTraits.has(name))).toEqual([]);
    });
  });
}
