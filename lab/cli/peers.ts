import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Command } from 'commander';
import { ExitStatus } from '../../shared/index.ts';
import { entryArguments } from '../process/paths.ts';
import { PEERS_GUIDE } from './guide.ts';

/** `ballast peers`: what `guest: linux` and the tests against QEMU need. */
export function addPeersCommand(program: Command, done: (status: number) => void): void {
  program
    .command('peers')
    .description('fetch QEMU, SeaBIOS, an i386 Linux kernel and busybox, once')
    .addHelpText('after', PEERS_GUIDE)
    .action(async () => {
      const child = spawn(process.execPath, entryArguments('peers'), { stdio: 'inherit' });
      const [status] = (await once(child, 'exit')) as [number | null];
      done(status ?? ExitStatus.BAD_INPUT);
    });
}
