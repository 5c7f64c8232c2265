/** `npm run fuzz`: hostile peers, as many as one likes, from a seed. */
import { parseArgs } from 'node:util';
import { ExitStatus } from '../shared/index.ts';
import { DIRECTIONS, type Direction } from './case.ts';
import { KINDS } from './kinds.ts';
import { kindList, renderDone, renderFailure, renderRepeated } from './report.ts';
import type { FuzzRequest } from './request.ts';
import { runInProcess } from './worker.ts';

const DEFAULT_CASES = 100_000;
/** What may be left after all cases: caches that the engine fills slowly. */
const HEAP_GROWTH_MAX_BYTES = 16 * 2 ** 20;

const HELP = `Usage: npm run fuzz -- [--direction D] [--cases N] [--seed S] [--kind NAMES] [--details]
       npm run fuzz -- --direction D --seed S --case M

A hostile guest against our host, or a hostile host against our guest, and every way in which it can
be wrong that the generators know. Each case must end served, ignored, counted, with a broken device
or ring, or with the end of the session by one line; what is wrong by construction must not be
accepted in silence. Anything else is a failure: it is printed with the command that repeats it.

  --direction D   ${DIRECTIONS.join(' or ')} (default: both, one after the other)
  --cases N       cases of each direction (default: ${DEFAULT_CASES})
  --seed S        0 … 2^32−1 (default: 1); the same seed gives the same cases and verdicts
  --case M        only case M of the seed, after those on the same machine; a failure is made smaller
  --kind NAMES    only cases of these kinds, comma-separated:
${kindList()}
  --details       a line for each thing that is sent, not only for each kind
  --help          this text

Exit status: 0 every case ended as it must, 1 one did not, 2 bad input.
docs/fuzzing.md says what is generated and which bounds hold.
`;

interface Options {
  readonly directions: readonly Direction[];
  readonly kinds: readonly string[];
  readonly seed: number;
  readonly cases: number;
  readonly case: number | null;
  readonly details: boolean;
}

class Refusal extends Error {}

async function main(): Promise<number> {
  const options = parse();
  if (options === null) {
    process.stdout.write(HELP);
    return ExitStatus.OK;
  }
  let status: number = ExitStatus.OK;
  for (const direction of options.directions) {
    const passed = await (options.case === null
      ? campaign(options, direction)
      : repeat(options, direction, options.case));
    if (!passed) status = ExitStatus.EXPECTATION_FAILED;
  }
  return status;
}

async function campaign(options: Options, direction: Direction): Promise<boolean> {
  const { kinds, seed, cases } = options;
  const request: FuzzRequest = { task: 'campaign', direction, kinds, seed, cases };
  const ended = await runInProcess(request, (number, ms) => {
    showProgress(
      `${direction}: ${number} of ${cases} cases, ${Math.round((1000 * number) / ms)}/s`,
    );
  });
  showProgress('');
  if (ended.kind === 'hang' || ended.kind === 'died') {
    print(`about case ${ended.case}, seed ${seed}: ${ended.why}`);
    return false;
  }
  if (ended.kind !== 'done') throw new Error('a campaign is answered by its end');
  print(renderDone(request, ended, options.details));
  if (ended.failure !== null) {
    print(renderFailure(request, ended.failure.case, ended.failure.problem));
    return false;
  }
  if ((ended.heapGrowthBytes ?? 0) <= HEAP_GROWTH_MAX_BYTES) return true;
  print(`the heap grew by more than ${HEAP_GROWTH_MAX_BYTES / 2 ** 20} MiB`);
  return false;
}

async function repeat(options: Options, direction: Direction, number: number): Promise<boolean> {
  const { kinds, seed } = options;
  const request: FuzzRequest = { task: 'repeat', direction, kinds, seed, cases: number };
  const ended = await runInProcess(request, () => {});
  if (ended.kind === 'repeated') {
    print(renderRepeated(ended));
    return ended.failure === null;
  }
  print(`case ${number}, seed ${seed}: ${'why' in ended ? ended.why : ended.kind}`);
  return false;
}

function parse(): Options | null {
  const { values } = parseArgs({
    options: {
      direction: { type: 'string' },
      cases: { type: 'string', default: String(DEFAULT_CASES) },
      seed: { type: 'string', default: '1' },
      case: { type: 'string' },
      kind: { type: 'string' },
      details: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  if (values.help) return null;
  const direction = DIRECTIONS.find((one) => one === values.direction);
  if (values.direction !== undefined && !direction) {
    throw new Refusal(
      `--direction: expected ${DIRECTIONS.join(' or ')}, found ${values.direction}`,
    );
  }
  if (values.case !== undefined && !direction) {
    throw new Refusal('--case: expected --direction beside it, found none');
  }
  const directions = direction ? [direction] : DIRECTIONS;
  const kinds = values.kind?.split(',') ?? [];
  for (const name of kinds) {
    if (
      !directions.every((one) => KINDS.some((kind) => kind.name === name && kind.direction === one))
    ) {
      throw new Refusal(`--kind: expected one of the direction, see --help; found ${name}`);
    }
  }
  return {
    directions,
    kinds,
    seed: integer('--seed', values.seed, 0, 2 ** 32 - 1),
    cases: integer('--cases', values.cases, 1, 1e9),
    case: values.case === undefined ? null : integer('--case', values.case, 0, 1e9),
    details: values.details,
  };
}

function integer(name: string, text: string, least: number, most: number): number {
  const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (value >= least && value <= most) return value;
  throw new Refusal(`${name}: expected a whole number in ${least} … ${most}, found ${text}`);
}

function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

function showProgress(line: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${line}`);
}

process.exitCode = await main().catch((error: unknown) => {
  const code = (error as { code?: string }).code;
  if (!(error instanceof Refusal) && !code?.startsWith('ERR_PARSE_ARGS')) throw error;
  process.stderr.write(`fuzz: ${(error as Error).message}\n`);
  return ExitStatus.BAD_INPUT;
});
