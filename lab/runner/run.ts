import { mkdirSync } from 'node:fs';
import type { HostStatus, MigrationReport, StrategyName } from '../../protocol/control.ts';
import { NS_PER_MS } from '../../shared/index.ts';
import type { Progress } from '../machine/control.ts';
import { type LaunchOptions, launch } from '../machine/launch.ts';
import type { FinishReport, Machine } from '../machine/machine.ts';
import type { RecordingFacts, Scenario, Step } from '../scenario/scenario.ts';
import { errorOf, measuredOf, withEfficiency } from './comparison.ts';
import { evaluate, type PendingCheck } from './expectation.ts';
import type { Run } from './result.ts';

/** Runs a scenario's steps once for each strategy, each on a machine of its own. */

export interface RunOptions {
  /** Machines at a time. Results do not depend on it. */
  readonly jobs?: number;
  readonly logDirectory?: string;
  readonly onProgress?: (strategy: StrategyName, progress: Progress) => void;
  /** For a guest started by hand. */
  readonly launch?: Pick<LaunchOptions, 'listen' | 'onListening'>;
  /** Starts the machines; `launch` by default. */
  readonly launcher?: (options: LaunchOptions) => Promise<Machine>;
}

interface StrategyRun {
  readonly run: Run;
  readonly checks: readonly PendingCheck[];
}

/** One run per strategy, in the order of the scenario. @throws BallastError when a process dies. */
export async function runScenario(scenario: Scenario, options: RunOptions = {}): Promise<Run[]> {
  const results = new Array<StrategyRun | undefined>(scenario.strategies.length);
  let next = 0;
  let failed = false;
  const worker = async () => {
    while (next < scenario.strategies.length && !failed) {
      const index = next++;
      const strategy = scenario.strategies[index];
      if (!strategy) return;
      try {
        results[index] = await runStrategy(scenario, strategy, options);
      } catch (error) {
        failed = true;
        throw error;
      }
    }
  };
  const jobs = Math.max(1, Math.min(options.jobs ?? 1, scenario.strategies.length));
  // Every machine is down before the first failure is reported.
  const outcomes = await Promise.allSettled(Array.from({ length: jobs }, worker));
  for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
  const finished = results.filter((result): result is StrategyRun => result !== undefined);
  const runs = withEfficiency(finished.map(({ run }) => run));
  return runs.map((run, i) => ({
    ...run,
    expectations: [...run.expectations, ...evaluate(run, finished[i]?.checks ?? [])],
  }));
}

/** What a machine of this scenario is launched with. */
export function launchOptionsOf(scenario: Scenario, strategy: StrategyName): LaunchOptions {
  return {
    ...(scenario.recording ? { recording: scenario.recording } : {}),
    memoryBytes: scenario.memoryBytes,
    vcpus: scenario.vcpus,
    seed: scenario.seed,
    mm: scenario.mm,
    strategy,
    iterate: scenario.iterate,
    device: {
      mustTellHost: scenario.mustTellHost,
      discardHints: scenario.discardHints,
      ...(scenario.freePageHint === null ? {} : { freePageHint: scenario.freePageHint }),
      ...(scenario.hintWaitOnAck === null ? {} : { hintWaitOnAck: scenario.hintWaitOnAck }),
    },
    costs: scenario.costs,
    auditEveryEvents: scenario.auditEveryEvents,
    monitorLatencyNs: scenario.monitorLatencyNs,
    acceptLateHints: scenario.acceptLateHints,
  };
}

async function runStrategy(
  scenario: Scenario,
  strategy: StrategyName,
  options: RunOptions,
): Promise<StrategyRun> {
  const logDirectory = options.logDirectory && `${options.logDirectory}/${strategy}`;
  if (logDirectory) mkdirSync(logDirectory, { recursive: true });
  await using machine = await (options.launcher ?? launch)({
    ...launchOptionsOf(scenario, strategy),
    ...options.launch,
    ...(logDirectory ? { logDirectory } : {}),
    onProgress: (progress) => options.onProgress?.(strategy, progress),
  });
  const startMs = performance.now();
  const trail = new Trail();
  for (const [index, step] of scenario.steps.entries()) {
    options.onProgress?.(strategy, { what: step.kind, done: index, total: scenario.steps.length });
    await runStep(machine, step, strategy, trail);
  }
  const status = await machine.status();
  if (!scenario.acceptLateHints) trail.mustKeepProtocol(status.protocol_violations);
  const wallMs = Math.round(performance.now() - startMs);
  const finish = await machine.finish();
  return { run: toRun(scenario, strategy, trail, status, finish, wallMs), checks: trail.checks };
}

/** What the steps of one run leave behind. */
class Trail {
  report: MigrationReport | null = null;
  readonly checks: PendingCheck[] = [];
  readonly problems: string[] = [];
  /** What a reader must know to read the figures rightly. */
  readonly notes: string[] = [];
  /** Balloon steps that did not reach their target. */
  readonly missed: Run['expectations'] = [];

  /** Our own driver breaks no rule of the device: whoever did not ask learns of it all the same. */
  mustKeepProtocol(violations: number): void {
    const figure = 'protocol_violations';
    if (violations === 0) return;
    this.missed.push({ figure, expected: '0', found: violations, holds: false });
  }
}

async function runStep(
  machine: Machine,
  step: Step,
  strategy: StrategyName,
  trail: Trail,
): Promise<void> {
  switch (step.kind) {
    case 'boot':
      await machine.boot();
      return;
    case 'workload':
      return machine.workload(step.line);
    case 'waitFor':
      await machine.waitFor(step.durationNs);
      return;
    case 'waitUntilMigrateAt':
      await machine.waitUntil('migrate_at');
      return;
    case 'inflate':
    case 'deflate': {
      const status = await machine[step.kind](step.sizeBytes);
      const expected = `${status.num_pages} after ${step.kind}`;
      const found = status.actual_pages;
      trail.missed.push({
        figure: 'actual_pages',
        expected,
        found,
        holds: found === status.num_pages,
      });
      return;
    }
    case 'migrate':
      trail.report = await machine.migrate(step.params);
      trail.notes.push(...migrationNotes(trail.report), ...replayNotes(machine));
      return;
    case 'verify':
      trail.problems.push(...(await machine.verify()));
      return;
    case 'expect': {
      if (step.for && !step.for.includes(strategy)) return;
      const { actual_pages, protocol_violations } = await machine.status();
      trail.checks.push({ bounds: step.bounds, at: { actual_pages, protocol_violations } });
      return;
    }
  }
}

/** Without a switchover there is no destination to compare with. */
function migrationNotes({ migration }: MigrationReport): string[] {
  if (migration.status === 'completed') return [];
  const seconds = Math.round(migration.total_ms / 1000);
  return [`migration ${migration.status} after ${seconds} s: no page of it was verified`];
}

/** Recordings end some ten milliseconds after the recorded migration did. */
const NOTEWORTHY_NS = 200 * NS_PER_MS;

/** A migration that outlives its recording was predicted for a guest that does nothing any more. */
function replayNotes(machine: Machine): string[] {
  const beyondNs = machine.nowNs - (machine.replayEndNs ?? machine.nowNs);
  if (beyondNs < NOTEWORTHY_NS) return [];
  const ms = Math.round(beyondNs / NS_PER_MS);
  return [`the recording ends ${ms} ms before this migration: from there on the guest was idle`];
}

function toRun(
  scenario: Scenario,
  strategy: StrategyName,
  trail: Trail,
  status: HostStatus,
  finish: FinishReport,
  wallMs: number,
): Run {
  const report = trail.report;
  const measured =
    report && scenario.recording && isAsRecorded(scenario, scenario.recording)
      ? measuredOf(strategy, scenario.recording.measured)
      : null;
  const migration = report?.migration ?? null;
  return {
    strategy,
    migration,
    hints: report?.hints ?? null,
    memory: report?.memory ?? null,
    efficiency: null,
    lock: report?.lock ?? null,
    guest: report?.guest ?? null,
    measured,
    error: errorOf(migration, measured),
    event_log_sha256: finish.event_log_sha256,
    wall_ms: wallMs,
    peak_rss_bytes: finish.peak_rss_bytes,
    balloon: { actual_pages: status.actual_pages, protocol_violations: status.protocol_violations },
    audit_problems: trail.problems,
    notes: trail.notes,
    lost: (report?.lost ?? []).map(({ pfn, history }) => ({ pfn, history: [...history] })),
    expectations: trail.missed,
  };
}

/**
 * A guest with another kernel option, on another link, with a balloon, or migrated at another moment
 * is not the one that was measured.
 */
function isAsRecorded(scenario: Scenario, recording: RecordingFacts): boolean {
  const { mm, steps } = scenario;
  const migrations = steps.filter((step) => step.kind === 'migrate');
  const params = migrations.at(-1)?.params;
  return (
    migrations.length === 1 &&
    steps.some(({ kind }) => kind === 'waitUntilMigrateAt') &&
    !steps.some(({ kind }) => kind === 'inflate' || kind === 'deflate') &&
    mm.initOnAlloc === recording.mm.initOnAlloc &&
    mm.initOnFree === recording.mm.initOnFree &&
    mm.pagePoison === recording.mm.pagePoison &&
    params?.bandwidthBytesPerS === recording.bandwidthBytesPerS &&
    params.downtimeLimitMs === recording.downtimeLimitMs
  );
}
