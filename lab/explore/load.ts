import { readFile, stat } from 'node:fs/promises';
import { basename, extname, resolve } from 'node:path';
import type { ExploreScenario, ExploreThread } from '../../protocol/index.ts';
import { BallastError } from '../../shared/index.ts';
import { type Problem, problemsOf } from '../input/problems.ts';
import { packageRoot } from '../process/paths.ts';
import { parseOverride } from '../scenario/load.ts';
import { ScenarioSource } from '../scenario/source.ts';
import { type ExploreFile, exploreSchema, PAGEBLOCK_PAGES, type ThreadFile } from './schema.ts';

/** Finds, reads, checks and completes a scenario of the explorer. */

/**
 * `argument` is a file or the name of one in scenarios/explore/; overrides are `key.path=value`.
 * @throws BallastError BAD_INPUT, FILE_MISSING: one line per problem.
 */
export async function loadExploration(
  argument: string,
  overrides: readonly string[] = [],
): Promise<ExploreScenario> {
  const path = await findScenario(argument);
  return parseExploration(path, await readFile(path, 'utf8'), overrides);
}

/** Checks and completes the text of a scenario; `file` names it in messages. */
export function parseExploration(
  file: string,
  text: string,
  overrides: readonly string[] = [],
): ExploreScenario {
  const working = `${process.cwd()}/`;
  const shownFile = file.startsWith(working) ? file.slice(working.length) : file;
  const source: ScenarioSource = new ScenarioSource(shownFile, text, overrides.map(parseOverride));
  const parsed = exploreSchema.safeParse(source.data);
  if (!parsed.success) source.fail(problemsOf(parsed.error, exploreSchema));
  const problems = contradictions(parsed.data);
  if (problems.length > 0) source.fail(problems);
  return complete(parsed.data, basename(file, extname(file)));
}

async function findScenario(argument: string): Promise<string> {
  const named = /^[\w.-]+$/.test(argument)
    ? [`${packageRoot}/scenarios/explore/${argument.replace(/\.ya?ml$/, '')}.yaml`]
    : [];
  for (const path of [resolve(argument), ...named]) {
    if ((await stat(path).catch(() => null))?.isFile()) return path;
  }
  throw new BallastError(
    'FILE_MISSING',
    `${argument}: expected a scenario of the explorer (.yaml) or the name of one in ` +
      'scenarios/explore/, found no such file',
  );
}

function complete(file: ExploreFile, defaultName: string): ExploreScenario {
  const hint = file.threads.find((thread) => thread.hint)?.hint;
  return {
    name: file.name ?? defaultName,
    seed: file.seed,
    machine: {
      frames: file.machine.frames,
      managed: file.machine.managed,
      vcpus: file.machine.vcpus,
      pagePoison: file.machine.page_poison,
    },
    generation: file.generation,
    strategy: hint?.strategy ?? 'none',
    iterate: { budgetNodes: hint?.budget ?? 1, minOrder: hint?.min_order ?? 0 },
    discardHints: file.device.discard_hints,
    threads: file.threads.flatMap(completeThread),
    faults: {
      delayedAcks: file.faults.delayed_acks,
      allocFailures: file.faults.alloc_failures,
      lateDevice: file.faults.late_device,
    },
  };
}

function completeThread(thread: ThreadFile): ExploreThread[] {
  const { hint, migrate, ...others } = thread;
  if (hint) return hint.rounds > 0 ? [{ kind: 'hint', times: hint.rounds }] : [];
  if (migrate) {
    return [{ kind: 'migrate', dirtyLog: migrate.dirty_log, hintRemedy: migrate.hint_remedy }];
  }
  // The file has one key, and the names of its options are those of the thread.
  const [entry] = Object.entries(others).filter(([, options]) => options !== undefined);
  return entry ? [{ kind: entry[0], ...entry[1] } as ExploreThread] : [];
}

/** What each key alone allows, but the whole does not. */
function contradictions({ machine, threads, device }: ExploreFile): Problem[] {
  const problems: Problem[] = [];
  const { frames, managed, vcpus } = machine;
  if (managed !== frames && managed > frames / 2) {
    const expected = `at most ${frames / 2}, half of the frames, or all ${frames}`;
    problems.push({ path: ['machine', 'managed'], expected });
  }
  for (const name of ['migrate', 'hint'] as const) {
    const second = threads.filter((thread) => thread[name])[1];
    if (!second) continue;
    const path = ['threads', threads.indexOf(second)];
    problems.push({ path, expected: `one ${name}`, found: 'a second' });
  }
  const hint = threads.find((thread) => thread.hint)?.hint;
  const at = threads.findIndex((thread) => thread.hint);
  if (hint && hint.rounds > 0 && threads.some((thread) => thread.migrate)) {
    const path = ['threads', at, 'hint', 'rounds'];
    problems.push({ path, expected: 'no rounds beside a migration, which asks for its own' });
  }
  if (hint?.strategy.startsWith('alloc') && frames < 2 * PAGEBLOCK_PAGES * 2) {
    const path = ['machine', 'frames'];
    problems.push({
      path,
      expected: `at least ${4 * PAGEBLOCK_PAGES}: ${hint.strategy} takes blocks of 4 MiB`,
    });
  }
  if (device.discard_hints && !hint) {
    const expected = 'a thread "hint" whose hints are discarded';
    problems.push({ path: ['device', 'discard_hints'], expected, found: 'none' });
  }
  for (const [index, thread] of threads.entries()) {
    for (const [name, options] of Object.entries(thread)) {
      if (!options || !('cpu' in options) || options.cpu < vcpus) continue;
      const expected = `a vCPU below ${vcpus}`;
      problems.push({ path: ['threads', index, name, 'cpu'], expected });
    }
  }
  return problems;
}
