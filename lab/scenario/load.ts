import { readFile, stat } from 'node:fs/promises';
import { basename, extname, resolve } from 'node:path';
import { parse as parseYaml } from 'yaml';
import { type MigrateParams, STRATEGIES, type StrategyName } from '../../protocol/control.ts';
import { BallastError, DEFAULT_COSTS, MIB, NS_PER_MS } from '../../shared/index.ts';
import { packageRoot } from '../machine/paths.ts';
import { resolveRecording } from './recordings.ts';
import type { RecordingFacts, Scenario, Step } from './scenario.ts';
import { FIGURES, type ScenarioFile, type StepFile, scenarioSchema } from './schema.ts';
import { type Override, type Problem, ScenarioSource } from './source.ts';
import { formatBytes } from './units.ts';

/** Finds, reads, checks and completes a scenario, or wraps a bare recording into the default one. */

/** Migration without a recording to take them from; QEMU's own downtime limit. */
export const DEFAULTS = {
  memoryBytes: 256 * MIB,
  bandwidthBytesPerS: 200 * MIB,
  downtimeLimitMs: 300,
  monitorLatencyNs: 80 * NS_PER_MS,
} as const;

export interface LoadOptions {
  readonly overrides?: readonly string[];
  readonly strategies?: readonly StrategyName[];
  readonly seed?: number;
}

/**
 * `argument` is a scenario file, the name of one in scenarios/, or a recording: a `.ballast` file,
 * the name of one in scenarios/recordings/, or a folder in the recorder's format.
 * @throws BallastError BAD_INPUT, FILE_MISSING, RECORDING_*: one line per problem.
 */
export async function loadScenario(argument: string, options: LoadOptions = {}): Promise<Scenario> {
  const overrides = (options.overrides ?? []).map(parseOverride);
  const found = await findArgument(argument);
  if (found.kind === 'scenario') {
    return parseScenario(found.path, await readFile(found.path, 'utf8'), { ...options, overrides });
  }
  const text = `recording: ${JSON.stringify(found.path)}\n`;
  return parseScenario(argument, text, { ...options, overrides });
}

interface ParseOptions extends Omit<LoadOptions, 'overrides'> {
  readonly overrides?: readonly Override[];
}

/** Checks and completes the text of a scenario; `file` names it in messages. */
export async function parseScenario(
  file: string,
  text: string,
  options: ParseOptions = {},
): Promise<Scenario> {
  const shownFile = file.startsWith(`${process.cwd()}/`)
    ? file.slice(process.cwd().length + 1)
    : file;
  const source: ScenarioSource = new ScenarioSource(shownFile, text, options.overrides);
  const parsed = scenarioSchema.safeParse(source.data);
  if (!parsed.success) source.fail(source.problemsOf(parsed.error, scenarioSchema));
  const recording = parsed.data.recording
    ? await findRecording(source, parsed.data.recording, file)
    : null;
  const scenario = complete(parsed.data, recording, basename(file, extname(file)), options);
  const problems = contradictions(parsed.data, scenario);
  if (problems.length > 0) source.fail(problems);
  return scenario;
}

/** `key.path=value`; the value is YAML. */
export function parseOverride(text: string): Override {
  const equals = text.indexOf('=');
  const path = text.slice(0, Math.max(0, equals)).split('.');
  if (equals <= 0 || path.some((key) => key === '')) {
    throw new BallastError(
      'BAD_INPUT',
      `--set ${text}: expected key.path=value, such as mm.init_on_alloc=false`,
    );
  }
  try {
    return { path, value: parseYaml(text.slice(equals + 1)), text };
  } catch {
    throw new BallastError('BAD_INPUT', `--set ${text}: expected a YAML value after "="`);
  }
}

async function findArgument(
  argument: string,
): Promise<{ kind: 'scenario' | 'recording'; path: string }> {
  const info = await stat(argument).catch(() => null);
  if (info?.isDirectory() || (info && argument.endsWith('.ballast')))
    return { kind: 'recording', path: resolve(argument) };
  if (info) return { kind: 'scenario', path: resolve(argument) };
  if (/^[\w.-]+$/.test(argument)) {
    const name = argument.replace(/\.ya?ml$/, '');
    const path = `${packageRoot}/scenarios/${name}.yaml`;
    if (await exists(path)) return { kind: 'scenario', path };
    const recording = `${packageRoot}/scenarios/recordings/${name.replace(/\.ballast$/, '')}.ballast`;
    if (await exists(recording)) return { kind: 'recording', path: recording };
  }
  throw new BallastError(
    'FILE_MISSING',
    `${argument}: expected a scenario (.yaml), a recording (.ballast or folder) or the name of one in scenarios/, found no such file`,
  );
}

async function exists(path: string): Promise<boolean> {
  return (await stat(path).catch(() => null)) !== null;
}

async function findRecording(
  source: ScenarioSource,
  name: string,
  file: string,
): Promise<RecordingFacts> {
  try {
    return await resolveRecording(name, file);
  } catch (error) {
    if (!(error instanceof BallastError) || error.code !== 'FILE_MISSING') throw error;
    return source.fail([
      {
        path: ['recording'],
        expected: 'a recording: a .ballast file, a folder, or a name in scenarios/recordings/',
      },
    ]);
  }
}

function complete(
  file: ScenarioFile,
  recording: RecordingFacts | null,
  defaultName: string,
  options: ParseOptions,
): Scenario {
  const migration: MigrateParams = {
    bandwidthBytesPerS:
      file.migration.bandwidth ?? recording?.bandwidthBytesPerS ?? DEFAULTS.bandwidthBytesPerS,
    downtimeLimitMs:
      downtimeMs(file.migration.downtime_limit) ??
      recording?.downtimeLimitMs ??
      DEFAULTS.downtimeLimitMs,
    clearLog: file.migration.clear_log ?? 'at-sync',
  };
  const memoryBytes = file.machine.memory ?? recording?.memoryBytes ?? DEFAULTS.memoryBytes;
  return {
    name: file.name ?? recording?.name ?? defaultName,
    description: file.description ?? '',
    seed: options.seed ?? file.seed,
    memoryBytes,
    vcpus: file.machine.vcpus ?? recording?.vcpus ?? 1,
    recording,
    mm: {
      initOnAlloc: file.mm.init_on_alloc ?? recording?.mm.initOnAlloc ?? true,
      initOnFree: file.mm.init_on_free ?? recording?.mm.initOnFree ?? false,
      pagePoison: file.mm.page_poison ?? recording?.mm.pagePoison ?? false,
    },
    strategies: unique(
      options.strategies ??
        file.strategies ??
        (file.strategy ? [file.strategy] : recording ? STRATEGIES : ['none']),
    ),
    iterate: { budgetNodes: file.iterate.budget, minOrder: file.iterate.min_order },
    migration,
    monitorLatencyNs: file.migration.monitor_latency ?? DEFAULTS.monitorLatencyNs,
    freePageHint: file.device.free_page_hint ?? null,
    mustTellHost: file.device.must_tell_host ?? false,
    hintWaitOnAck: file.device.hint_wait_on_ack ?? null,
    discardHints: file.device.discard_hints ?? false,
    costs: { ...DEFAULT_COSTS, ...definedOnly(file.costs) },
    auditEveryEvents: file.audit_every_events,
    acceptLateHints: file.plant.accept_late_hints,
    steps:
      file.steps?.map((step) => completeStep(step, migration)) ??
      defaultSteps(recording, migration),
  };
}

function completeStep(step: StepFile, migration: MigrateParams): Step {
  if (step.boot !== undefined) return { kind: 'boot' };
  if (step.verify !== undefined) return { kind: 'verify' };
  if (step.workload !== undefined) return { kind: 'workload', line: 'replay' };
  if (step.inflate !== undefined) return { kind: 'inflate', sizeBytes: step.inflate };
  if (step.deflate !== undefined) return { kind: 'deflate', sizeBytes: step.deflate };
  if (step.wait !== undefined) {
    return 'until' in step.wait
      ? { kind: 'waitUntilMigrateAt' }
      : { kind: 'waitFor', durationNs: step.wait.forNs };
  }
  if (step.expect !== undefined) {
    const expected = step.expect;
    const bounds = FIGURES.flatMap((figure) =>
      expected[figure] ? [{ figure, bound: expected[figure] }] : [],
    );
    return { kind: 'expect', for: expected.for ?? null, bounds };
  }
  return {
    kind: 'migrate',
    params: {
      bandwidthBytesPerS: step.migrate?.bandwidth ?? migration.bandwidthBytesPerS,
      downtimeLimitMs: downtimeMs(step.migrate?.downtime_limit) ?? migration.downtimeLimitMs,
      clearLog: step.migrate?.clear_log ?? migration.clearLog,
    },
  };
}

function defaultSteps(recording: RecordingFacts | null, migration: MigrateParams): Step[] {
  const expectNoLoss: Step = {
    kind: 'expect',
    for: null,
    bounds: [{ figure: 'lost_pages', bound: { equal: 0 } }],
  };
  const migrate: Step = { kind: 'migrate', params: migration };
  if (!recording) return [{ kind: 'boot' }, migrate, expectNoLoss];
  return [
    { kind: 'boot' },
    { kind: 'workload', line: 'replay' },
    { kind: 'waitUntilMigrateAt' },
    migrate,
    expectNoLoss,
  ];
}

/** What each key alone allows, but the whole does not. */
function contradictions(file: ScenarioFile, scenario: Scenario): Problem[] {
  const problems: Problem[] = [];
  const { memoryBytes } = scenario;
  if (file.strategy && file.strategies) {
    problems.push({ path: ['strategy'], expected: 'either strategy or strategies', found: 'both' });
  }
  if (scenario.recording && memoryBytes !== scenario.recording.memoryBytes) {
    const expected = `the recording's ${formatBytes(scenario.recording.memoryBytes)}, or no such key`;
    problems.push({ path: ['machine', 'memory'], expected });
  }
  let booted = false;
  let replaying = false;
  for (const [index, step] of scenario.steps.entries()) {
    const path = ['steps', index];
    if (step.kind === 'boot' && booted)
      problems.push({ path, expected: 'one boot', found: 'a second' });
    if (step.kind !== 'boot' && !booted)
      problems.push({ path, expected: 'boot as the first step', found: step.kind });
    if (step.kind === 'workload' && !scenario.recording) {
      problems.push({
        path,
        expected: 'a key "recording" of the scenario to replay',
        found: 'none',
      });
    }
    if (step.kind === 'waitUntilMigrateAt' && !replaying) {
      problems.push({
        path,
        expected: 'workload: recording before waiting for its migrate_at',
        found: 'none',
      });
    }
    if ((step.kind === 'inflate' || step.kind === 'deflate') && step.sizeBytes > memoryBytes) {
      problems.push({
        path: [...path, step.kind],
        expected: `at most the machine's ${formatBytes(memoryBytes)}`,
      });
    }
    booted = true;
    replaying ||= step.kind === 'workload';
  }
  return problems;
}

function downtimeMs(ns: number | undefined): number | undefined {
  return ns === undefined ? undefined : ns / NS_PER_MS;
}

function unique<T>(items: readonly T[]): T[] {
  return [...new Set(items)];
}

function definedOnly(values: Readonly<Record<string, number | undefined>>): Record<string, number> {
  const defined = Object.entries(values).filter(
    (entry): entry is [string, number] => entry[1] !== undefined,
  );
  return Object.fromEntries(defined);
}
