/**
 * A whole run, as `ballast compare` does it, the migration to another host process included: wall time
 * after start, and peak memory of both sides.
 */
import { loadScenario, runScenario } from '../lab/index.ts';
import { STRATEGIES } from '../protocol/control.ts';
import { MIB } from '../shared/index.ts';
import type { Bench, Figure } from './figure.ts';

const RECORDING = 'idle-1g';

export const benchMachine: Bench = async ({ runs, progress }) => {
  const wallMs = new Map<string, number[]>(STRATEGIES.map((strategy) => [strategy, []]));
  const guestMib: number[] = [];
  const hostMib: number[] = [];
  // Nothing to warm up: each run has processes of its own, as every run of a user has.
  for (let i = 0; i < runs; i++) {
    progress(`${RECORDING}, run ${i + 1} of ${runs}`);
    const done = await runScenario(await loadScenario(RECORDING, { strategies: STRATEGIES }));
    for (const run of done) wallMs.get(run.strategy)?.push(run.wall_ms);
    guestMib.push(Math.max(...done.map((run) => run.peak_rss_bytes.guest)) / MIB);
    hostMib.push(Math.max(...done.map((run) => run.peak_rss_bytes.host)) / MIB);
  }
  const bench = 'machine';
  const times = [...wallMs].map(([strategy, samples]): Figure => {
    const name = `${RECORDING} under ${strategy}, after start`;
    return { bench, name, unit: 'ms', samples, target: { of: 'value', atMost: 600 } };
  });
  const memory = (role: string, samples: readonly number[]): Figure => {
    const name = `peak memory of the ${role}, 1 GiB guest`;
    return { bench, name, unit: 'MiB', samples, target: { of: 'value', atMost: 400 } };
  };
  return [...times, memory('guest', guestMib), memory('host', hostMib)];
};
