/** Scenarios about the balloon driver: other systems' drivers, and free page reporting. */
import { expect, test } from 'vitest';
import { complaintsOf, runsByVariant } from '../support/scenario-runs.ts';

test.each([
  ['drivers', 3],
  ['page-reporting', 6],
  ['suspend', 2],
])('%s keeps what it expects in each of its %d variants', async (name, variants) => {
  const runs = Object.values(await runsByVariant(name));
  expect(runs.flatMap(complaintsOf)).toEqual([]);
  expect(runs.length).toBe(variants);
  for (const run of runs) expect(run.balloon.protocol_violations).toBe(0);
});

const unknown = [
  ['driver.behaviour=plan9', /driver\.behaviour: expected one of linux, windows, freebsd/],
  ['driver.decline=[version_1]', /driver\.decline\[0\]: expected one of must_tell_host/],
  ['driver.colour=blue', /driver\.colour: expected one of behaviour, features, decline/],
] as const;
test.each(unknown)('%s is refused with what is known', async (override, message) => {
  await expect(runsByVariant('balloon-inflate', [override])).rejects.toThrow(message);
});
