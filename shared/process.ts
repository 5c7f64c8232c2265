/** What both processes do at their edges: end with one line, write an event log, hear of the lab's death. */
import { closeSync, mkdirSync, openSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { BallastError, ExitStatus } from './errors.ts';

/** One clear line on stderr, and the exit status that belongs to it. */
export function exitWith(role: string, error: unknown): never {
  if (error instanceof BallastError) {
    process.stderr.write(`ballast ${role}: ${error.message}\n`);
    process.exit(error.exitStatus);
  }
  // A broken invariant of our own: the stack is what mends it.
  const told = error instanceof Error ? (error.stack ?? error.message) : String(error);
  process.stderr.write(`ballast ${role}: internal error: ${told}\n`);
  process.exit(ExitStatus.PEER_LOST);
}

/** Lines go to the file in batches; the rest at exit. */
export function fileSink(path: string | null): ((line: string) => void) | undefined {
  if (path === null) return undefined;
  mkdirSync(dirname(path), { recursive: true });
  const fd = openSync(path, 'w');
  let pending: string[] = [];
  const flush = (): void => {
    if (pending.length > 0) writeSync(fd, `${pending.join('\n')}\n`);
    pending = [];
  };
  process.once('exit', () => {
    flush();
    closeSync(fd);
  });
  return (line) => {
    pending.push(line);
    if (pending.length >= 4096) flush();
  };
}

/** The laboratory's end of the IPC pipe closed: it died or is done with us. */
export function onLaboratoryGone(action: () => void): void {
  process.once('disconnect', action);
}
