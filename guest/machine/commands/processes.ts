/** Console commands of processes, of files, and of who pins memory. */
import { Errno, errnoName } from '../../../shared/index.ts';
import type { Kthread } from '../../sched/kthread.ts';
import type { CommandLine } from '../command-line.ts';
import type { CommandTable } from '../console.ts';
import type { PinKind, UserSpace } from '../user-space.ts';

const PIN_KINDS: readonly PinKind[] = ['vfio', 'longterm', 'short'];
const ACCESSES = ['read', 'write'] as const;

export function processCommands(users: UserSpace): CommandTable {
  return {
    *process(args) {
      const kind = args.has('shmem') ? 'shmem' : 'anonymous';
      const outcome = yield* users.start(args.text('name'), kind, args.pages(kind), args.cpu);
      // Killed for want of memory: no failure of the line.
      return outcome === Errno.EINTR ? null : failureOf(outcome);
    },
    // Also of one that the OOM killer has ended: then only its name goes.
    *exit(args) {
      yield* users.exit(args.text('name'), args.cpu);
      return null;
    },
    *fork(args) {
      yield* spendNothing();
      return failureOf(users.fork(args.text('process'), args.text('name'), args.cpu));
    },
    *touch(args) {
      const name = args.text('process');
      const size = args.number('size', users.sizeOf(name));
      if (size > users.sizeOf(name)) return tooMany(users.sizeOf(name));
      const write = args.oneOf('access', ACCESSES) === 'write';
      return failureOf(yield* users.touch(name, size, write, args.cpu));
    },
    *pin(args) {
      const name = args.text('process');
      const size = args.number('size');
      if (size > users.sizeOf(name)) return tooMany(users.sizeOf(name));
      return failureOf(yield* users.pin(name, args.oneOf('by', PIN_KINDS), size));
    },
    *unpin(args) {
      yield* spendNothing();
      users.unpin(args.text('name'));
      return null;
    },
    ...fileCommands(users),
  };
}

function fileCommands(users: UserSpace): CommandTable {
  const fileOf = (args: CommandLine) => {
    const size = args.pages('size');
    const file = users.file(args.text('name'), size);
    return { file, size: Math.min(size, file.sizePages) };
  };
  return {
    *read_file(args) {
      const { file, size } = fileOf(args);
      return failureOf(yield* file.read(0, size, args.cpu));
    },
    *write_file(args) {
      const { file, size } = fileOf(args);
      return failureOf(yield* file.write(0, size, args.cpu));
    },
    *sync_file(args) {
      yield* users.file(args.text('name'), 1).sync();
      return null;
    },
    *drop_file(args) {
      yield* users.file(args.text('name'), 1).truncate();
      return null;
    },
  };
}

function failureOf(outcome: Errno): string | null {
  return outcome === Errno.OK ? null : errnoName(outcome);
}

function tooMany(pageCount: number): string {
  return `the process has only ${pageCount} pages`;
}

function* spendNothing(): Kthread {
  yield { kind: 'cpu', ns: 0 };
}
