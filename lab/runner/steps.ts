import type {
  HostStatus,
  MigrateParams,
  MigrationReport,
  StrategyName,
} from '../../protocol/control.ts';
import { NS_PER_MS, NS_PER_S } from '../../shared/index.ts';
import type { Progress } from '../machine/control.ts';
import type { Machine } from '../machine/machine.ts';
import type { Scenario, Step } from '../scenario/scenario.ts';
import type { Moment, PendingCheck, PendingComparison } from './expectation.ts';
import { labelOf } from './label.ts';
import { deviceFiguresOf, mmFiguresOf, vmstatOf } from './mm-figures.ts';
import type { Run } from './result.ts';

/** The steps of one run, one after the other, and what they leave behind. */

export class Trail {
  report: MigrationReport | null = null;
  readonly migrations: Run['migrations'] = {
    migrations_completed: 0,
    migrations_failed: 0,
    migrations_cancelled: 0,
  };
  /** A migration was started whose report was not fetched. */
  awaitsReport = false;
  /** Of the last migration. */
  dirtyLog: string | null = null;
  readonly checks: PendingCheck[] = [];
  readonly comparisons: PendingComparison[] = [];
  /** What a reader must know to read the figures rightly. */
  readonly notes: string[] = [];
  /** Balloon steps that did not reach their target. */
  readonly missed: Run['expectations'] = [];
  readonly failedSteps: Run['failed_steps'] = [];
  readonly #problems = new Set<string>();

  /** What audits found, each once. */
  get problems(): Iterable<string> {
    return this.#problems;
  }

  found(problems: readonly string[]): void {
    for (const problem of problems) this.#problems.add(problem);
  }

  /** Our own driver breaks no rule of the device: whoever did not ask learns of it all the same. */
  mustKeepProtocol(violations: number): void {
    const figure = 'protocol_violations';
    if (violations === 0) return;
    this.missed.push({ figure, expected: '0', found: violations, holds: false });
  }
}

/** Ends early with a step that failed: those behind it rely on it. */
export async function runSteps(
  machine: Machine,
  scenario: Scenario,
  strategy: StrategyName,
  trail: Trail,
  onProgress: (progress: Progress) => void,
): Promise<void> {
  const { steps, variant } = scenario;
  const isFor = (names: readonly string[] | null) =>
    names === null ||
    [strategy, variant, labelOf({ variant, strategy })].some((name) => names.includes(name ?? ''));
  for (const [index, step] of steps.entries()) {
    const what = step.kind === 'console' ? step.step : step.kind;
    onProgress({ what, done: index, total: steps.length });
    if (step.kind === 'expect' || step.kind === 'compare') {
      const at = { ...momentOf(await machine.status()), ...trail.migrations };
      const applies = isFor(step.for);
      if (step.kind === 'compare') {
        trail.comparisons.push({ to: step.to, bounds: step.bounds, at, applies });
      } else if (applies) trail.checks.push({ bounds: step.bounds, at });
    } else {
      await runStep(machine, step, trail);
    }
    // The steps behind the migration are the destination's.
    if (trail.failedSteps.length > 0 || machine.hasLeft) break;
  }
  if (!machine.isDead) await collect(machine, trail);
}

type ActiveStep = Exclude<Step, { kind: 'expect' | 'compare' }>;
type Disturbance = Extract<
  Step,
  { kind: 'target' | 'stop' | 'cont' | 'cancel' | 'continue' | 'limits' | 'link' | 'kill' }
>;

async function runStep(machine: Machine, step: ActiveStep, trail: Trail): Promise<void> {
  switch (step.kind) {
    case 'boot':
      await machine.boot();
      return;
    case 'workload':
      return machine.workload(step.line);
    case 'shell': {
      const { line, where } = step;
      const last = (await machine.shell(line)).at(-1) ?? '';
      if (/^exit status \d+$/.test(last)) trail.failedSteps.push({ where, line, reason: last });
      return;
    }
    case 'waitFor':
      await machine.waitFor(step.durationNs);
      return;
    case 'waitUntilMigrateAt':
      await machine.waitUntil('migrate_at');
      return;
    case 'console': {
      const { line, where } = step;
      const reason = await machine.console(line);
      if (reason !== null) trail.failedSteps.push({ where, line, reason });
      return;
    }
    case 'inflate':
    case 'deflate': {
      const { num_pages, actual_pages: found } = await machine[step.kind](step.sizeBytes);
      const expected = `${num_pages} after ${step.kind}`;
      const holds = found === num_pages;
      trail.missed.push({ figure: 'actual_pages', expected, found, holds });
      return;
    }
    case 'verify':
      trail.found(await machine.verify());
      return;
    case 'stats':
      await machine.setStatsPollingInterval(step.intervalNs / NS_PER_S);
      return;
    case 'hint':
      await machine.hint(step.acknowledgeOnStop);
      return;
    case 'migrate':
      await collect(machine, trail);
      trail.dirtyLog = logName(step.params);
      await machine.startMigration(step.params);
      trail.awaitsReport = true;
      if (step.waits) await collect(machine, trail);
      return;
    case 'waitForEnd':
      await machine.waitForEnd(step.end, step.atMostNs);
      if (step.end.kind === 'migration' && !(await isMigrating(machine))) {
        await collect(machine, trail);
      }
      return;
    default:
      return disturb(machine, step, trail);
  }
}

/** What is done to a machine from outside, whatever it does. */
async function disturb(machine: Machine, step: Disturbance, trail: Trail): Promise<void> {
  switch (step.kind) {
    case 'target':
      return machine.setTarget(step.sizeBytes);
    case 'stop':
      return machine.stop();
    case 'cont':
      return machine.cont();
    case 'cancel':
      return machine.cancelMigration();
    case 'continue':
      return machine.continueMigration();
    case 'limits':
      return machine.setMigrationLimits(step.params);
    case 'link':
      return machine.disturbLink(step.stallNs);
    case 'kill':
      await machine.kill(step.victim);
      if (step.victim === 'source') trail.notes.push('killed: the source, and the guest with it');
      if (step.victim === 'guest') trail.notes.push('killed: the guest');
      return;
  }
}

const OVER: readonly HostStatus['migration'][] = ['none', 'completed', 'failed', 'cancelled'];

async function isMigrating(machine: Machine): Promise<boolean> {
  return machine.migrates && !OVER.includes((await machine.status()).migration);
}

/** What became of the migration that was started last, when it is over. */
async function collect(machine: Machine, trail: Trail): Promise<void> {
  if (!trail.awaitsReport) return;
  trail.awaitsReport = false;
  const report = await machine.finishMigration();
  trail.report = report;
  trail.migrations[`migrations_${report.migration.status}`]++;
  trail.notes.push(...migrationNotes(report), ...replayNotes(machine));
}

/** `kvm-bitmap`, `kvm-bitmap with clear-at-id`. */
function logName({ dirtyLog, hintRemedy }: MigrateParams): string {
  return hintRemedy === 'none' ? dirtyLog : `${dirtyLog} with ${hintRemedy}`;
}

function momentOf(status: HostStatus): Moment {
  const { actual_pages, protocol_violations } = status;
  const counters = { ...vmstatOf(status), ...mmFiguresOf(status), ...deviceFiguresOf(status) };
  return { ...counters, actual_pages, protocol_violations };
}

/** Who sends all memory so often and has not ended is not going to. */
const STALLED_PASSES = 5;

/** Without a switchover there is no destination to compare with. */
function migrationNotes({ migration, error_desc: why }: MigrationReport): string[] {
  if (migration.status === 'completed') return [];
  const seconds = Math.round(migration.total_ms / 1000);
  const reason = why === null ? '' : ` (${why})`;
  const stall =
    migration.dirty_sync_count < STALLED_PASSES
      ? ''
      : `, not converged in ${migration.dirty_sync_count} passes`;
  return [
    `migration ${migration.status} after ${seconds} s${stall}${reason}: no page of it was verified`,
  ];
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
