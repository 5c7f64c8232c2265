import { Command, CommanderError } from 'commander';
import { BallastError, ExitStatus } from '../../shared/index.ts';
import { addGuestCommand, addHostCommand } from './by-hand.ts';
import { addExploreCommand } from './explore.ts';
import { GUIDE } from './guide.ts';
import { ballastVersion, complain, guardOutput } from './output.ts';
import { addPeersCommand } from './peers.ts';
import { addImportCommand, addInspectCommand } from './recording.ts';
import { addCompareCommand, addRunCommand } from './run.ts';

/** `ballast …`: the table of commands, and what every error becomes. */

/** Runs one command line; resolves with the exit status. `argv` as process.argv. */
export async function main(argv: readonly string[]): Promise<number> {
  guardOutput();
  let status: number = ExitStatus.OK;
  const program = new Command('ballast')
    .description(
      'A virtio-balloon and live-migration laboratory: what would free page hinting save?',
    )
    .version(ballastVersion(), '-V, --version')
    .exitOverride()
    .configureOutput({ outputError: (text, write) => write(oneLine(text)) })
    .addHelpText('after', GUIDE);
  const done = (code: number) => {
    status = code;
  };
  addCompareCommand(program, done);
  addRunCommand(program, done);
  addExploreCommand(program, done);
  addInspectCommand(program);
  addImportCommand(program);
  addHostCommand(program, done);
  addGuestCommand(program, done);
  addPeersCommand(program, done);
  try {
    await program.parseAsync(argv);
    return status;
  } catch (error) {
    return statusOf(error);
  }
}

/** Commander's `error: …`, which may have a suggestion on a second line, in our form. */
function oneLine(text: string): string {
  return `${text
    .trim()
    .replace(/^error: /, 'ballast: ')
    .replaceAll('\n', ' ')}\n`;
}

function statusOf(error: unknown): number {
  // Commander has said what is wrong; help and version are no errors.
  if (error instanceof CommanderError)
    return error.exitCode === 0 ? ExitStatus.OK : ExitStatus.BAD_INPUT;
  if (error instanceof BallastError) {
    complain(error.message);
    return error.exitStatus;
  }
  const fileError = describeFileError(error);
  if (fileError) {
    complain(fileError);
    return ExitStatus.BAD_INPUT;
  }
  // A fault of our own: the stack is what its report needs.
  throw error;
}

/** What the system says of a file that was named on the command line. */
function describeFileError(error: unknown): string | null {
  if (!(error instanceof Error) || !('code' in error) || !('path' in error)) return null;
  const reasons: Readonly<Record<string, string>> = {
    ENOENT: 'expected an existing folder or file, found none',
    EACCES: 'expected permission to use it, found none',
    EISDIR: 'expected a file, found a folder',
    ENOTDIR: 'expected a folder in its path, found a file',
    EEXIST: 'expected a free name, found a file',
    ENOSPC: 'expected space on the device, found none',
    EROFS: 'expected a writable file system, found a read-only one',
  };
  const reason = reasons[String(error.code)];
  return reason ? `${String(error.path)}: ${reason}` : null;
}
