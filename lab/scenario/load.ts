import { readFile, stat } from 'node:fs/promises';
import { basename, extname, resolve } from 'node:path';
import { parse as parseYaml } from 'yaml';
import type { ConvergencePolicy, StrategyName } from '../../protocol/control.ts';
import { BallastError } from '../../shared/index.ts';
import { problemsOf } from '../input/problems.ts';
import { packageRoot } from '../process/paths.ts';
import type { RecordingFacts } from '../recording/facts.ts';
import { resolveRecording } from '../recording/resolve.ts';
import { completeScenario } from './complete.ts';
import { contradictions } from './contradictions.ts';
import type { Scenario } from './scenario.ts';
import { scenarioSchema } from './schema.ts';
import { type Override, ScenarioSource } from './source.ts';

/** Finds, reads, checks and completes a scenario, or wraps a bare recording into the default one. */

export interface LoadOptions {
  readonly overrides?: readonly string[];
  readonly strategies?: readonly StrategyName[];
  readonly seed?: number;
  /** A variant for each policy of convergence, in place of the scenario's own. */
  readonly policies?: readonly ConvergencePolicy[];
}

/**
 * `argument` is a scenario file, the name of one in scenarios/, or a recording: a `.ballast` file,
 * the name of one in scenarios/recordings/, or a folder in the recorder's format.
 * @throws BallastError BAD_INPUT, FILE_MISSING, RECORDING_*: one line per problem.
 */
export async function loadScenario(argument: string, options: LoadOptions = {}): Promise<Scenario> {
  const overrides = [...(options.overrides ?? []).map(parseOverride), ...variantsOf(options)];
  const found = await findArgument(argument);
  if (found.kind === 'scenario') {
    return parseScenario(found.path, await readFile(found.path, 'utf8'), { ...options, overrides });
  }
  const text = `recording: ${JSON.stringify(found.path)}\n`;
  return parseScenario(argument, text, { ...options, overrides });
}

function variantsOf({ policies }: LoadOptions): Override[] {
  if (!policies) return [];
  const value = policies.map((policy) => ({ name: policy, migration: { policy } }));
  return [{ path: ['variants'], value, text: `--policies ${policies.join(',')}` }];
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
  if (!parsed.success) source.fail(problemsOf(parsed.error, scenarioSchema));
  const recording = parsed.data.recording
    ? await findRecording(source, parsed.data.recording, file)
    : null;
  const scenario = completeScenario(parsed.data, {
    recording,
    defaultName: basename(file, extname(file)),
    whereOfStep: (index) => source.where(['steps', index]),
    ...(options.strategies ? { strategies: options.strategies } : {}),
    ...(options.seed === undefined ? {} : { seed: options.seed }),
  });
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
