/**
 * The same seed and input give the same event log, whether guest, source and destination share a
 * process or not.
 */
import { describe, expect, test } from 'vitest';
import { launch, loadScenario, runScenario } from '../../lab/index.ts';
import type { StrategyName } from '../../protocol/index.ts';
import { NS_PER_MS } from '../../shared/index.ts';
import { inProcess, MIGRATE, moveToNewHost, sharedRecording } from '../support/in-process.ts';

const RECORDING = 'idle-1g';
/** The guest has filled its memory by then; the rest of the recording is not needed here. */
const REPLAY_NS = 600 * NS_PER_MS;
const BOOT_NS = 100 * NS_PER_MS;
/** At the destination. */
const AFTERWARDS_NS = 100 * NS_PER_MS;

async function inTwoProcesses(strategy: StrategyName, seed: number): Promise<string> {
  await using machine = await launch({ recording: RECORDING, strategy, seed });
  await machine.waitUntil(BOOT_NS);
  await machine.workload();
  await machine.waitUntil(BOOT_NS + REPLAY_NS);
  await machine.migrate(MIGRATE);
  await machine.waitFor(AFTERWARDS_NS);
  return (await machine.finish()).event_log_sha256;
}

async function inOneProcess(strategy: StrategyName, seed: number): Promise<string> {
  const recording = sharedRecording(RECORDING);
  const machine = await inProcess({ recording, seed, guest: { strategy } });
  const { hypervisor } = machine;
  await hypervisor.runUntil(BOOT_NS);
  hypervisor.console('replay');
  await hypervisor.runUntil(BOOT_NS + REPLAY_NS);
  const { machine: destination } = await moveToNewHost(machine, MIGRATE);
  await destination.hypervisor.runUntil(destination.hypervisor.vmm.now + AFTERWARDS_NS);
  return destination.hypervisor.digest();
}

describe('the event log', () => {
  test.each(['alloc', 'iterate'] as const)(
    'of %s is the same in every run, in two processes and in one',
    async (strategy) => {
      const digest = await inTwoProcesses(strategy, 1);
      expect(digest).toMatch(/^[0-9a-f]{64}$/);
      expect(await inTwoProcesses(strategy, 1)).toBe(digest);
      expect(await inOneProcess(strategy, 1)).toBe(digest);
    },
  );

  test.each(['background-load', 'migration-destination-killed'])(
    'of %s is the same in every run, with all that happens in it',
    async (name) => {
      const scenario = await loadScenario(name, { strategies: ['alloc'] });
      const digests: string[] = [];
      for (let i = 0; i < 2; i++) {
        const [run] = await runScenario(scenario);
        digests.push(run!.event_log_sha256);
      }
      expect(digests[1]).toBe(digests[0]);
    },
  );

  test('differs with the seed and with the strategy', async () => {
    const digests = [
      await inOneProcess('alloc', 1),
      await inOneProcess('alloc', 2),
      await inOneProcess('none', 1),
      await inOneProcess('oracle', 1),
    ];
    expect(new Set(digests).size).toBe(digests.length);
  });
});
