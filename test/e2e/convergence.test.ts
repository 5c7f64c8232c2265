/**
 * A loop that rewrites its memory in a time t, on a link that takes longer for it: throttling helps when
 * t ÷ (1 − p) is more than that, and not before. The same on a machine on which a write takes longer than
 * on any real one, so that there are few of them.
 */
import { expect, test } from 'vitest';
import { runScenario } from '../../lab/index.ts';
import { isGood } from '../../lab/runner/expectation.ts';
import { parseScenario } from '../../lab/scenario/load.ts';

test('policies of convergence, side by side on one guest', async () => {
  const text = `
machine: { memory: 16MiB }
mm: { init_on_alloc: false }
strategy: none
# 512 KiB in 64 ms; the link takes 2 s for them.
costs: { dirtyFaultNs: 500000 }
migration: { bandwidth: 256KiB/s, downtime_limit: 100ms, vcpu_dirty_limit: 128KiB/s }
steps:
  - boot
  - start: { name: loop, rewrite: { set: 512KiB, rate: 64MiB/s } }
  - wait: 200ms
  - migrate: { wait: false }
  - wait: { until: migration, at_most: 90s }
  - cancel
  - wait: { until: migration }
  - expect: { for: [default, downtime-ramp], migrations_cancelled: 1 }
  - expect: { for: [auto-converge, dirty-limit], migrations_completed: 1, lost_pages: 0, corruptions: 0 }
`;
  const names = ['default', 'auto-converge', 'dirty-limit', 'downtime-ramp'];
  const value = names.map((policy) => ({ name: policy, migration: { policy } }));
  const overrides = [{ path: ['variants'], value, text: '--policies' }];
  const runs = await runScenario(await parseScenario('x.yaml', text, { overrides }), { jobs: 2 });
  expect(runs.map((run) => [run.variant, isGood(run)])).toEqual(names.map((name) => [name, true]));
  const [none, throttled, limited] = runs.map(({ migration }) => migration!);
  // Its half of the CPU is as bad as all of it: only the last step helps.
  expect(throttled!.throttle_percentage).toBe(99);
  expect(throttled!.stolen_cpu_ms).toBeGreaterThan(10_000);
  expect(limited!.throttle_percentage).toBe(0);
  expect(limited!.stolen_cpu_ms).toBeGreaterThan(1000);
  expect(limited!.total_ms).toBeLessThan(throttled!.total_ms);
  expect([none!.throttle_percentage, none!.stolen_cpu_ms]).toEqual([0, 0]);
  expect(runs[0]!.notes).toEqual([expect.stringMatching(/not converged in \d+ passes/)]);
});
