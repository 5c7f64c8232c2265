import { type Command, InvalidArgumentError } from 'commander';
import { BallastError, ExitStatus, PLANT_NAMES, type PlantName } from '../../shared/index.ts';
import { type ExplorationResult, explore } from '../explore/explore.ts';
import { PLANT_HOMES } from '../explore/homes.ts';
import { loadExploration } from '../explore/load.ts';
import { grouped, renderExploration } from '../explore/report.ts';
import { EXPLORE_GUIDE } from './guide.ts';
import { collect, defaultJobs, parseJobs, parseSeed } from './options.ts';
import { print } from './output.ts';
import { ProgressDisplay } from './progress.ts';

/** `ballast explore`: schedules of a small machine, looked through for one that breaks something. */

const DEFAULT_SEEDS = 1000;
const DEFAULT_SCENARIO = 'mixed';
/** Seeds are 32 bits. */
const SEEDS_END = 2 ** 32;

interface ExploreFlags {
  readonly seeds: number;
  readonly firstSeed?: number;
  readonly seed?: number;
  readonly plant?: PlantName;
  readonly jobs?: number;
  readonly set?: string[];
  readonly listPlants?: boolean;
}

export function addExploreCommand(program: Command, done: (status: number) => void): void {
  program
    .command('explore')
    .description('look through schedules of a small machine for one that breaks an invariant')
    .argument(
      '[scenario]',
      'file, or name in scenarios/explore/ (default: where the plant lives, or mixed)',
    )
    .option('--seeds <n>', 'schedules to look through', parseSeeds, DEFAULT_SEEDS)
    .option('--first-seed <k>', 'begin at this seed (default: 0)', parseSeed)
    .option('--seed <k>', 'the same', parseSeed)
    .option('--plant <name>', 'switch a planted bug on', parsePlant)
    .option('--list-plants', 'print the names of the planted bugs')
    .option(
      '--set <key=value>',
      'override a key of the scenario, e.g. generation=pfn; repeatable',
      collect,
    )
    .option('--jobs <n>', 'processes (default: one per core)', parseJobs)
    .addHelpText('after', EXPLORE_GUIDE)
    .action(async (argument: string | undefined, flags: ExploreFlags) => {
      if (flags.listPlants) print(PLANT_NAMES.join('\n'));
      else done(await runExploration(argument, flags));
    });
}

async function runExploration(argument: string | undefined, flags: ExploreFlags): Promise<number> {
  const plant = flags.plant ?? null;
  const name = argument ?? (plant === null ? DEFAULT_SCENARIO : PLANT_HOMES[plant]);
  const firstSeed = firstSeedOf(flags);
  const scenario = await loadExploration(name, flags.set);
  const progress = new ProgressDisplay();
  let result: ExplorationResult;
  try {
    result = await explore({
      scenario,
      plant,
      firstSeed,
      seeds: flags.seeds,
      jobs: flags.jobs ?? defaultJobs(),
      onProgress: (ran, perSecond) =>
        progress.report(scenario.name, {
          what: `${grouped(ran)} schedules, ${grouped(perSecond)}/s`,
          done: ran,
          total: flags.seeds,
        }),
      onViolation: (seed) =>
        progress.report(scenario.name, { what: `reducing seed ${seed}`, done: 1, total: 1 }),
    });
  } finally {
    progress.stop();
  }
  print(renderExploration(result, repeatCommand(name, flags, result)));
  return result.violation === null ? ExitStatus.OK : ExitStatus.EXPECTATION_FAILED;
}

function repeatCommand(name: string, flags: ExploreFlags, result: ExplorationResult): string {
  const seed = result.violation?.violation.seed ?? 0;
  const words = ['ballast', 'explore', name];
  if (flags.plant) words.push('--plant', flags.plant);
  for (const override of flags.set ?? []) words.push('--set', override);
  words.push('--first-seed', String(seed), '--seeds', '1');
  return words.map(quoted).join(' ');
}

/** As a shell reads it back. */
function quoted(word: string): string {
  return /^[\w.,:=/+-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

function firstSeedOf({ firstSeed, seed, seeds }: ExploreFlags): number {
  if (firstSeed !== undefined && seed !== undefined) {
    throw new BallastError(
      'BAD_INPUT',
      '--seed and --first-seed are the same: expected one of them',
    );
  }
  const first = firstSeed ?? seed ?? 0;
  if (first + seeds <= SEEDS_END) return first;
  throw new BallastError(
    'BAD_INPUT',
    `--seeds ${seeds}: expected seeds below 2^32 from ${first} on`,
  );
}

function parseSeeds(text: string): number {
  const value = /^\d+$/.test(text) ? Number(text) : 0;
  if (value >= 1 && value <= SEEDS_END) return value;
  throw new InvalidArgumentError(`Expected a whole number above 0, found "${text}".`);
}

function parsePlant(text: string): PlantName {
  const plant = PLANT_NAMES.find((name) => name === text);
  if (plant) return plant;
  throw new InvalidArgumentError(`Expected one of ${PLANT_NAMES.join(', ')}, found "${text}".`);
}
