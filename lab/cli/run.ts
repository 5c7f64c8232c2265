import type { Command } from 'commander';
import {
  CONVERGENCE_POLICIES,
  type ConvergencePolicy,
  STRATEGIES,
  type StrategyName,
} from '../../protocol/control.ts';
import { ExitStatus } from '../../shared/index.ts';
import { renderResult } from '../report/table.ts';
import { isGood } from '../runner/expectation.ts';
import type { Result } from '../runner/result.ts';
import { type RunOptions, runScenario } from '../runner/run.ts';
import { loadScenario } from '../scenario/load.ts';
import type { Scenario } from '../scenario/scenario.ts';
import { COMPARE_GUIDE, RUN_GUIDE } from './guide.ts';
import {
  collect,
  defaultJobs,
  parseJobs,
  parsePolicies,
  parseSeed,
  parseStrategies,
} from './options.ts';
import { ballastVersion, print, wantsColor, writeJson } from './output.ts';
import { ProgressDisplay } from './progress.ts';

/** `ballast run` and `ballast compare`: the same machine, other defaults. */

export interface SimulationFlags {
  readonly strategies?: StrategyName[];
  readonly policies?: ConvergencePolicy[];
  readonly json?: string;
  readonly seed?: number;
  readonly jobs?: number;
  readonly set?: string[];
  readonly log?: string;
}

export function addRunCommand(program: Command, done: (status: number) => void): void {
  const command = program
    .command('run')
    .description("run a scenario's steps under its own strategies and check what it expects")
    .argument('<scenario>', 'scenario file, its name in scenarios/, or a recording');
  addSimulationOptions(command)
    .addHelpText('after', RUN_GUIDE)
    .action(async (argument: string, flags: SimulationFlags) => {
      const scenario = await loadScenario(argument, loadOptions(flags));
      done(await simulate('run', scenario, flags));
    });
}

export function addCompareCommand(program: Command, done: (status: number) => void): void {
  const command = program
    .command('compare')
    .description(
      'migrate one guest under several hinting strategies, side by side with what QEMU measured',
    )
    .argument(
      '<scenario|recording>',
      'name in scenarios/, scenario file, .ballast file or folder of a recording',
    );
  addSimulationOptions(command)
    .option(
      '--policies <list>',
      `a machine for each policy of convergence: ${CONVERGENCE_POLICIES.join(',')}`,
      parsePolicies,
    )
    .addHelpText('after', COMPARE_GUIDE)
    .action(async (argument: string, flags: SimulationFlags) => {
      const strategies = flags.strategies ?? [...STRATEGIES];
      const scenario = await loadScenario(argument, { ...loadOptions(flags), strategies });
      done(await simulate('compare', scenario, flags));
    });
}

export function addSimulationOptions(command: Command): Command {
  return command
    .option('--strategies <list>', `any of ${STRATEGIES.join(',')}`, parseStrategies)
    .option(
      '--json <file>',
      'write the results (docs/result-format.md); - writes them to stdout, without table',
    )
    .option('--seed <n>', 'seed of everything that is random', parseSeed)
    .option('--jobs <n>', 'machines at a time (default: one per core)', parseJobs)
    .option(
      '--set <key=value>',
      'override a key of the scenario, e.g. mm.init_on_alloc=false; repeatable',
      collect,
    )
    .option('--log <dir>', 'write the event logs of both processes, one folder per strategy');
}

export function loadOptions(flags: SimulationFlags) {
  return {
    overrides: flags.set ?? [],
    ...(flags.strategies ? { strategies: flags.strategies } : {}),
    ...(flags.seed === undefined ? {} : { seed: flags.seed }),
    ...(flags.policies ? { policies: flags.policies } : {}),
  };
}

/** Runs, prints and writes; gives the exit status. */
export async function simulate(
  command: string,
  scenario: Scenario,
  flags: SimulationFlags,
  launch: RunOptions['launch'] = {},
): Promise<number> {
  const progress = new ProgressDisplay();
  try {
    const runs = await runScenario(scenario, {
      jobs: flags.jobs ?? defaultJobs(),
      launch,
      onProgress: (name, step) => progress.report(name, step),
      ...(flags.log ? { logDirectory: flags.log } : {}),
    });
    progress.stop();
    const result: Result = {
      ballast: ballastVersion(),
      command,
      scenario: scenario.name,
      seed: scenario.seed,
      runs,
    };
    if (flags.json !== '-') print(renderResult(result, { color: wantsColor() }));
    if (flags.json) await writeJson(flags.json, result);
    return runs.every(isGood) ? ExitStatus.OK : ExitStatus.EXPECTATION_FAILED;
  } finally {
    progress.stop();
  }
}
