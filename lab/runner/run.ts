import { mkdirSync } from 'node:fs';
import {
  type ArrivalReport,
  DEFAULT_KERNEL_OPTIONS,
  type HostStatus,
  type StrategyName,
} from '../../protocol/control.ts';
import { DEFAULT_DRIVER_CONFIG } from '../../protocol/driver-config.ts';
import type { Progress } from '../machine/control.ts';
import type { FinishReport, Machine } from '../machine/machine.ts';
import { type Placement, startMachine } from '../machine/start.ts';
import type { Plan } from '../plan/plan.ts';
import { planOf } from '../plan/settings.ts';
import type { RecordingFacts } from '../recording/facts.ts';
import type { Scenario, Step } from '../scenario/scenario.ts';
import { errorOf, measuredOf, withEfficiency } from './comparison.ts';
import { evaluate, evaluateComparisons } from './expectation.ts';
import { labelOf } from './label.ts';
import { deviceFiguresOf, mmFiguresOf, vmstatOf } from './mm-figures.ts';
import type { Run } from './result.ts';
import { runSteps, Trail } from './steps.ts';

/** Runs a scenario's steps once for each variant and strategy, each on a machine of its own. */

export interface RunOptions {
  /** Machines at a time. Results do not depend on it. */
  readonly jobs?: number;
  readonly logDirectory?: string;
  /** `run` names the one of several that it is about: its variant, its strategy. */
  readonly onProgress?: (run: string, progress: Progress) => void;
  /** For a guest started by hand. */
  readonly launch?: Pick<Placement, 'listen' | 'onListening' | 'migrateTo' | 'incoming'>;
  /** Starts the machines; `startMachine` by default. */
  readonly launcher?: (plan: Plan, placement: Placement) => Promise<Machine>;
}

interface PlannedRun {
  readonly scenario: Scenario;
  readonly strategy: StrategyName;
  readonly plan: Plan;
}

interface FinishedRun extends PlannedRun {
  readonly run: Run;
  readonly trail: Trail;
}

/**
 * One run per variant and strategy, in the order of the scenario.
 * @throws BallastError when a process dies.
 */
export async function runScenario(scenario: Scenario, options: RunOptions = {}): Promise<Run[]> {
  const variants = scenario.variants.length > 0 ? scenario.variants : [scenario];
  const plans = variants.flatMap((variant) =>
    variant.strategies.map((strategy): PlannedRun => {
      const plan = planOf(variant, strategy, scenario.name);
      return { scenario: variant, strategy, plan };
    }),
  );
  const results = new Array<FinishedRun | undefined>(plans.length);
  let next = 0;
  let failed = false;
  const worker = async () => {
    while (next < plans.length && !failed) {
      const index = next++;
      const plan = plans[index];
      if (!plan) return;
      try {
        results[index] = await runOne(plan, options);
      } catch (error) {
        failed = true;
        throw error;
      }
    }
  };
  const jobs = Math.max(1, Math.min(options.jobs ?? 1, plans.length));
  // Every machine is down before the first failure is reported.
  const outcomes = await Promise.allSettled(Array.from({ length: jobs }, worker));
  for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
  return judged(results.filter((result): result is FinishedRun => result !== undefined));
}

/** What needs all runs: efficiency, expectations, comparisons. */
function judged(finished: readonly FinishedRun[]): Run[] {
  const runs = withEfficiency(finished.map(({ run }) => run));
  const compared = runs.map((run, i) => ({
    run,
    comparisons: finished[i]?.trail.comparisons ?? [],
  }));
  return compared.map((one, i) => ({
    ...one.run,
    expectations: [
      ...one.run.expectations,
      ...evaluate(one.run, finished[i]?.trail.checks ?? []),
      ...evaluateComparisons(one, compared),
    ],
  }));
}

async function runOne(planned: PlannedRun, options: RunOptions): Promise<FinishedRun> {
  const { scenario, strategy, plan } = planned;
  const { variant } = scenario;
  const logDirectory =
    options.logDirectory && [options.logDirectory, variant, strategy].filter(Boolean).join('/');
  if (logDirectory) mkdirSync(logDirectory, { recursive: true });
  const onProgress = (progress: Progress) =>
    options.onProgress?.(labelOf({ variant, strategy }), progress);
  await using machine = await (options.launcher ?? startMachine)(plan, {
    startsDestination: scenario.steps.some(({ kind }) => kind === 'migrate'),
    ...options.launch,
    ...(logDirectory ? { logDirectory } : {}),
    onProgress,
  });
  const startMs = performance.now();
  const trail = new Trail();
  if (machine.arrival) arrived(machine.arrival, trail);
  await runSteps(machine, scenario, strategy, trail, onProgress);
  trail.found(await machine.verify());
  const status = await machine.status();
  if (!scenario.plant.acceptLateHints) trail.mustKeepProtocol(status.protocol_violations);
  const wallMs = Math.round(performance.now() - startMs);
  const finish = await machine.finish();
  return { ...planned, run: toRun(planned, trail, status, finish, wallMs), trail };
}

/** What came with a guest from another host. */
function arrived({ memory }: ArrivalReport, trail: Trail): void {
  const { lost_pages: lost, broken_free_pages: broken, undefined_pages: undefinedPages } = memory;
  trail.notes.push(
    `the guest arrived with ${lost} lost and ${broken} broken free pages; ${undefinedPages} were undefined`,
  );
  if (lost + broken > 0) trail.found([`${lost + broken} pages did not arrive as they were`]);
}

function toRun(
  { scenario, strategy }: PlannedRun,
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
  const hints = (report?.hints.pages ?? 0) > 0;
  return {
    strategy,
    variant: scenario.variant,
    migration,
    migrations: trail.migrations,
    hints: report?.hints ?? null,
    memory: report?.memory ?? null,
    efficiency: null,
    limit_bytes: report?.limit_bytes ?? null,
    efficiency_of_limit: null,
    lock: report?.lock ?? null,
    guest: report
      ? { ...report.guest, corruptions: status.counters['guest.corruptions'] ?? 0 }
      : null,
    holds_pages: report && hints ? status.counters['guest.strategy_holds'] === 1 : null,
    dirty_log: trail.dirtyLog,
    measured,
    error: errorOf(migration, measured),
    event_log_sha256: finish.event_log_sha256,
    wall_ms: wallMs,
    peak_rss_bytes: finish.peak_rss_bytes,
    balloon: { actual_pages: status.actual_pages, protocol_violations: status.protocol_violations },
    device: deviceFiguresOf(status),
    vmstat: vmstatOf(status),
    mm: mmFiguresOf(status),
    audit_problems: [...trail.problems],
    failed_steps: trail.failedSteps,
    notes: [...notUsedNotes(status), ...trail.notes],
    lost: (report?.lost ?? []).map(({ pfn, history }) => ({ pfn, history: [...history] })),
    expectations: trail.missed,
  };
}

/** Why the guest hinted nothing although it was told how. */
function notUsedNotes({ counters }: HostStatus): string[] {
  if ((counters['guest.hinting_declined_trusted_free'] ?? 0) === 0) return [];
  return [
    'not used: the guest relies on its free pages (page_poison, init_on_free) and this strategy does not fill ' +
      'them again; see driver.hint_trusted_free_pages',
  ];
}

/** Steps that the recorded guest has not made. */
const CHANGES_GUEST: ReadonlySet<Step['kind']> = new Set(['inflate', 'deflate', 'hint', 'console']);

/**
 * A guest with another kernel option, on another link, with a balloon, or migrated at another moment
 * is not the one that was measured.
 */
function isAsRecorded(scenario: Scenario, recording: RecordingFacts): boolean {
  const { mm, kernel, driver, steps } = scenario;
  const migrations = steps.filter((step) => step.kind === 'migrate');
  const params = migrations.at(-1)?.params;
  return (
    migrations.length === 1 &&
    steps.some(({ kind }) => kind === 'waitUntilMigrateAt') &&
    !steps.some(({ kind }) => CHANGES_GUEST.has(kind)) &&
    JSON.stringify(kernel) === JSON.stringify(DEFAULT_KERNEL_OPTIONS) &&
    JSON.stringify(driver) === JSON.stringify(DEFAULT_DRIVER_CONFIG) &&
    mm.initOnAlloc === recording.mm.initOnAlloc &&
    mm.initOnFree === recording.mm.initOnFree &&
    mm.pagePoison === recording.mm.pagePoison &&
    params?.bandwidthBytesPerS === recording.bandwidthBytesPerS &&
    params.downtimeLimitMs === recording.downtimeLimitMs
  );
}
