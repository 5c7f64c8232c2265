/** `npm run bench`: measures, compares with references of the same run, prints a table. */
import { writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import { benchAllocator } from './allocator.ts';
import { benchBalloon, benchHints } from './balloon.ts';
import { benchBitmap } from './bitmap.ts';
import { benchChannel } from './channel.ts';
import { benchCompaction } from './compaction.ts';
import { benchExplorer } from './explorer.ts';
import { type Bench, type Summary, summarize } from './figure.ts';
import { benchMachine } from './machine.ts';
import { benchMigrate } from './migrate.ts';
import { compileReference } from './reference/c.ts';
import { benchReplay } from './replay.ts';
import { renderTable } from './table.ts';

const BENCHES: Readonly<Record<string, { readonly run: Bench; readonly about: string }>> = {
  channel: { run: benchChannel, about: 'messages/s and pages/s between two processes' },
  replay: { run: benchReplay, about: 'recorded events/s, guest side alone' },
  hints: { run: benchHints, about: 'one-page hints/s between the two processes' },
  balloon: { run: benchBalloon, about: 'PFNs inflated and deflated/s between the two processes' },
  allocator: { run: benchAllocator, about: 'ns an operation of the page allocator; metadata' },
  migrate: { run: benchMigrate, about: 'pages/s of migrate_pages, in both shapes' },
  compaction: { run: benchCompaction, about: 'page frames/s of the migrate scanner' },
  explorer: { run: benchExplorer, about: 'schedules/s of the schedule explorer' },
  bitmap: { run: benchBitmap, about: 'kernels over dirty and migration bitmaps' },
  machine: { run: benchMachine, about: 'wall time and peak memory of whole runs on idle-1g' },
};

const HELP = `Usage: npm run bench -- [NAME …] [--runs N] [--json FILE]

Benchmarks; without a name, all of them:
${Object.entries(BENCHES)
  .map(([name, { about }]) => `  ${name.padEnd(10)} ${about}`)
  .join('\n')}

  --runs N      measured runs of each figure after a warm-up (default and least: 5)
  --json FILE   write the figures as JSON, too
  --strict      exit with status 1 if a target is missed
  --help        this text

docs/benchmarks.md says what each figure means and where its target comes from.
`;

const LEAST_RUNS = 5;

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      runs: { type: 'string', default: String(LEAST_RUNS) },
      json: { type: 'string' },
      strict: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  if (values.help) {
    process.stdout.write(HELP);
    return 0;
  }
  const names = positionals.length > 0 ? positionals : Object.keys(BENCHES);
  const unknown = names.find((name) => !BENCHES[name]);
  const runs = Number(values.runs);
  if (unknown !== undefined || !Number.isInteger(runs) || runs < LEAST_RUNS) {
    const what =
      unknown === undefined
        ? `--runs: expected an integer of at least ${LEAST_RUNS}, found ${values.runs}`
        : `unknown benchmark ${unknown}: expected ${Object.keys(BENCHES).join(', ')}`;
    console.error(`bench: ${what}`);
    return 2;
  }
  const cReference = compileReference();
  if (!cReference) console.error('no C compiler (cc): the C references are skipped');
  const summaries: Summary[] = [];
  for (const name of names) {
    const progress = (what: string): void => showProgress(`${name}: ${what}`);
    for (const figure of (await BENCHES[name]?.run({ runs, cReference, progress })) ?? []) {
      summaries.push(summarize(figure));
    }
  }
  showProgress('');
  console.log(
    `Node ${process.version}, ${cpus().length} × ${cpus()[0]?.model.trim()}, ${runs} runs`,
  );
  console.log(renderTable(summaries));
  const missed = summaries.filter(({ met }) => met === false).length;
  const held = summaries.filter(({ met }) => met === true).length;
  console.log(`${held} targets met, ${missed} missed`);
  if (values.json !== undefined) {
    const machine = { node: process.version, cpus: cpus().length, model: cpus()[0]?.model ?? '' };
    writeFileSync(
      values.json,
      `${JSON.stringify({ machine, runs, figures: summaries }, null, 2)}\n`,
    );
  }
  return values.strict && missed > 0 ? 1 : 0;
}

function showProgress(line: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${line}`);
}

process.exitCode = await main().catch((error: unknown) => {
  showProgress('');
  if ((error as { code?: string }).code?.startsWith('ERR_PARSE_ARGS')) {
    console.error(`bench: ${(error as Error).message}`);
    return 2;
  }
  throw error;
});
