/** Console commands of programs that use memory in the background. */
import { BallastError, type Prng } from '../../../shared/index.ts';
import { type LoadOptions, Loads } from '../../load/loads.ts';
import type { CommandLine } from '../command-line.ts';
import type { CommandTable } from '../console.ts';
import type { System } from '../system.ts';

const KINDS = ['churn', 'rewrite', 'fork', 'frag', 'tmpfs', 'pressure', 'idle'] as const;

export interface LoadCommands {
  readonly table: CommandTable;
  readonly counters: Loads['counters'];
}

export function loadCommands(system: System, prng: Prng): LoadCommands {
  const { kernel, users, contents } = system;
  const loads = new Loads(kernel, users, (pfn, tag) => contents.read(pfn, tag), prng);
  system.alsoAudited.push(loads);
  const table: CommandTable = {
    *start(args) {
      yield { kind: 'cpu', ns: 0 };
      loads.start(args.text('name'), optionsOf(args), args.cpu);
      return null;
    },
    *finish(args) {
      yield* loads.finish(args.text('name'));
      return null;
    },
  };
  return { table, counters: loads.counters };
}

function optionsOf(args: CommandLine): LoadOptions {
  const kind = args.oneOf('kind', KINDS);
  switch (kind) {
    case 'churn': {
      const [keep, chunk] = [args.pages('keep'), args.pages('chunk')];
      return { kind, keep, chunk, rate: args.number('rate') };
    }
    case 'rewrite':
      return { kind, set: args.pages('set'), rate: args.number('rate') };
    case 'fork':
      return { kind, perSecond: positive(args, 'per_second'), private: args.pages('private') };
    case 'frag':
      return { kind, size: args.pages('size'), run: positive(args, 'run') };
    case 'tmpfs': {
      const [files, file] = [positive(args, 'files'), args.pages('file')];
      return { kind, files, file, perSecond: positive(args, 'per_second') };
    }
    case 'pressure':
      return { kind, leave: args.number('leave') };
    case 'idle':
      return { kind };
  }
}

/** How often a second something may happen: each time takes the host a moment, too. */
const PER_SECOND_MAX = 10_000;

function positive(args: CommandLine, key: string): number {
  const value = args.number(key, undefined, PER_SECOND_MAX);
  if (value > 0) return value;
  throw new BallastError('BAD_INPUT', `expected ${key}=NUMBER of at least 1, found ${key}=0`);
}
